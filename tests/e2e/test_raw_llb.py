"""B9, B10, B12: raw definitions whose actions branch, chain and have several outputs, through `lamina.solve`."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

import lamina
from lamina import llb
from lamina.errors import InputError
from lamina.llb.pb import ops_pb2 as pb
from support.raw_llb import Definition, cases, file, listing, make_context

GOLDEN: dict[str, list[str] | None] = json.loads((Path(__file__).parents[1] / "golden/raw_llb/trees.json").read_text())

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def mkfile(path: str, data: bytes, owner: pb.ChownOpt | None = None) -> dict[str, pb.FileActionMkFile]:
    return {"mkfile": pb.FileActionMkFile(path=path, data=data, mode=0o644, timestamp=-1, owner=owner)}


def copy(src: str, dest: str) -> dict[str, pb.FileActionCopy]:
    return {"copy": pb.FileActionCopy(src=src, dest=dest, mode=-1, timestamp=-1, createDestPath=True)}


def action(below: int, secondary: int, output: int, what: dict[str, object]) -> pb.FileAction:
    return pb.FileAction(input=below, secondaryInput=secondary, output=output, **what)


def tree(definition: pb.Definition, tmp_path: Path, **contexts: Path) -> dict[str, bytes]:
    """Solve and return the files of the result."""
    out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
    lamina.solve(definition, output=f"type=local,dest={out}", root=tmp_path / "root", contexts=contexts)
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@needs_root
def test_actions_that_branch_have_an_output_each(tmp_path: Path):
    made = Definition()
    op = made.add(
        file(
            action(-1, -1, -1, mkfile("/base", b"0")),
            action(0, -1, 1, mkfile("/one", b"1")),
            action(0, -1, 0, mkfile("/two", b"2")),
        )
    )

    assert tree(made.message(op, 1), tmp_path) == {"base": b"0", "one": b"1"}
    assert tree(made.message(op, 0), tmp_path) == {"base": b"0", "two": b"2"}


@needs_root
def test_an_output_in_the_middle_of_a_chain_does_not_have_what_comes_after(tmp_path: Path):
    made = Definition()
    op = made.add(file(action(-1, -1, 0, mkfile("/a", b"a")), action(0, -1, 1, mkfile("/b", b"b"))))

    assert tree(made.message(op, 0), tmp_path) == {"a": b"a"}
    assert tree(made.message(op, 1), tmp_path) == {"a": b"a", "b": b"b"}


@needs_root
def test_files_are_copied_from_an_earlier_action(tmp_path: Path):
    made = Definition()
    op = made.add(
        file(
            action(-1, -1, -1, mkfile("/from", b"x")),
            action(-1, 0, 0, copy("/from", "/d/to")),
        )
    )

    assert tree(made.message(op), tmp_path) == {"d/to": b"x"}


@needs_root
def test_an_action_that_leads_to_no_output_is_not_carried_out(tmp_path: Path):
    made = Definition()
    missing = pb.FileActionRm(path="/not/there")
    op = made.add(file(action(-1, -1, -1, {"rm": missing}), action(-1, -1, 0, mkfile("/a", b"a"))))

    assert tree(made.message(op), tmp_path) == {"a": b"a"}


@needs_root
def test_passthrough_hands_on_the_inputs_it_names_after_all_are_done(tmp_path: Path):
    made = Definition()
    one = made.add(file(action(-1, -1, 0, mkfile("/one", b"1"))))
    two = made.add(file(action(-1, -1, 0, mkfile("/two", b"2"))))
    op = made.add(pb.Op(passthrough=pb.PassthroughOp(id="gate", outputs=[1, 0, 1])), (one, 0), (two, 0))

    assert tree(made.message(op, 0), tmp_path) == {"two": b"2"}
    assert tree(made.message(op, 1), tmp_path) == {"one": b"1"}
    failing = made.add(file(action(-1, -1, 0, {"rm": pb.FileActionRm(path="/not/there")})))
    gate = made.add(pb.Op(passthrough=pb.PassthroughOp(id="gate", outputs=[0])), (one, 0), (failing, 0))
    with pytest.raises(InputError, match="/not/there"):
        tree(made.message(gate), tmp_path)


@needs_root
def test_an_owner_looked_up_in_another_input_counts(tmp_path: Path):
    """B9, B16: the same name with another number in that input's /etc/passwd is another result."""
    users = tmp_path / "users"
    (users / "etc").mkdir(parents=True)
    found = []
    for uid in (1234, 4321):
        (users / "etc/passwd").write_text(f"ann:x:{uid}:{uid}::/:/bin/sh\n")
        made = Definition()
        accounts = made.add(file(action(-1, 0, 0, copy("/etc/passwd", "/etc/passwd"))), (made.local("users"), 0))
        owner = pb.ChownOpt(user=pb.UserOpt(byName=pb.NamedUserOpt(name="ann", input=0)))
        op = made.add(file(action(-1, -1, 0, mkfile("/hers", b"", owner))), (accounts, 0))
        out = tmp_path / f"{uid}.tar"
        lamina.solve(made.message(op), output=f"type=tar,dest={out}", root=tmp_path / "root", contexts={"users": users})
        with tarfile.open(out) as archive:
            found.append(archive.getmember("hers").uid)

    assert found == [1234, 4321]


