"""L1: everything of an op that counts in its key has a part, so that no miss is left without a reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from lamina.llb.pb import ops_pb2 as pb
from lamina.ops.parts import exec_parts, file_parts

# Told elsewhere: inputs and proxies do not count, devices by what was found, outputs and results are the graph's.
NOT_HERE = {
    *("inputs", "constraints", "proxy_env", "cdiDevices", "input", "output", "resultID", "secondaryInput"),
    *("file", "exec", "source", "build", "merge", "diff", "OSVersion", "OSFeatures"),
}


def whole_exec() -> pb.Op:
    """Return an ExecOp in which every message is there, so that each of their fields can be changed."""
    meta = pb.Meta(args=["a"], env=["A=1"])
    meta.extraHosts.add(Host="h", IP="1.2.3.4")
    meta.ulimit.add(Name="nofile", Soft=1, Hard=2)
    mounts = [
        pb.Mount(dest="/"),
        pb.Mount(dest="/c", mountType=pb.CACHE, cacheOpt=pb.CacheOpt(ID="c")),
        pb.Mount(dest="/t", mountType=pb.TMPFS, TmpfsOpt=pb.TmpfsOpt(size=1)),
        pb.Mount(dest="/s", mountType=pb.SECRET, secretOpt=pb.SecretOpt(ID="s")),
        pb.Mount(dest="/a", mountType=pb.SSH, SSHOpt=pb.SSHOpt(ID="a")),
    ]
    run = pb.ExecOp(meta=meta, mounts=mounts, secretenv=[pb.SecretEnv(ID="x", name="X")])
    return pb.Op(exec=run, platform=pb.Platform(OS="linux", Architecture="amd64"))


def whole_file() -> pb.Op:
    """Return a FileOp with one action of each kind."""
    owner = pb.ChownOpt(user=pb.UserOpt(byID=1), group=pb.UserOpt(byName=pb.NamedUserOpt(name="g")))
    copy = pb.FileActionCopy(src="/a", dest="/b", owner=owner, mode=-1, timestamp=-1)
    actions = [
        pb.FileAction(copy=copy),
        pb.FileAction(mkdir=pb.FileActionMkDir(path="/d", owner=owner, timestamp=-1)),
        pb.FileAction(mkfile=pb.FileActionMkFile(path="/f", owner=owner, timestamp=-1)),
        pb.FileAction(symlink=pb.FileActionSymlink(oldpath="/o", newpath="/n", owner=owner, timestamp=-1)),
        pb.FileAction(rm=pb.FileActionRm(path="/r")),
    ]
    return pb.Op(file=pb.FileOp(actions=actions), platform=pb.Platform(OS="linux", Architecture="amd64"))


def edits(message: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over every field below a message: its path, and a function that changes it in place."""
    for field in message.DESCRIPTOR.fields:
        here = f"{path}.{field.name}"
        if field.name in NOT_HERE and path:
            continue
        repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
        value = getattr(message, field.name)
        if field.message_type is not None:
            children = list(enumerate(value)) if repeated else [(0, value)] if message.HasField(field.name) else []
            for number, child in children:
                yield from edits(child, f"{here}[{number}]")
        elif repeated:
            yield here, lambda m=value, f=field: m.append("x" if f.type == f.TYPE_STRING else 77)
        elif field.containing_oneof is None or message.HasField(field.name):
            yield here, lambda m=message, f=field: setattr(m, f.name, another(getattr(m, f.name), f))


def another(value: Any, field: Any) -> Any:
    if field.enum_type is not None:
        return next(number for number in field.enum_type.values_by_number if number != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, bytes):
        return value + b"x"
    return value + 1 if isinstance(value, int) else f"{value}x"


def cases() -> Iterator[Any]:
    for kind, make, tell in (("exec", whole_exec, exec_parts), ("file", whole_file, file_parts)):
        for number, (path, _) in enumerate(edits(getattr(make(), kind), kind)):
            yield pytest.param(kind, make, tell, number, id=path)


@pytest.mark.parametrize(("kind", "make", "tell", "number"), list(cases()))
def test_a_field_that_changes_is_told(kind: str, make: Any, tell: Any, number: int):
    op = make()
    before = tell(op)

    try:
        list(edits(getattr(op, kind), kind))[number][1]()
    except TypeError:  # a repeated number
        pytest.fail("the test cannot change this field")

    assert tell(op) != before


@pytest.mark.parametrize(("make", "tell"), [(whole_exec, exec_parts), (whole_file, file_parts)])
def test_the_platform_is_told(make: Any, tell: Any):
    op = make()
    before = tell(op)
    op.platform.Architecture = "arm64"

    assert tell(op) != before
