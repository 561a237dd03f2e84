"""L15: one commit, two machines' worth of differences, the same keys; and all that must count does."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lamina.llb.pb import ops_pb2 as pb
from lamina.ops.exec import ExecOp
from support.bases import find_busybox
from support.command import Lamina
from support.git_web import git, web_repositories

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]

DOCKERFILE = """\
FROM scratch AS base
COPY bin /bin
FROM base AS made
ARG WORD=one
COPY src /src
ADD src/sub /sub/
RUN --mount=type=bind,target=/all cat /all/src/a /src/sub/* /sub/* > /made; echo $WORD >> /made
FROM scratch AS files
COPY . /all
COPY --chmod=640 src/a /a
COPY --from=extra . /extra
FROM base
ENV KIND=two
COPY --from=made /made /made
COPY --from=files --link /a /b
COPY src/link src/ünï /links/
RUN test -s /made
"""


@dataclass
class Machine:
    """How one build is called: where its context lies, and what is around it."""

    context: str
    environ: dict[str, str] = field(default_factory=dict)
    stdin: bytes | None = None
    before: tuple[str, ...] = ()
    extra: str = ""
    words: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one commit."""
    folder = tmp_path_factory.mktemp("origin") / "app.git"
    (folder / "src/sub").mkdir(parents=True)
    (folder / "bin").mkdir()
    shutil.copy(find_busybox(), folder / "bin/busybox")
    (folder / "bin/busybox").chmod(0o755)
    for applet in ("sh", "cat", "test"):
        (folder / "bin" / applet).symlink_to("busybox")
    files = {"a": "a", "ünï": "name", "sub/b": "b", "sub/run.sh": "#!/bin/sh\n"}
    for name, text in files.items():
        (folder / "src" / name).write_text(text)
    (folder / "src/sub/run.sh").chmod(0o755)
    (folder / "src/link").symlink_to("a")
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / ".dockerignore").write_text(".git\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "-m", "one")
    return folder


def clone(origin: Path, to: Path, umask: int = 0o022) -> Path:
    subprocess.run(["git", "clone", "--quiet", f"file://{origin}", to], check=True, capture_output=True, umask=umask)
    return to


def build(root: Path, machine: Machine) -> list[str]:
    """Build; return the names of the steps that ran, from the records of the store."""
    before = _nodes(root)
    extra = machine.extra or (machine.context if "://" not in machine.context else "")
    words = ["--build-context", f"extra={extra}/src", *machine.words]
    command = [*machine.before, *_lamina(), "build", "--progress=plain", *words, machine.context]
    environ = {**os.environ, "LAMINA_ROOT": str(root), **machine.environ}
    done = subprocess.run(command, env=environ, input=machine.stdin, capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return sorted(_nodes(root) - before)


def _lamina() -> list[str]:
    return [sys.executable, "-m", "lamina"]


def _select(root: Path, sql: str) -> list[Any]:
    if not (root / "state.db").exists():
        return []
    connection = sqlite3.connect(root / "state.db")
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def _nodes(root: Path) -> set[str]:
    return {f"{number} {name}" for number, name in _select(root, "SELECT id, description FROM node")}


def keys(root: Path) -> set[str]:
    """All keys of a store."""
    return {row[0] for row in _select(root, "SELECT key FROM key")}


@pytest.fixture(scope="module")
def store(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the commit was built, checked out with umask 022."""
    folder = tmp_path_factory.mktemp("first")
    assert build(folder / "store", Machine(str(clone(origin, folder / "ctx"))))
    return folder / "store"


def with_umask(umask: int) -> Callable[[Path, Path], Machine]:
    return lambda origin, folder: Machine(str(clone(origin, folder / "ctx", umask)))


def with_environ(**environ: str) -> Callable[[Path, Path], Machine]:
    return lambda origin, folder: Machine(str(clone(origin, folder / "ctx")), environ)


def other_owner(origin: Path, folder: Path) -> Machine:
    context = clone(origin, folder / "ctx")
    for path in (context, *context.rglob("*")):
        os.chown(path, 1234, 4321, follow_symlinks=False)
    return Machine(str(context))


def other_times(origin: Path, folder: Path) -> Machine:
    context = clone(origin, folder / "ctx")
    for number, path in enumerate((context, *context.rglob("*"))):
        os.utime(path, ns=(number, 10**18 + number), follow_symlinks=False)
    return Machine(str(context))


def other_order(origin: Path, folder: Path) -> Machine:
    """The names of every directory made in another order."""
    context = clone(origin, folder / "ctx")
    again = folder / "again"
    for here, _, _ in os.walk(context):
        (again / os.path.relpath(here, context)).mkdir(parents=True, exist_ok=True)
        for name in sorted(os.listdir(here), reverse=True):
            source, target = Path(here, name), again / os.path.relpath(here, context) / name
            if source.is_dir() and not source.is_symlink():
                target.mkdir()
            else:
                shutil.copy2(source, target, follow_symlinks=False)
    return Machine(str(again))


def hard_linked(origin: Path, folder: Path) -> Machine:
    """Every file has a second name elsewhere, and two equal ones share an inode."""
    context = clone(origin, folder / "ctx")
    subprocess.run(["cp", "-al", context, folder / "linked"], check=True)
    (context / "src/same").hardlink_to(context / "src/a")
    (context / "src/a").unlink()
    (context / "src/same").rename(context / "src/a")
    return Machine(str(context))


def by_a_link(origin: Path, folder: Path) -> Machine:
    clone(origin, folder / "ctx")
    (folder / "link").symlink_to("ctx")
    return Machine(str(folder / "link"))


def in_a_private_directory(origin: Path, folder: Path) -> Machine:
    (folder / "private").mkdir(mode=0o700)
    return Machine(str(clone(origin, folder / "private")))


def git_archive(origin: Path, folder: Path) -> Machine:
    """Standard input; its files are 0664, and it says nothing of its root."""
    done = subprocess.run(["git", "archive", "HEAD"], cwd=origin, check=True, capture_output=True)
    return Machine("-", stdin=done.stdout, extra=str(clone(origin, folder / "ctx")))


def tar_of_umask_077(origin: Path, folder: Path) -> Machine:
    context = clone(origin, folder / "ctx", 0o077)
    done = subprocess.run(["tar", "--create", "--exclude=.git", "."], cwd=context, check=True, capture_output=True)
    return Machine("-", stdin=done.stdout, extra=str(context))


def other_host(origin: Path, folder: Path) -> Machine:
    name = "somewhere-else"
    assert name != socket.gethostname()
    before = ("unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh")
    return Machine(str(clone(origin, folder / "ctx")), before=before)


DIFFERENCES: dict[str, Callable[[Path, Path], Machine]] = {
    "umask 002": with_umask(0o002),
    "umask 077": with_umask(0o077),
    "umask 027": with_umask(0o027),
    "umask 000": with_umask(0),
    "owner": other_owner,
    "times": other_times,
    "order of directories": other_order,
    "hard links": hard_linked,
    "context by a link": by_a_link,
    "directory of mkdtemp": in_a_private_directory,
    "git archive on standard input": git_archive,
    "tar of a umask 077 checkout": tar_of_umask_077,
    "host name": other_host,
    "LANG": with_environ(LANG="tr_TR.UTF-8", LC_ALL="C"),
    "names not UTF-8": with_environ(LC_ALL="POSIX", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0"),
    "TZ": with_environ(TZ="Asia/Kathmandu"),
    "HOME, USER, TMPDIR": with_environ(HOME="/nowhere", USER="somebody", TMPDIR="/var/tmp"),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_same_commit_has_the_same_keys_on_another_machine(name: str, origin: Path, store: Path, tmp_path: Path):
    """L15: on one store nothing runs again, and an empty one comes to the same keys."""
    machine = DIFFERENCES[name](origin, tmp_path)

    assert build(store, machine) == []
    build(tmp_path / "empty", machine)
    assert keys(tmp_path / "empty") == keys(store)


def test_a_git_url_has_the_keys_of_a_checkout(origin: Path, store: Path, tmp_path: Path):
    """L15: the repository as the context, fetched by lamina itself, against a clone of it."""
    with web_repositories(origin.parent) as url:
        machine = Machine(f"{url}/app.git", extra=str(clone(origin, tmp_path / "ctx")))
        ran = build(store, machine)

    assert len(ran) == 1  # what was fetched; no step of the Dockerfile
    assert url in ran[0]


def edit(change: Callable[[Path], object]) -> Callable[[Path, Machine], None]:
    def apply(context: Path, _machine: Machine) -> None:
        change(context)

    return apply


def words(*more: str) -> Callable[[Path, Machine], None]:
    def apply(_context: Path, machine: Machine) -> None:
        machine.words += more

    return apply


def dockerfile(old: str, new: str) -> Callable[[Path, Machine], None]:
    def apply(context: Path, _machine: Machine) -> None:
        text = (context / "Dockerfile").read_text()
        assert old in text
        (context / "Dockerfile").write_text(text.replace(old, new))

    return apply


def file_to_directory(context: Path) -> None:
    (context / "src/sub/b").unlink()
    (context / "src/sub/b").mkdir()


def link_to_file(context: Path) -> None:
    (context / "src/link").unlink()
    (context / "src/link").write_text("a")


def other_target(context: Path) -> None:
    (context / "src/link").unlink()
    (context / "src/link").symlink_to("sub/b")


def attribute(context: Path) -> None:
    try:
        os.setxattr(context / "src/a", "user.x", b"1")
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            pytest.skip("no extended attributes of users on this file system")
        raise


COUNTING: dict[str, Callable[[Path, Machine], None]] = {
    "content": edit(lambda context: (context / "src/a").write_text("A")),
    "executable": edit(lambda context: (context / "src/sub/b").chmod(0o755)),
    "not executable": edit(lambda context: (context / "src/sub/run.sh").chmod(0o644)),
    "private": edit(lambda context: (context / "src/sub/b").chmod(0o600)),
    "read-only": edit(lambda context: (context / "src/sub/b").chmod(0o444)),
    "setuid": edit(lambda context: (context / "bin/busybox").chmod(0o4755)),
    "private directory": edit(lambda context: (context / "src/sub").chmod(0o700)),
    "directory for a file": edit(file_to_directory),
    "file for a link": edit(link_to_file),
    "target of a link": edit(other_target),
    "name": edit(lambda context: (context / "src/sub/b").rename(context / "src/sub/c")),
    "one more": edit(lambda context: (context / "src/sub/new").write_text("")),
    "one more directory": edit(lambda context: (context / "src/sub/new").mkdir()),
    "one less": edit(lambda context: (context / "src/sub/b").unlink()),
    "extended attribute": edit(attribute),
    "ARG that is used": words("--build-arg", "WORD=two"),
    "ENV": dockerfile("ENV KIND=two", "ENV KIND=three"),
    "command": dockerfile("test -s", "test -f"),
    "chmod of a copy": dockerfile("--chmod=640", "--chmod=600"),
    "place of a copy": dockerfile("src/a /a", "src/a /a2"),
    "exact modes": words("--exact-modes"),
}


@pytest.mark.parametrize("name", COUNTING)
def test_what_a_step_can_see_counts(name: str, origin: Path, tmp_path: Path):
    """L15: each difference alone makes a step run again, at once and through the memo of whole builds."""
    context = clone(origin, tmp_path / "ctx")
    machine = Machine(str(context))
    build(tmp_path / "store", machine)

    COUNTING[name](context, machine)

    if name == "place of a copy":
        dockerfile("--link /a /b", "--link /a2 /b")(context, machine)
    assert build(tmp_path / "store", machine) != []


def test_the_platform_of_a_command_counts():
    """L15: a RUN for another processor is another step, even where nothing else tells (a COPY is the same for all)."""
    worker: Any = SimpleNamespace(allow=frozenset())
    digests = []
    for architecture in ("amd64", "arm64", "amd64"):
        op: Any = pb.Op()
        op.exec.meta.args.append("true")
        op.platform.OS, op.platform.Architecture = "linux", architecture
        digests.append(ExecOp(op, worker, None).cache_map().digest)

    assert digests[0] == digests[2] != digests[1]


def test_the_digest_of_the_base_counts(tmp_path: Path):
    """L15: the same name and Dockerfile over another image."""
    store = tmp_path / "store"
    lamina = Lamina(store)
    for name in ("base", "ctx"):
        (tmp_path / name).mkdir()
    (tmp_path / "base/Dockerfile").write_text("FROM scratch\nCOPY f /\n")
    (tmp_path / "ctx/Dockerfile").write_text("FROM base:1\nCOPY Dockerfile /d\n")
    ran = []
    for text in "aab":
        (tmp_path / "base/f").write_text(text)
        lamina.build(tmp_path / "base", "-t", "base:1")
        before = _nodes(store)
        lamina.build(tmp_path / "ctx")
        ran.append(len(_nodes(store) - before))

    assert ran[1] == 0
    assert ran[0] > 0 < ran[2]


def test_a_chmod_is_not_hidden_by_what_was_remembered(tmp_path: Path):
    """L15: neither the memo of whole builds nor the stat cache takes 0600 for what was 0644; the layer has it."""
    lamina = Lamina(tmp_path / "store")
    (tmp_path / "ctx").mkdir()
    file = tmp_path / "ctx/f"
    file.write_text("x")
    (tmp_path / "ctx/Dockerfile").write_text("FROM scratch\nCOPY f /\n")
    found = []
    for mode in (0o644, 0o600, 0o644, 0o4755):
        file.chmod(mode)
        for _ in range(2):
            lamina.build(tmp_path / "ctx")
        lamina.build(tmp_path / "ctx", "-o", f"type=local,dest={tmp_path}/out{len(found)}")
        found.append((tmp_path / f"out{len(found)}/f").stat().st_mode & 0o7777)

    assert found == [0o644, 0o600, 0o644, 0o4755]


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)
