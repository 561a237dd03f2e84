"""What a build that fails says to the author of the Dockerfile, whole: `tests/golden/build_errors/messages.txt`.

A case there is `#### NAME [option...]`, the Dockerfile, `>>>>`, and what `lamina build` prints from its error on. Each
is built for real: the options go to the command, `base` is an image of busybox, `CONTEXT` says what is in the context,
`{web}`, `{git}` and `{registry}` are the addresses of real servers. `LAMINA_GOLDEN=write` records the messages anew;
then read them by eye.
"""

from __future__ import annotations

import gzip
import os
import random
import re
import shlex
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.bases import busybox_context
from support.command import Lamina
from support.git_server import Repository, needs_git, running_git_server
from support.golden import GOLDEN
from support.registry import running_registry
from support.web import Served, running_web


def _cut_archive() -> bytes:
    """The first half of a compressed tar archive."""
    entry = tarfile.TarInfo("file")
    entry.size = 1 << 16
    whole = gzip.compress(entry.tobuf() + random.Random(0).randbytes(entry.size), mtime=0)
    return whole[: len(whole) // 2]


MESSAGES = GOLDEN / "build_errors" / "messages.txt"
CONTEXT = {
    ".dockerignore": "*.key\nnode_modules\n",
    "app.py": "print('hello')\n",
    "requirements.txt": "flask\n",
    "server.key": "secret",
    "src/main.c": "int main;\n",
    "broken.tar.gz": _cut_archive().decode("latin-1"),
    "run.sh": "#!/bin/bash\ntrue\n",
}

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]


@dataclass(frozen=True)
class Case:
    """One build that fails."""

    name: str
    head: str
    dockerfile: str
    expected: str

    @property
    def options(self) -> list[str]:
        return shlex.split(self.head)[1:]


def read_cases() -> list[Case]:
    """The cases of the golden file."""
    _, *parts = re.split(r"(?m)^#### (.*)\n", MESSAGES.read_text("utf8"))
    found = []
    for head, body in zip(parts[::2], parts[1::2], strict=True):
        dockerfile, _, expected = body.partition(">>>>\n")
        found.append(Case(head.split()[0], head, dockerfile, expected))
    return found


CASES = read_cases()
WRITTEN: list[str] = []


class Place:
    """The store with the base image, and the servers that cases name."""

    def __init__(self, lamina: Lamina, folder: Path, addresses: dict[str, str]) -> None:
        self._lamina, self._folder, self._addresses = lamina, folder, addresses
        self._base = folder / "base.oci"
        lamina.build(busybox_context(folder / "busybox"), "-o", f"type=oci,tar=false,dest={self._base}", "-t", "base:1")

    def message(self, case: Case, context: Path) -> str:
        """What the command prints for a case, from its error on."""
        for name, text in CONTEXT.items():
            path = context / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode("latin-1"))
        (context / "Dockerfile").write_text(self._filled(case.dockerfile))
        options = [self._filled(option).replace("{context}", str(context)) for option in case.options]
        words = [f"--build-context=base=oci-layout://{self._base}:1", *options]
        nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}  # the internet is not there
        done = self._lamina.build(context, *words, check=False, env=nowhere)
        assert done.returncode != 0, done.stderr
        *_, begin = re.finditer(r"(?m)^error: ", done.stderr)
        return self._normal(done.stderr[begin.start() :], context)

    def _filled(self, text: str) -> str:
        for name, address in self._addresses.items():
            text = text.replace(f"{{{name}}}", address)
        return text

    def _normal(self, text: str, context: Path) -> str:
        for name, address in {"context": str(context), **self._addresses}.items():
            text = text.replace(address, f"{{{name}}}")
        return re.sub(r"got [0-9a-f]{40}\b", "got {commit}", text)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Everything that cases name, once for all of them."""
    needs_git()
    folder = tmp_path_factory.mktemp("errors")
    for name in ("served", "registry"):
        (folder / name).mkdir()
    repository = Repository(folder / "work")
    repository.commit({"f": "1"})
    repository.git("clone", "-q", "--bare", ".", str(folder / "served" / "r.git"))
    with (
        running_web() as web,
        running_registry(folder / "registry") as registry,
        running_git_server(folder / "served") as server,
    ):
        web.files["/file"] = Served(b"contents")
        addresses = {"web": web.url("").rstrip("/"), "registry": registry, "git": f"{server.url}/r.git"}
        yield Place(Lamina(folder / "root"), folder, addresses)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_failing_build_is_explained(case: Case, place: Place, tmp_path: Path):
    """A1.16: what, where, the lines, the step's own words, and how to mend: changes here are read by eye."""
    text = place.message(case, tmp_path)
    WRITTEN.append(f"#### {case.head}\n{case.dockerfile}>>>>\n{text}")
    if os.environ.get("LAMINA_GOLDEN") == "write" and len(WRITTEN) == len(CASES):
        MESSAGES.write_text("".join(WRITTEN), "utf8")
    elif os.environ.get("LAMINA_GOLDEN") != "write":
        assert text == case.expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_message_helps(case: Case):
    """A newcomer is told which line it is, and what to do unless the step's own output tells."""
    assert ">>> " in case.expected or case.name == "context-unknown"
    tells_itself = case.name in ("run-fails", "run-heredoc-fails", "run-read-only-mount", "mount-bind-file-on-folder")
    assert "hint: " in case.expected or tells_itself
