"""What people see of a build by docker's clients: on a terminal, in a log, when it fails; secrets, keys and caches.

Three ways to the daemon: the BuildKit client that docker 20.10 has built in, buildx through docker's socket, and buildx
with its remote driver (E6, I8, K8).
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.bases import BUSYBOX_STAGE, busybox_context
from support.docker_cli import BUILDX, DockerClient, clients, has_buildkit, running_docker_daemon

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("crun") is None, reason="needs root and crun: apt-get install crun"
    ),
    pytest.mark.skipif(not clients(), reason="needs docker's client: apt-get install docker.io"),
]
WAYS = ("built in", "buildx", "buildx remote")
STAGES = (
    BUSYBOX_STAGE
    + """\
FROM base AS one
RUN echo first-output && echo one > /one
FROM base AS two
COPY word /word
RUN cat /word && cp /word /two
FROM scratch
COPY --from=one /one /
COPY --from=two /two /
"""
)


@dataclass(frozen=True)
class Front:
    """A docker client that builds in one of the ways."""

    docker: DockerClient
    build: tuple[str, ...]

    def plain(self, *words: str | Path, check: bool = True) -> tuple[int, str]:
        """Build with progress for logs; return the exit code and what was said."""
        done = self.docker(*self.build, "--progress=plain", *words, check=check)
        return done.returncode, done.stderr.decode()

    def tty(self, *words: str | Path, size: tuple[int, int] = (40, 120)) -> tuple[int, str]:
        """Build with progress for terminals, on one."""
        return self.docker.on_terminal(*self.build, *words, size=size)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory):
    with running_docker_daemon(tmp_path_factory.mktemp("daemon") / "root") as found:
        yield found


@pytest.fixture(params=WAYS)
def front(daemon, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Front]:
    (tmp_path / "config").mkdir()
    if request.param == "built in":
        path = next((path for path in clients() if has_buildkit(path)), "")
        if not path:
            pytest.skip("needs a docker client with BuildKit in it: docker.io of Debian 12")
        yield Front(DockerClient(path, daemon[1], tmp_path / "config", {"DOCKER_BUILDKIT": "1"}), ("build",))
        return
    if not BUILDX:
        pytest.skip("needs docker's buildx plugin: apt-get install docker-buildx, where Debian has it")
    (tmp_path / "config" / "cli-plugins").mkdir()
    (tmp_path / "config" / "cli-plugins" / "docker-buildx").symlink_to(BUILDX)
    docker = DockerClient(clients()[-1], daemon[1], tmp_path / "config", {"DOCKER_BUILDKIT": "1"})
    if request.param == "buildx":
        yield Front(docker, ("buildx", "build", "--provenance=false"))
        return
    docker("buildx", "create", "--name", "far", "--driver", "remote", f"unix://{daemon[0].socket}")
    yield Front(docker, ("buildx", "build", "--builder", "far"))
    docker("buildx", "rm", "far")


@pytest.fixture(scope="module")
def base_context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return busybox_context(tmp_path_factory.mktemp("base"))


@pytest.fixture
def context(base_context: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "ctx"
    shutil.copytree(base_context, folder, symlinks=True)
    (folder / "word").write_text(f"word-{secrets.token_hex(4)}\n")
    (folder / "Dockerfile").write_text(STAGES)
    return folder


def shown(text: str) -> list[str]:
    """Return the lines of what a terminal was sent, without its control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "\n").split("\n")


def test_on_a_terminal_steps_are_drawn_and_redrawn(front: Front, context: Path, tmp_path: Path):
    code, text = front.tty("-o", tmp_path / "out", context)
    lines = shown(text)

    assert code == 0, text
    assert "\x1b[" in text
    assert any(re.match(r"\[\+\] Building [\d.]+s \(\d+/\d+\) FINISHED", line) for line in lines)
    for step in ("[two 2/2] RUN cat /word", "[one 1/1] RUN echo first-output", "COPY --from=one /one /"):
        assert any(re.match(r" => (CACHED )?\[", line) and step in line for line in lines), step
    assert (tmp_path / "out" / "two").read_text() == (context / "word").read_text()


def test_a_small_terminal_is_no_obstacle(front: Front, context: Path, tmp_path: Path):
    code, text = front.tty("-o", tmp_path / "out", context, size=(8, 40))

    assert code == 0, text
    assert (tmp_path / "out" / "one").read_text() == "one\n"


def test_in_a_log_steps_are_numbered_and_their_output_is_told(front: Front, context: Path, tmp_path: Path):
    _, text = front.plain("-o", tmp_path / "out", context)
    _, again = front.plain("-o", tmp_path / "again", context)

    (number,) = set(re.findall(r"^#(\d+) \[two \d/\d\] RUN cat /word", text, re.MULTILINE))
    word = (context / "word").read_text().strip()
    assert re.search(rf"^#{number} [\d.]+ {word}$", text, re.MULTILINE)
    assert re.search(rf"^#{number} DONE [\d.]+s$", text, re.MULTILINE)
    (number,) = set(re.findall(r"^#(\d+) \[two \d/\d\] RUN cat /word", again, re.MULTILINE))
    assert re.search(rf"^#{number} CACHED$", again, re.MULTILINE)
    assert word not in again
    assert (tmp_path / "again" / "two").read_text() == f"{word}\n"


