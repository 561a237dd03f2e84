"""`import lamina`: the library builds Dockerfiles and graphs made in Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lamina
from lamina import llb
from lamina.errors import Error, InputError
from lamina.llb.definition import load_definition
from support.bases import busybox_context, busybox_rootfs

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("crun") is None, reason="needs root and crun: apt-get install crun"
)


def files(state: llb.State, tmp_path: Path, **options: object) -> Path:
    out = tmp_path / "out"
    lamina.solve(state.marshal(), output=f"type=local,dest={out}", root=tmp_path / "root", **options)
    return out


@pytest.fixture
def base(tmp_path: Path) -> tuple[llb.State, dict[str, Path]]:
    """A busybox root as a graph: a local directory copied onto nothing."""
    folder = busybox_rootfs(tmp_path / "rootfs")
    return llb.scratch().copy(llb.local("root"), "/", "/").with_env("PATH", "/bin"), {"root": folder}


def test_equal_states_marshal_to_equal_bytes():
    def make() -> bytes:
        below = llb.image("debian:12")
        state = below.run("true", mounts=[llb.cache("/c"), llb.tmpfs("/t")]).copy(below, "/etc", "/x/", mode=0o755)
        return state.marshal().SerializeToString(deterministic=True)

    assert make() == make()


def test_a_marshalled_graph_loads_with_its_inputs_and_names():
    a, b = llb.image("a"), llb.image("b")
    graph = load_definition(llb.merge([a.run("x"), b]).copy(a, "/f", "/").marshal().SerializeToString())

    kinds = [vertex.op.WhichOneof("op") for vertex in graph.vertices]
    assert sorted(kinds) == ["exec", "file", "merge", "source", "source"]
    assert graph.vertices[-1].digest == graph.target[0]


def test_the_empty_state_and_junk_are_refused():
    with pytest.raises(InputError, match="empty state"):
        llb.scratch().marshal()
    for junk in (b"", b"\xff" * 40, llb.image("a").marshal().SerializeToString()[:-3]):
        with pytest.raises(InputError):
            load_definition(junk)


def test_the_builder_imports_no_protobuf():
    code = "import sys; from lamina import llb; llb.image('a').run('b'); print('google.protobuf' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


@needs_root
def test_run_copy_merge_and_diff(base: tuple[llb.State, dict[str, Path]], tmp_path: Path):
    root, contexts = base
    one = root.run("mkdir /d && echo one > /d/one && rm /bin/yes")
    two = root.mkfile("/two", b"2").symlink("two", "/link").rm("/bin/no", missing_ok=True)
    change = llb.diff(root, one)

    merged = files(two.merge(change).copy(one, "/d/one", "/copied"), tmp_path, contexts=contexts)

    assert (merged / "d" / "one").read_text() == "one\n" == (merged / "copied").read_text()
    assert (merged / "two").read_text() == "2" and os.readlink(merged / "link") == "two"
    assert not (merged / "bin" / "yes").exists() and (merged / "bin" / "sh").exists()


@needs_root
def test_build_returns_digest_config_and_timings(tmp_path: Path):
    context = busybox_context(tmp_path / "ctx", 'FROM base\nRUN true\nCMD ["x"]\n')
    root = tmp_path / "root"

    first = lamina.build(context, tags=["app:1"], root=root)
    second = lamina.build(context, tags=["app:1"], root=root)

    assert first.digest == second.digest and first.names == ("docker.io/library/app:1",)
    assert first.config["config"]["Cmd"] == ["x"]
    assert any("RUN true" in timing.name and not timing.cached for timing in first.timings)
    assert second.cached >= 2


@needs_root
def test_a_failing_build_raises_with_its_lines(tmp_path: Path):
    context = busybox_context(tmp_path / "ctx", "FROM base\nRUN exit 3\n")

    with pytest.raises(Error, match="exit code: 3") as caught:
        lamina.build(context, root=tmp_path / "root")

    assert caught.value.source is not None and ">>> RUN exit 3" in caught.value.diagnostics()


def ran(state: llb.State, tmp_path: Path, **options: object) -> list[str]:
    """Solve, and return the names of the steps that were not in the cache."""
    result = lamina.solve(
        state.marshal(), output=f"type=local,dest={tmp_path / 'out'}", root=tmp_path / "root", **options
    )
    return [explanation.step for explanation in result.explanations]


@needs_root
def test_solve_lets_modes_count_as_they_are_when_asked(tmp_path: Path):
    """L15: what a umask leaves does not count; with exact_modes it does."""
    folder = tmp_path / "context"
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "f").write_text("x")
    for path, mode in ((folder, 0o755), (folder / "in", 0o755), (folder / "in" / "f", 0o644)):
        path.chmod(mode)
    state = llb.scratch().copy(llb.local("src"), "/in", "/in")
    contexts = {"src": folder}
    ran(state, tmp_path, contexts=contexts)
    ran(state, tmp_path, contexts=contexts, exact_modes=True)
    for path, mode in ((folder, 0o775), (folder / "in", 0o775), (folder / "in" / "f", 0o664)):
        path.chmod(mode)

    assert ran(state, tmp_path, contexts=contexts) == []
    assert len(ran(state, tmp_path, contexts=contexts, exact_modes=True)) == 1


@needs_root
def test_solve_lets_a_secret_count_when_asked(base: tuple[llb.State, dict[str, Path]], tmp_path: Path):
    """L14: a changed value runs the step again, of a secret that is named only."""
    root, contexts = base
    state = root.run("cat /s > /x", mounts=[llb.secret("/s", id="token")])

    def solved(value: bytes, *counted: str) -> int:
        return len(ran(state, tmp_path, contexts=contexts, secrets={"token": value}, counted_secrets=counted))

    assert solved(b"first") == 2 and solved(b"second") == 0
    assert solved(b"first", "token") == 1
    assert solved(b"first", "token") == 0 and solved(b"second", "token") == 1