@needs_root
@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5"])
def test_a_limit_of_layers_is_a_number(limit: str, tmp_path: Path):
    made = Definition()
    op = pb.Op(source=pb.SourceOp(identifier="docker-image://x", attrs={"image.layerlimit": limit}))
    with pytest.raises(InputError, match=r"image\.layerlimit of a source must be a number of layers from 1 on"):
        tree(made.message(made.add(op)), tmp_path)


@needs_root
def test_only_the_first_layers_of_an_image_are_used(tmp_path: Path, registry: str):
    """B4: `image.layerlimit`; each limit is another result."""
    below = lamina.llb.scratch().mkfile("/one", b"1").mkfile("/two", b"2")
    name = f"{registry}/layers:1"
    lamina.solve(below.marshal(), output=f"type=registry,name={name}", root=tmp_path / "root")
    found = []
    for limit in ("1", "2", "9"):
        made = Definition()
        op = made.add(pb.Op(source=pb.SourceOp(identifier=f"docker-image://{name}", attrs={"image.layerlimit": limit})))
        found.append(sorted(tree(made.message(op), tmp_path)))

    assert found == [["one"], ["one", "two"], ["one", "two"]]


@needs_root
def test_an_image_that_is_not_the_one_its_author_saw_is_refused(tmp_path: Path):
    """B4: `image.checksum`; decided by the pinned name here, before anything is asked of a registry."""
    pinned, seen = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    source = pb.SourceOp(identifier=f"docker-image://registry.invalid/x@{pinned}", attrs={"image.checksum": seen})
    made = Definition()

    with pytest.raises(InputError, match=f"the image is {pinned}, and was to be {seen}"):
        tree(made.message(made.add(pb.Op(source=source))), tmp_path)


def test_every_case_has_its_golden_tree():
    assert sorted(GOLDEN) == sorted(cases())


@needs_root
@pytest.mark.parametrize("name", GOLDEN)
def test_a_raw_definition_gives_the_tree_that_buildkit_made(name: str, tmp_path: Path):
    """B9, B10, B12: null in the golden file is a definition that BuildKit refused."""
    archive = tmp_path / "out.tar"
    contexts = {"ctx": make_context(tmp_path / "ctx")}

    def solve() -> None:
        output = f"type=tar,dest={archive}"
        lamina.solve(cases()[name], output=output, root=tmp_path / "root", contexts=contexts)

    if GOLDEN[name] is None:
        with pytest.raises(InputError):
            solve()
    else:
        solve()
        assert listing(archive) == GOLDEN[name]


