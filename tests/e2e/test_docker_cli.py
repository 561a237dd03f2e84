"""E6, I1: docker's own client builds, lists, moves and removes images with `lamina serve` as its daemon."""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from support.bases import BUSYBOX_STAGE, busybox_context
from support.docker_cli import BUILDX, DockerClient, clients, has_buildkit, running_docker_daemon
from support.git_server import Repository, running_git_server
from support.registry import running_registry

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("crun") is None, reason="needs root and crun: apt-get install crun"
    ),
    pytest.mark.skipif(not clients(), reason="needs docker's client: apt-get install docker.io"),
]
BUILDKIT = [client for client in clients() if has_buildkit(client)] or [""]
WAYS = [*((client, "1") for client in BUILDKIT if client), *((client, "0") for client in clients())] or [("", "")]
STAGES = (
    BUSYBOX_STAGE
    + """\
FROM base AS made
ARG WHAT=nothing
COPY word /word
RUN cat /word > /made && echo "$WHAT" >> /made
FROM base AS other
RUN echo other > /other
FROM scratch
COPY --from=made /made /
COPY --from=other /other /
LABEL from=file
CMD ["/made"]
"""
)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory):
    with running_docker_daemon(tmp_path_factory.mktemp("daemon") / "root") as found:
        yield found


@pytest.fixture(scope="module")
def base_context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return busybox_context(tmp_path_factory.mktemp("base"))