def failing(context: Path) -> str:
    """Make the Dockerfile one whose second step fails; return what it prints."""
    mark = f"mark-{secrets.token_hex(4)}"
    text = BUSYBOX_STAGE + f"FROM base\nRUN echo fine\nRUN echo {mark} && \\\n    exit 7\nRUN echo never\n"
    (context / "Dockerfile").write_text(text)
    return mark


def test_a_failure_is_shown_with_its_lines_and_output_on_a_terminal(front: Front, context: Path):
    mark = failing(context)
    code, text = front.tty(context)
    lines = [line.rstrip() for line in shown(text)]

    assert code == 1
    assert any(line.endswith(f" {mark}") and not line.startswith(" => ") for line in lines)
    assert f"   6 | >>> RUN echo {mark} && \\" in lines
    assert "   7 | >>>     exit 7" in lines
    assert "   5 |     RUN echo fine" in lines
    assert any("exit code: 7" in line for line in lines)
    assert not any("echo never" in line and line.startswith(" => [") and "0.0s" in line for line in lines)


def test_a_failure_is_shown_with_its_lines_and_output_in_a_log(front: Front, context: Path):
    mark = failing(context)
    code, text = front.plain(context, check=False)
    lines = [line.rstrip() for line in text.splitlines()]

    assert code == 1
    assert any(re.match(rf"#\d+ [\d.]+ {mark}$", line) for line in lines)
    assert any(re.match(r"#\d+ ERROR: .*exit code: 7", line) for line in lines)
    assert f"   6 | >>> RUN echo {mark} && \\" in lines
    assert lines[-1].endswith("did not complete successfully: exit code: 7")


@pytest.mark.parametrize(
    ("dockerfile", "line", "words"),
    [
        ("FROM scratch\nRUNN true\n", "   2 | >>> RUNN true", "unknown instruction"),
        ("FROM scratch\nCOPY nothere /\n", "   2 | >>> COPY nothere /", "nothere"),
        ("FROM scratch AS a\nFROM scratch\nCOPY --from=b / /\n", "   3 | >>> COPY --from=b / /", "b"),
    ],
)
def test_a_mistake_is_shown_with_its_line(front: Front, context: Path, dockerfile: str, line: str, words: str):
    (context / "Dockerfile").write_text(dockerfile)
    code, text = front.plain(context, check=False)

    assert code == 1
    assert line in [one.rstrip() for one in text.splitlines()]
    assert words in text


def with_libraries(program: str, folder: Path) -> None:
    """Copy a program of this machine into a root file system, with all that it loads."""
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for path in (program, *re.findall(r"(/\S+) \(0x", listed)):
        target = folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(os.path.realpath(path), target)


@pytest.mark.skipif(shutil.which("ssh-add") is None, reason="needs ssh-add: apt-get install openssh-client")
def test_secrets_keys_and_caches_in_several_stages(front: Front, context: Path, tmp_path: Path):
    """A3.4, A3.6, A3.7: what steps are lent is in no layer and no log; caches last from build to build."""
    agent, key = tmp_path / "agent", tmp_path / "key"
    secret, cache = secrets.token_hex(16), secrets.token_hex(4)
    (tmp_path / "secret").write_text(secret)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "a key", "-f", key], check=True)
    with_libraries("/usr/bin/ssh-add", context / "rootfs")
    (context / "Dockerfile").write_text(
        BUSYBOX_STAGE
        + "FROM base AS secret\n"
        + "RUN --mount=type=secret,id=file md5sum < /run/secrets/file | cut -c -32 > /sum\n"
        + "RUN --mount=type=secret,id=file,target=/elsewhere,mode=0400 ls -l /elsewhere; cat /elsewhere\n"
        + "FROM base AS agent\nRUN --mount=type=ssh,id=mine ssh-add -l > /keys\n"
        + f"FROM base AS cache\nRUN --mount=type=cache,id={cache},target=/c echo x >> /c/n && wc -l < /c/n > /count\n"
        + "FROM scratch\nCOPY --from=secret /sum /\nCOPY --from=agent /keys /\nCOPY --from=cache /count /\n"
    )
    words = ["--secret", f"id=file,src={tmp_path}/secret", "--ssh", f"mine={agent}", "--no-cache"]
    with subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL) as process:
        try:
            _until_there(agent)
            environ = {**os.environ, "SSH_AUTH_SOCK": str(agent)}
            subprocess.run(["ssh-add", "-q", key], env=environ, check=True)
            _, first = front.plain(*words, "-o", tmp_path / "out", context)
            code, second = front.tty(*words, "-o", tmp_path / "again", context)
        finally:
            process.terminate()

    assert code == 0, second
    assert (tmp_path / "out" / "sum").read_text().strip() == hashlib.md5(secret.encode()).hexdigest()
    assert "a key (ED25519)" in (tmp_path / "out" / "keys").read_text()
    assert [(tmp_path / name / "count").read_text().strip() for name in ("out", "again")] == ["1", "2"]
    assert secret not in first + second


def _until_there(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        subprocess.run(["sleep", "0.05"], check=True)
    raise AssertionError(f"{path} does not appear")
