"""B1-B3, B9-B14: what a raw definition may not say is refused when it is loaded, with the vertex's name."""

from __future__ import annotations

import hashlib

import pytest

from lamina.errors import InputError
from lamina.llb.caps import LLB_CAPS
from lamina.llb.definition import Graph, load_definition
from lamina.llb.pb import ops_pb2 as pb

MKDIR = pb.FileActionMkDir(path="/d", mode=0o755, timestamp=-1)
COPY = pb.FileActionCopy(src="/a", dest="/b", mode=-1, timestamp=-1)


def load(op: pb.Op, *, inputs: int = 0, index: int = 0, caps: dict[str, bool] | None = None) -> Graph:
    """Load a definition of `op` over `inputs` local directories, its output `index` being the target."""
    serialized = [pb.Op(source=pb.SourceOp(identifier=f"local://{n}")).SerializeToString() for n in range(inputs)]
    op.inputs.extend(pb.Input(digest=digest(data)) for data in serialized)
    data = op.SerializeToString()
    end = pb.Op(inputs=[pb.Input(digest=digest(data), index=index)]).SerializeToString()
    definition = pb.Definition(**{"def": [*serialized, data, end]})
    for cap, wanted in (caps or {}).items():
        definition.metadata[digest(data)].caps[cap] = wanted
    return load_definition(definition.SerializeToString())


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def file(*actions: pb.FileAction) -> pb.Op:
    return pb.Op(file=pb.FileOp(actions=actions))


def action(below: int = -1, secondary: int = -1, output: int = 0, **what: object) -> pb.FileAction:
    return pb.FileAction(input=below, secondaryInput=secondary, output=output, **(what or {"mkdir": MKDIR}))


def run(*mounts: pb.Mount, args: tuple[str, ...] = ("true",)) -> pb.Op:
    return pb.Op(exec=pb.ExecOp(meta=pb.Meta(args=args), mounts=mounts))


def mount(dest: str = "/", below: int = -1, output: int = 0, **more: object) -> pb.Mount:
    return pb.Mount(dest=dest, input=below, output=output, **more)


def owned_by_input(number: int) -> pb.FileActionMkDir:
    named = pb.UserOpt(byName=pb.NamedUserOpt(name="a", input=number))
    return pb.FileActionMkDir(path="/d", owner=pb.ChownOpt(user=named))


REFUSED = {
    "exec without meta": pb.Op(exec=pb.ExecOp(mounts=[mount()])),
    "exec without arguments": run(mount(), args=()),
    "exec without mounts": run(),
    "exec without a root": run(mount("/x")),
    "exec with two roots": run(mount(), mount(output=1)),
    "mount input past the end": run(mount(below=1)),
    "mount input below -1": run(mount(below=-2)),
    "mount input of 64 bits": run(mount(below=2**63 - 1)),
    "mount output below -1": run(mount(output=-2)),
    "mount outputs with a gap": run(mount(), mount("/x", output=2)),
    "mount outputs doubled": run(mount(), mount("/x", output=0)),
    "mount output of 64 bits": run(mount(output=2**63 - 1)),
    "tmpfs of negative size": run(mount(), mount("/t", output=-1, mountType=4, TmpfsOpt=pb.TmpfsOpt(size=-1))),
    "content cache of a written part": run(mount(), mount("/x", output=1, selector="/p", contentCache=1)),
    "file without actions": file(),
    "file action of no kind": file(pb.FileAction(input=-1, secondaryInput=-1)),
    "file without output": file(action(output=-1)),
    "file outputs doubled": file(action(), action()),
    "file outputs with a gap": file(action(), action(output=2)),
    "file input is itself": file(action(below=1)),
    "file inputs in a circle": file(action(below=2, output=-1), action(below=1)),
    "file input below -1": file(action(below=-2)),
    "file source below -1": file(action(secondary=-2, copy=COPY)),
    "file source is itself": file(action(secondary=1, copy=COPY)),
    "owner from an input past the end": file(action(mkdir=owned_by_input(1_000_000))),
    "owner from an earlier action": file(action(output=-1), action(below=1, mkdir=owned_by_input(1))),
    "owner from input -2": file(action(mkdir=owned_by_input(-2))),
    "merge input past the end": pb.Op(merge=pb.MergeOp(inputs=[pb.MergeInput(input=1)])),
    "merge input below -1": pb.Op(merge=pb.MergeOp(inputs=[pb.MergeInput(input=-2)])),
    "diff without sides": pb.Op(diff=pb.DiffOp()),
    "diff without upper": pb.Op(diff=pb.DiffOp(lower=pb.LowerDiffInput(input=0))),
    "diff input past the end": pb.Op(diff=pb.DiffOp(lower=pb.LowerDiffInput(), upper=pb.UpperDiffInput(input=7))),
    "passthrough without id": pb.Op(passthrough=pb.PassthroughOp(outputs=[0])),
    "passthrough without outputs": pb.Op(passthrough=pb.PassthroughOp(id="x")),
    "passthrough of nothing": pb.Op(passthrough=pb.PassthroughOp(id="x", outputs=[-1])),
    "passthrough past the end": pb.Op(passthrough=pb.PassthroughOp(id="x", outputs=[1])),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_op_that_makes_no_sense_is_refused_by_name(name: str):
    op = pb.Op()
    op.CopyFrom(REFUSED[name])

    with pytest.raises(InputError, match=r"vertex sha256:[0-9a-f]{64} "):
        load(op, inputs=1)


@pytest.mark.parametrize("index", [-1, 1, 2**63 - 1])
def test_an_output_that_an_op_does_not_have_is_refused(index: int):
    with pytest.raises(InputError, match="which has none of that number"):
        load(file(action()), index=index)


def test_every_output_of_an_op_can_be_asked_for():
    assert load(file(action(), action(output=1)), index=1).target[1] == 1
    assert load(run(mount(), mount("/x", output=1)), index=1).target[1] == 1
    passing = pb.Op(passthrough=pb.PassthroughOp(id="x", outputs=[0, 0, 0]))
    assert load(passing, inputs=1, index=2).target[1] == 2


def test_an_unknown_capability_is_named():
    """B14."""
    with pytest.raises(InputError, match=r"'exec\.meta\.teleport'") as caught:
        load(file(action()), caps={"file.base": True, "exec.meta.teleport": True})
    assert caught.value.hint


def test_capabilities_that_are_served_or_not_wanted_are_no_obstacle():
    load(file(action()), caps={**dict.fromkeys(LLB_CAPS, True), "exec.meta.teleport": False})


def test_fields_that_nobody_knows_do_not_matter():
    unknown = pb.Op()
    unknown.ParseFromString(file(action()).SerializeToString() + bytes([0xFA, 0x3E, 1, 0]))
    load(unknown)