@pytest.fixture
def context(base_context: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "ctx"
    shutil.copytree(base_context, folder, symlinks=True)
    (folder / "word").write_text("hello\n")
    return folder


@pytest.fixture
def docker(daemon, tmp_path: Path, request: pytest.FixtureRequest) -> DockerClient:
    """The client of this test, with or without BuildKit."""
    path, buildkit = getattr(request, "param", (clients()[0], "0"))
    config = tmp_path / "config"
    config.mkdir()
    return DockerClient(path, daemon[1], config, {"DOCKER_BUILDKIT": buildkit})


in_every_way = pytest.mark.parametrize("docker", WAYS, indirect=True, ids=lambda way: f"{way[0]}-{way[1]}")
with_buildkit = pytest.mark.parametrize(
    "docker", [(client, "1") for client in BUILDKIT], indirect=True, ids=lambda way: way[0]
)
with_every_client = pytest.mark.parametrize(
    "docker", [(client, "0") for client in clients()], indirect=True, ids=lambda way: way[0]
)


def name() -> str:
    """Return a name that no other test gives to an image."""
    return f"t{secrets.token_hex(6)}"


def files_of(docker: DockerClient, image: str) -> dict[str, bytes]:
    """Return the files of an image's layers, as `docker save` gives them."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(docker("save", image).stdout)) as archive:
        (row,) = json.load(archive.extractfile("manifest.json"))
        for layer in row["Layers"]:
            with tarfile.open(fileobj=io.BytesIO(archive.extractfile(layer).read())) as files:
                for member in files:
                    if member.isfile():
                        found[member.name] = files.extractfile(member).read()
    return found


def processes(command: str) -> list[bytes]:
    """Return the ids of processes with that in their command line."""
    return subprocess.run(["pgrep", "-f", command], capture_output=True, check=False).stdout.split()


@in_every_way
def test_a_dockerfile_of_several_stages_becomes_an_image(docker: DockerClient, context: Path):
    (context / "Dockerfile").write_text(STAGES)
    image = name()
    docker("build", "-t", image, "-t", f"{image}:2", "--build-arg", "WHAT=this", "--label", "and=mine", context)
    (shown,) = json.loads(docker.text("inspect", image))

    assert files_of(docker, image) == {"made": b"hello\nthis\n", "other": b"other\n"}
    assert shown["Config"]["Labels"] == {"from": "file", "and": "mine"}
    assert shown["Config"]["Cmd"] == ["/made"]
    assert set(shown["RepoTags"]) >= {f"{image}:latest", f"{image}:2"}


@in_every_way
def test_quietly_only_the_id_is_printed(docker: DockerClient, context: Path, tmp_path: Path):
    image, file = name(), tmp_path / "iid"
    printed = docker.text("build", "-q", "-t", image, "--iidfile", file, context)

    assert printed == file.read_text().strip()
    assert docker.text("inspect", "-f", "{{.Id}}", image) == printed


@in_every_way
def test_a_step_that_fails_is_shown_with_its_lines(docker: DockerClient, context: Path):
    (context / "Dockerfile").write_text(BUSYBOX_STAGE + "RUN echo about to; exit 3\n")
    done = docker("build", context, check=False)

    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 1
    assert "about to" in said
    assert "   4 | >>> RUN echo about to; exit 3" in said
    assert "exit code: 3" in said


@in_every_way
def test_a_mistake_in_the_dockerfile_is_shown_with_its_line(docker: DockerClient, context: Path):
    (context / "Dockerfile").write_text("FROM scratch\nCOPPY a b\n")
    done = docker("build", "-q", context, check=False)

    assert done.returncode == 1
    assert b"   2 | >>> COPPY a b" in done.stderr


@in_every_way
def test_the_context_may_be_an_archive_on_standard_input(docker: DockerClient, context: Path):
    (context / "Dockerfile").write_text(STAGES)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(context, arcname=".")
    image = name()
    docker("build", "-t", image, "-", data=archive.getvalue())

    assert files_of(docker, image)["made"] == b"hello\nnothing\n"


@in_every_way
def test_the_dockerfile_may_be_on_standard_input(docker: DockerClient, context: Path):
    alone, beside = name(), name()
    docker("build", "-t", alone, "-", data=b"FROM scratch\nLABEL a=b\n")
    docker("build", "-t", beside, "-f", "-", context, data=b"FROM scratch\nCOPY word /w\n")

    assert json.loads(docker.text("inspect", "-f", "{{json .Config.Labels}}", alone)) == {"a": "b"}
    assert files_of(docker, beside) == {"w": b"hello\n"}


@in_every_way
def test_ignored_files_stay_away(docker: DockerClient, context: Path):
    (context / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
    (context / ".dockerignore").write_text("rootfs\n.dockerignore\nDockerfile\n")
    (context / "kept").write_text("1")
    image = name()
    docker("build", "-t", image, context)

    assert set(files_of(docker, image)) == {"word", "kept"}


@in_every_way
def test_an_image_built_before_is_a_base(docker: DockerClient, context: Path):
    base, image = name(), name()
    docker("build", "-t", base, context)
    done = docker("build", "-t", image, "--target", "", "-", data=f"FROM {base}\nRUN echo x > /x\n".encode())

    assert done.returncode == 0
    assert files_of(docker, image)["x"] == b"x\n"


@in_every_way
def test_hosts_limits_and_the_network_are_as_asked(docker: DockerClient, context: Path):
    (context / "Dockerfile").write_text(
        BUSYBOX_STAGE + "RUN ulimit -n > /n; cat /etc/hosts > /h; ls /sys/class/net > /i\n"
    )
    image = name()
    words = ("--add-host", "far:192.0.2.1", "--ulimit", "nofile=100:200", "--network", "none", "--no-cache")
    docker("build", "-t", image, *words, context)
    files = files_of(docker, image)

    assert files["n"] == b"100\n"
    assert b"192.0.2.1\tfar" in files["h"]
    assert files["i"] == b"lo\n"


@in_every_way
def test_interrupting_the_client_ends_the_step(docker: DockerClient, context: Path, daemon):
    seconds = str(1000 + secrets.randbelow(10**6))
    (context / "Dockerfile").write_text(BUSYBOX_STAGE + f"RUN echo be''gun; sleep {seconds}\n")

    assert docker.interrupted(b"begun", "build", context) != 0
    left: list[object] = []
    for _ in range(600):
        # the client does not wait for what it leaves behind
        left = [*(daemon[0].root / "work").iterdir(), *processes(f"sleep {seconds}")]
        if not left:
            break
        subprocess.run(["sleep", "0.1"], check=True)
    assert left == []


@with_buildkit
def test_secrets_caches_and_agents_come_from_the_client(docker: DockerClient, context: Path, tmp_path: Path):
    if not docker.path:
        pytest.skip("needs a docker client with BuildKit in it: docker.io of Debian 12")
    (context / "Dockerfile").write_text(
        BUSYBOX_STAGE
        + "RUN --mount=type=secret,id=s md5sum < /run/secrets/s > /sum\n"
        + "RUN --mount=type=cache,target=/c echo x >> /c/n && wc -l < /c/n > /count\n"
        + "RUN --mount=type=ssh test -S $SSH_AUTH_SOCK && echo yes > /agent\n"
    )
    secret = secrets.token_hex(16).encode()
    (tmp_path / "secret").write_bytes(secret)
    image, agent = name(), tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL) as process:
        try:
            docker(
                "build", "-t", image, "--secret", f"id=s,src={tmp_path}/secret", "--ssh", f"default={agent}", context
            )
        finally:
            process.terminate()
    files = files_of(docker, image)

    assert files["sum"].split()[0].decode() == hashlib.md5(secret).hexdigest()
    assert files["agent"] == b"yes\n"
    assert secret not in b"".join(files.values())


@with_buildkit
def test_results_may_go_to_the_client(docker: DockerClient, context: Path, tmp_path: Path):
    if not docker.path:
        pytest.skip("needs a docker client with BuildKit in it: docker.io of Debian 12")
    (context / "Dockerfile").write_text(STAGES)
    docker("build", "-o", tmp_path / "out", context)
    archive = docker("build", "-o", "-", context).stdout

    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == {
        "made": b"hello\nnothing\n",
        "other": b"other\n",
    }
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert {"made", "other"} <= set(tar.getnames())


@with_buildkit
def test_only_what_changed_is_built_again(docker: DockerClient, context: Path):
    if not docker.path:
        pytest.skip("needs a docker client with BuildKit in it: docker.io of Debian 12")
    (context / "Dockerfile").write_text(STAGES)
    docker("build", "-t", name(), context)
    (context / "word").write_text("changed\n")
    said = docker("build", "--progress=plain", context).stderr.decode()

    steps = {line.partition(" ")[0]: line for line in said.splitlines() if "RUN" in line}
    cached = {line.partition(" ")[0] for line in said.splitlines() if line.endswith("CACHED")}
    assert {("other" in text, number in cached) for number, text in steps.items()} == {(True, True), (False, False)}


@with_every_client
def test_images_are_listed_named_and_removed(docker: DockerClient, context: Path):
    image, other = name(), name()
    docker("build", "-q", "-t", image, context)
    docker("tag", image, f"{other}:1")
    rows = docker.text("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()
    image_id = docker.text("inspect", "-f", "{{.Id}}", image)

    assert {f"{image}:latest {image_id}", f"{other}:1 {image_id}"} <= set(rows)
    assert docker.text("images", "-q", "--no-trunc", other) == image_id
    assert docker.text("history", "-q", "--no-trunc", image).splitlines()[0] == image_id
    assert "COPY rootfs /" in docker.text("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    assert docker.text("rmi", image) == f"Untagged: {image}:latest"
    assert docker.text("rmi", f"{other}:1").splitlines() == [f"Untagged: {other}:1", f"Deleted: {image_id}"]
    gone = docker("inspect", image, check=False)
    assert gone.returncode == 1
    assert b"no such object" in gone.stderr.lower()


@with_every_client
def test_an_archive_goes_out_and_comes_back(docker: DockerClient, context: Path, tmp_path: Path):
    image = name()
    docker("build", "-q", "-t", image, context)
    image_id, before = docker.text("inspect", "-f", "{{.Id}}", image), files_of(docker, image)
    docker("save", "-o", tmp_path / "a.tar", image)
    docker("rmi", image)

    assert docker.text("load", "-i", tmp_path / "a.tar").splitlines()[-1] == f"Loaded image: {image}:latest"
    assert docker.text("inspect", "-f", "{{.Id}}", image) == image_id
    assert files_of(docker, image) == before
    broken = docker("load", check=False, data=(tmp_path / "a.tar").read_bytes()[:5000])
    assert broken.returncode == 1
    assert b"cut short" in broken.stderr
    missing = docker("save", name(), check=False)
    assert b"No such image" in missing.stderr


@with_every_client
def test_an_archive_of_files_becomes_an_image(docker: DockerClient):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        member = tarfile.TarInfo("etc/motd")
        member.size, member.uid = 3, 42
        tar.addfile(member, io.BytesIO(b"hi\n"))
    image = name()
    said = docker.text("import", "-c", 'CMD ["/x"]', "-c", "ENV A=b", "-", image, data=archive.getvalue())
    (shown,) = json.loads(docker.text("inspect", image))
    refused = docker("import", "-c", "RUN true", "-", data=archive.getvalue(), check=False)
    no_archive = docker("import", "-", data=b"just a text", check=False)

    assert said == shown["Id"]
    assert (shown["Config"]["Cmd"], shown["Config"]["Env"][-1]) == (["/x"], "A=b")
    assert files_of(docker, image) == {"etc/motd": b"hi\n"}
    assert b"not a valid change" in refused.stderr
    assert b"not an archive" in no_archive.stderr


@with_every_client
def test_images_travel_by_a_registry(docker: DockerClient, context: Path, registry: str):
    image = f"{registry}/team/{name()}"
    docker("build", "-q", "-t", f"{image}:1", context)
    docker("tag", f"{image}:1", f"{image}:2")
    image_id = docker.text("inspect", "-f", "{{.Id}}", f"{image}:1")
    pushed = docker.text("push", f"{image}:1")
    docker("push", "--all-tags", image)
    docker("rmi", "-f", image_id)
    pulled = docker.text("pull", f"{image}:2")

    digest = docker.text("inspect", "-f", "{{index .RepoDigests 0}}", f"{image}:2").partition("@")[2]
    assert f"1: digest: {digest} size: " in pushed
    assert f"Status: Downloaded newer image for {image}:2" in pulled
    assert f"Status: Image is up to date for {image}:2" in docker.text("pull", f"{image}:2")
    assert docker.text("inspect", "-f", "{{.Id}}", f"{image}:2") == image_id
    docker("pull", "-a", image)
    assert sorted(docker.text("images", "--format", "{{.Tag}}", image).splitlines()) == ["1", "2"]
    unknown = docker("pull", f"{registry}/{name()}", check=False)
    assert unknown.returncode == 1
    assert b"not found" in unknown.stderr


@with_every_client
def test_a_registry_opens_for_who_logged_in(docker: DockerClient, tmp_path: Path):
    """E2: credentials are the client's; with every request it sends those that the request needs."""
    (tmp_path / "registry").mkdir()
    with running_registry(tmp_path / "registry", user=("ann", "open sesame")) as registry:
        image = f"{registry}/{name()}"
        docker("build", "-q", "-t", image, "-", data=b"FROM scratch\nLABEL a=b\n")
        refused = docker("push", image, check=False)
        wrong = docker("login", "-u", "ann", "--password-stdin", registry, data=b"wrong", check=False)
        right = docker.text("login", "-u", "ann", "--password-stdin", registry, data=b"open sesame")
        docker("push", image)
        docker("rmi", image)
        docker("pull", image)
        docker("build", "-q", "--pull", "-", data=f"FROM {image}\nLABEL c=d\n".encode())
        docker("logout", registry)
        docker("rmi", image)
        closed = docker("pull", image, check=False)

    assert (refused.returncode, wrong.returncode, closed.returncode) == (1, 1, 1)
    assert "Login Succeeded" in right
    assert b"open sesame" not in refused.stderr + wrong.stderr + closed.stderr


@with_buildkit
def test_a_repository_is_fetched_by_the_daemon(docker: DockerClient, tmp_path: Path):
    """A2.9: of a context on a server the client only tells the name."""
    if not docker.path:
        pytest.skip("needs a docker client with BuildKit in it: docker.io of Debian 12")
    repository = Repository(tmp_path / "work")
    repository.write({"sub/Dockerfile": "FROM scratch\nCOPY f /\n", "sub/f": "one"})
    repository.git("add", "--all")
    repository.git("commit", "-q", "-m", "one")
    (tmp_path / "served").mkdir()
    repository.git("clone", "-q", "--bare", ".", str(tmp_path / "served" / "r.git"))
    image = name()
    with running_git_server(tmp_path / "served") as server:
        docker("build", "-t", image, f"{server.url}/r.git#main:sub")

    assert files_of(docker, image) == {"f": b"one"}


@in_every_way
def test_many_clients_build_at_once(docker: DockerClient, context: Path):
    (context / "Dockerfile").write_text(STAGES)
    images = [name() for _ in range(6)]
    with ThreadPoolExecutor(len(images)) as pool:
        list(
            pool.map(lambda image: docker("build", "-q", "-t", image, "--build-arg", f"WHAT={image}", context), images)
        )

    assert {image: files_of(docker, image)["made"] for image in images} == {
        image: f"hello\n{image}\n".encode() for image in images
    }


@with_every_client
def test_what_a_daemon_for_builds_does_not_do_is_said_plainly(docker: DockerClient):
    ran = docker("create", "whatever", check=False)

    assert ran.returncode == 1
    assert b"runs no containers: use `lamina run`" in ran.stderr
    assert docker.text("ps", "-aq") == ""


@with_every_client
def test_the_daemon_tells_of_itself(docker: DockerClient):
    assert docker.text("version", "-f", "{{.Server.Platform.Name}}") == "Lamina"
    assert docker.text("info", "-f", "{{.OSType}}") == "linux"
    assert "Images" in docker.text("system", "df")


@with_every_client
def test_pruning_lets_the_unnamed_go(docker: DockerClient, context: Path):
    first = docker.text("build", "-q", "--label", f"only={name()}", context)

    assert f"deleted: {first}" in docker.text("image", "prune", "-f").splitlines()
    assert docker("inspect", first, check=False).returncode == 1


@pytest.mark.skipif(not BUILDX, reason="needs docker's buildx plugin: apt-get install docker-buildx")
@with_every_client
def test_buildx_drives_the_daemon_through_dockers_socket(docker: DockerClient, context: Path, tmp_path: Path):
    """E6: gRPC over a connection that began as HTTP/1.1."""
    docker = replace(docker, environ={"DOCKER_BUILDKIT": "1"})
    (docker.config / "cli-plugins").mkdir()
    (docker.config / "cli-plugins" / "docker-buildx").symlink_to(BUILDX)
    (context / "Dockerfile").write_text(STAGES)
    image = name()
    docker("buildx", "build", "-t", image, "--provenance=false", context)
    docker("buildx", "build", "-o", tmp_path / "out", "--provenance=false", context)

    assert files_of(docker, image)["made"] == b"hello\nnothing\n"
    assert (tmp_path / "out" / "made").read_bytes() == b"hello\nnothing\n"