def nested(inner: pb.Definition, *, name: str = "", wanted: str = "") -> pb.Definition:
    """Return a definition that writes another one into a file, and builds it."""
    made = Definition()
    written = made.add(
        file(action(-1, -1, 0, mkfile(f"/{name or 'buildkit.llb.definition'}", inner.SerializeToString())))
    )
    attrs = {"llbbuild.filename": wanted or name} if wanted or name else {}
    op = pb.BuildOp(builder=-1, inputs={"buildkit.llb.definition": pb.BuildInput(input=0)}, attrs=attrs)
    return made.message(made.add(pb.Op(build=op), (written, 0)))


def small(text: bytes) -> pb.Definition:
    made = Definition()
    return made.message(made.add(file(action(-1, -1, 0, mkfile("/made", text)))))


@needs_root
def test_a_definition_in_a_file_is_built(tmp_path: Path):
    """B12: in the usual file or the one that is named; also in several layers of them."""
    assert tree(nested(small(b"in")), tmp_path) == {"made": b"in"}
    assert tree(nested(small(b"named"), name="d.pb"), tmp_path) == {"made": b"named"}
    assert tree(nested(nested(nested(small(b"deep")))), tmp_path) == {"made": b"deep"}


@needs_root
def test_a_nested_build_has_the_directories_of_the_outer_one_and_its_own_output(tmp_path: Path):
    (tmp_path / "ctx").mkdir()
    (tmp_path / "ctx/a").write_text("from the context")
    made = Definition()
    local = made.local("ctx")
    made_of = made.add(file(action(-1, -1, 1, mkfile("/no", b"")), action(-1, 0, 0, copy("/a", "/b"))), (local, 0))

    assert tree(nested(made.message(made_of, 0)), tmp_path, ctx=tmp_path / "ctx") == {"b": b"from the context"}


@needs_root
def test_what_is_wrong_with_a_nested_definition_is_told(tmp_path: Path):
    broken = pb.Definition(**{"def": [b"\xff\xff"]})
    with pytest.raises(InputError, match=r"the nested build's definition 'buildkit.llb.definition': "):
        tree(nested(broken), tmp_path)
    with pytest.raises(InputError, match="'other' is not there"):
        tree(nested(small(b""), name="d.pb", wanted="other"), tmp_path)
    deep = small(b"")
    for _ in range(17):
        deep = nested(deep)
    with pytest.raises(InputError, match="more than 16 deep"):
        tree(deep, tmp_path)


@needs_root
@pytest.mark.parametrize(
    "op", [pb.BuildOp(builder=0), pb.BuildOp(builder=-1), pb.BuildOp(builder=-1, inputs={"x": pb.BuildInput(input=0)})]
)
def test_a_nested_build_for_another_builder_is_refused(op: pb.BuildOp, tmp_path: Path):
    made = Definition()
    below = made.add(file(action(-1, -1, 0, mkfile("/a", b""))))
    with pytest.raises(InputError, match="is a nested build without a definition"):
        tree(made.message(made.add(pb.Op(build=op), (below, 0))), tmp_path)


WHOLE = {
    "a file action on it": lambda local, other: local.mkfile("/f", b""),
    "merged": lambda local, other: llb.merge([other, local]),
    "the upper side of a diff": lambda local, other: llb.diff(other, local),
}


@needs_root
@pytest.mark.parametrize("name", WHOLE)
def test_a_directory_that_counts_as_a_whole_is_looked_at_anew_by_every_build(name: str, tmp_path: Path):
    """B16: it has no identity, so all that lies in it is the key."""
    context = tmp_path / "ctx"
    context.mkdir()
    definition = WHOLE[name](llb.local("ctx"), llb.scratch().mkfile("/g", b"")).marshal()
    found = []
    for text in ("1", "1", "0"):
        (context / "b").write_text(text)
        found.append(tree(definition, tmp_path, ctx=context).get("b"))

    assert found[0] == found[1] != found[2]
