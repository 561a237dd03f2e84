"""B6: git sources in whole solves: graph in, files out; what is cached, what is fetched."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import lamina
from lamina import llb
from lamina.cancel import Cancel
from lamina.engine.disk import du, prune
from lamina.engine.options import Environment
from lamina.errors import CancelledError, Error, InputError, NotYetError
from lamina.llb.pb import ops_pb2 as pb
from lamina.progress import Event, LogEvent, VertexEvent
from support.git_server import COMMIT_TIME, Repository, Served, running_git_server

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to own the files that it makes")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path / "served" / "r.git")
    made.commit({"file": "one\n", "sub/file": "below\n"})
    return made


@pytest.fixture
def server(tmp_path: Path, repository: Repository) -> Iterator[Served]:
    with running_git_server(tmp_path / "served") as served:
        yield served


class Solves:
    """Solves in one root, each into a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.events: list[Event] = []

    def __call__(self, state: llb.State, **options: object) -> Path:
        self.count += 1
        self.events = []
        out = self.folder / f"out{self.count}"
        root = self.folder / "root"
        output = f"type=local,dest={out}"
        self.result = lamina.solve(state.marshal(), output=output, root=root, progress=self.events.append, **options)
        return out

    @property
    def ran(self) -> list[str]:
        """Names of the vertices that were not cached."""
        return [timing.name for timing in self.result.timings if not timing.cached]


@pytest.fixture
def solve(tmp_path: Path) -> Solves:
    return Solves(tmp_path)


def test_a_branch_and_what_changes_in_it(solve, repository, server):
    """A known commit is not fetched again; a moved branch is."""
    state = llb.git(f"{server.url}/r.git#main")

    assert (solve(state) / "file").read_text() == "one\n"
    assert solve.ran == [f"git {server.url}/r.git"]
    assert server.fetches == 1
    (vertex,) = {event.digest for event in solve.events if isinstance(event, VertexEvent) and "git" in event.name}
    assert vertex in {event.vertex for event in solve.events if isinstance(event, LogEvent)}

    assert (solve(state) / "file").read_text() == "one\n"
    assert solve.ran == [] and server.fetches == 1

    repository.commit({"file": "two\n"})
    assert (solve(state) / "file").read_text() == "two\n"
    assert solve.ran and server.fetches == 2


def test_equal_commits_are_one_record(solve, repository, server):
    """Whatever ref led there; a full hash needs no network at all."""
    commit = repository.git("rev-parse", "HEAD")
    solve(llb.git(f"{server.url}/r.git#main"))
    server.requests.clear()

    solve(llb.git(f"{server.url}/r.git", ref=commit))

    assert solve.ran == [] and server.requests == []


def test_variants_are_apart(solve, repository, server):
    """A4.11, A4.12: subdirectory, `.git`, times and submodules are in the key."""
    url = f"{server.url}/r.git"

    assert sorted(os.listdir(solve(llb.git(url)))) == ["file", "sub"]
    assert os.listdir(solve(llb.git(url, subdir="sub"))) == ["file"]
    assert sorted(os.listdir(solve(llb.git(url, keep_git_dir=True)))) == [".git", "file", "sub"]
    assert solve.ran
    dated = solve(llb.git(url + "?mtime=commit"))
    assert solve.ran and (dated / "file").stat().st_mtime == COMMIT_TIME
    solve(llb.git(url, submodules=False))
    assert solve.ran
    assert server.fetches == 1


@pytest.mark.skipif(shutil.which("crun") is None, reason="needs crun: apt-get install crun")
def test_steps_on_a_checkout(solve, repository, server, tmp_path):
    """Copied from, mounted, and as a base: owner 0:0, modes as git has them."""
    from support.bases import busybox_rootfs

    folder = busybox_rootfs(tmp_path / "rootfs")
    base = llb.scratch().copy(llb.local("root"), "/", "/").with_env("PATH", "/bin")
    source = llb.git(f"{server.url}/r.git")
    made = base.copy(source, "/sub", "/src/").run(
        "cat /src/file /mnt/file > /out && stat -c '%u:%g %a' /mnt/file /mnt/sub >> /out",
        mounts=[llb.bind("/mnt", source)],
    )

    out = solve(made, contexts={"root": folder})

    assert (out / "out").read_text() == "below\none\n0:0 644\n0:0 755\n"


def test_secrets_from_the_session(solve, repository, server):
    """A4.13: as for the command line's `--secret`; the key does not know them."""
    server.authorization = "Bearer canary"
    state = llb.git(f"{server.url}/r.git")

    with pytest.raises(Error, match="may not read"):
        solve(state)
    assert (solve(state, secrets={"GIT_AUTH_HEADER": b"Bearer canary"}) / "file").exists()
    solve(state, secrets={f"GIT_AUTH_HEADER.{server.host}": b"Bearer canary"})
    assert solve.ran == []
    for path in (solve.folder / "root").rglob("*"):
        if path.is_file():
            assert b"canary" not in path.read_bytes(), path


def test_errors_name_the_vertex_lines_and_leave_nothing(solve, repository, server):
    with pytest.raises(InputError, match="checksum mismatch"):
        solve(llb.git(f"{server.url}/r.git", checksum="12345678"))
    with pytest.raises(InputError, match="no directory"):
        solve(llb.git(f"{server.url}/r.git#main:nowhere"))

    failed = [event for event in solve.events if isinstance(event, VertexEvent) and event.error]
    assert failed and "nowhere" in failed[-1].error
    assert not list((solve.folder / "root" / "trees").iterdir())
    assert not list((solve.folder / "root" / "work").iterdir())


def test_builds_at_once(tmp_path, repository, server):
    """One remote, many builds in one root: fetched once, all right."""
    state = llb.git(f"{server.url}/r.git")

    def one(number: int) -> str:
        out = tmp_path / f"at-once{number}"
        lamina.solve(state.marshal(), output=f"type=local,dest={out}", root=tmp_path / "root")
        return (out / "file").read_text()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(one, range(4))) == ["one\n"] * 4
    assert server.fetches == 1


def test_a_dockerfile_that_names_a_commit_asks_nobody(tmp_path, repository, server):
    """A4.11: once it is here; a branch is asked for each time."""
    context, root = tmp_path / "context", tmp_path / "root"
    context.mkdir()
    commit = repository.git("rev-parse", "HEAD")
    for fragment in (commit, "main"):
        dockerfile = f"FROM scratch\nADD {server.url}/r.git#{fragment} /src/\n".encode()
        first = lamina.build(context, dockerfile=dockerfile, root=root)
        server.requests.clear()
        assert lamina.build(context, dockerfile=dockerfile, root=root).digest == first.digest
        assert bool(server.requests) == (fragment == "main")
    assert server.fetches == 1


def test_disk_usage_and_prune(solve, repository, server):
    """What git fetched is shown with its address, goes with `prune --all`, and comes back when needed."""
    environment = Environment(solve.folder / "root")
    solve(llb.git(f"{server.url}/r.git"))

    (kept,) = [usage for usage in du(environment) if usage.kind == "git repository"]
    assert kept.description == f"{server.url}/r.git" and kept.size_bytes > 0 and not kept.in_use
    prune(environment)
    assert [usage for usage in du(environment) if usage.kind == "git repository"]
    prune(environment, everything=True)
    assert [usage for usage in du(environment) if usage.kind != "history"] == []
    assert (solve(llb.git(f"{server.url}/r.git")) / "file").exists() and server.fetches == 2


def test_cancelled_while_the_ref_is_looked_up(tmp_path, repository, server):
    server.gate = threading.Event()
    cancel = Cancel()
    state = llb.git(f"{server.url}/r.git")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lamina.solve, state.marshal(), root=tmp_path / "root", cancel=cancel)
        assert server.reached.wait(60)
        cancel.cancel()
        with pytest.raises(CancelledError):
            running.result(60)


def test_a_killed_build_takes_git_along(tmp_path, repository, server):
    """Even SIGKILL leaves no program that goes on talking to the remote."""
    server.hold = True
    code = "import sys, lamina; from lamina import llb; lamina.solve(llb.git(sys.argv[1]).marshal(), root=sys.argv[2])"
    command = [sys.executable, "-c", code, f"{server.url}/r.git", str(tmp_path / "root")]
    with subprocess.Popen(command) as process:
        assert server.reached.wait(60)
        process.kill()

    assert server.gone.wait(60)


def test_the_builder_checks_what_it_is_told():
    for url in ("file:///etc", "https://h/r#-x", "https://h/r?what=1", "/srv/x", ""):
        with pytest.raises(InputError):
            llb.git(url)
    with pytest.raises(InputError, match="ref is"):
        llb.git("https://h/r#a", ref="b")
    state = llb.git("h/o/r#v1:docs", keep_git_dir=True)
    assert b"git://h/o/r#v1:docs" in state.marshal().SerializeToString()
    assert state == llb.git("https://h/o/r", ref="v1", subdir="/docs/", keep_git_dir=True)


def test_a_signature_is_not_passed_over(tmp_path):
    """B6: a graph that wants a commit verified does not get it unverified."""
    definition = llb.git("https://h/r").marshal()
    operations = getattr(definition, "def")
    op = pb.Op.FromString(operations[0])
    op.source.attrs["git.sig.pubkey"] = "key"
    operations[0] = op.SerializeToString(deterministic=True)
    digest = "sha256:" + hashlib.sha256(operations[0]).hexdigest()
    operations[1] = pb.Op(inputs=[pb.Input(digest=digest, index=0)]).SerializeToString(deterministic=True)

    with pytest.raises(NotYetError, match="signatures"):
        lamina.solve(definition, root=tmp_path / "root")
