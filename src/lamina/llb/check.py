"""Checks of one op: every number points at something, and nothing that an op cannot do without is missing.

In: a parsed op from outside and its name. Out: nothing, or an `InputError`; linear in the op's size, and before
anything is run or mounted. What an op means is none of this module's business. Stricter than BuildKit in
one thing: a file action names earlier actions only, so that no circle can be written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamina.errors import InputError
from lamina.llb.caps import LLB_CAPS
from lamina.llb.pb import ops_pb2 as pb

MAX_OUTPUTS = 1 << 16
LLB_BUILDER = -1
_DEFINITION = "buildkit.llb.definition"


def check_op(op: pb.Op, name: str) -> None:
    """Refuse an op whose parts are missing or whose numbers point past its inputs or actions.

    Args:
        op: the op as parsed.
        name: how messages call it, "vertex sha256:...".

    Raises:
        InputError: what is wrong, with the op's name.
    """
    count = len(op.inputs)
    kind = op.WhichOneof("op")
    if kind == "exec":
        _check_exec(op.exec, count, name)
    elif kind == "file":
        _check_file(op.file, count, name)
    elif kind == "merge":
        _check_inputs((part.input for part in op.merge.inputs), count, name)
    elif kind == "diff":
        if not op.diff.HasField("lower") or not op.diff.HasField("upper"):
            raise InputError(f"{name} is a diff without a lower or an upper side")
        _check_inputs((op.diff.lower.input, op.diff.upper.input), count, name)
    elif kind == "build":
        if op.build.builder != LLB_BUILDER or _DEFINITION not in op.build.inputs:
            raise InputError(f"{name} is a nested build without a definition, or for another builder than LLB's")
        _check_inputs((part.input for part in op.build.inputs.values()), count, name, least=0)
    elif kind == "passthrough":
        if not op.passthrough.id or not len(op.passthrough.outputs):
            raise InputError(f"{name} is a passthrough without an id or without outputs")
        _check_inputs(op.passthrough.outputs, count, name, least=0)


def output_count(op: pb.Op) -> int:
    """Return how many outputs an op that passed `check_op` has."""
    kind = op.WhichOneof("op")
    if kind == "exec":
        return sum(mount.output >= 0 for mount in op.exec.mounts)
    if kind == "file":
        return sum(action.output >= 0 for action in op.file.actions)
    if kind == "passthrough":
        return len(op.passthrough.outputs)
    return 1 if kind is not None else 0


def check_caps(metadata: pb.OpMetadata, name: str) -> None:
    """Refuse an op that needs what we do not serve.

    Raises:
        InputError: names the first capability that is missing.
    """
    missing = sorted(cap for cap, wanted in metadata.caps.items() if wanted and cap not in LLB_CAPS)
    if missing:
        raise InputError(
            f"{name} needs the capability {missing[0][:100]!r}, which this builder does not have",
            hint="leave the option that needs it out, or use a builder that has it",
        )


def _check_exec(run: Any, count: int, name: str) -> None:
    if not run.HasField("meta") or not len(run.meta.args):
        raise InputError(f"{name} has nothing to run: the command is empty")
    if sum(mount.dest == "/" for mount in run.mounts) != 1:
        raise InputError(f"{name} needs exactly one root mount")
    _check_inputs((mount.input for mount in run.mounts), count, name)
    _check_outputs((mount.output for mount in run.mounts), name)
    for mount in run.mounts:
        if mount.TmpfsOpt.size < 0:
            raise InputError(f"{name} has a tmpfs of a negative size")
        kept = mount.output >= 0 and not mount.readonly and mount.selector not in ("", "/")
        if mount.contentCache == pb.ON and kept:
            raise InputError(f"{name} wants a mount by content that is written to and shows a part of its input")


def _check_file(file: Any, count: int, name: str) -> None:
    if not len(file.actions):
        raise InputError(f"{name} is a FileOp without actions")
    for number, action in enumerate(file.actions):
        if not (-1 <= action.input < count + number and -1 <= action.secondaryInput < count + number):
            raise InputError(f"{name} has a file action with an input that is not there")
        kind = action.WhichOneof("action")
        if kind is None:
            raise InputError(f"{name} has a file action that is not known")
        if kind != "rm":
            owner = getattr(action, kind).owner
            named = (who.byName for who in (owner.user, owner.group) if who.WhichOneof("user") == "byName")
            if any(not -1 <= who.input < count for who in named):
                raise InputError(f"{name} looks an owner up in an input that is not there")
    _check_outputs((action.output for action in file.actions), name)
    if not output_count(pb.Op(file=file)):
        raise InputError(f"{name} is a FileOp without an output")


def _check_inputs(numbers: Iterable[int], count: int, name: str, *, least: int = -1) -> None:
    if any(not least <= number < count for number in numbers):
        raise InputError(f"{name} names an input that it does not have")


def _check_outputs(numbers: Iterable[int], name: str) -> None:
    """Outputs are numbered from 0, each once: what asks for number 2 must not get another."""
    found = sorted(number for number in numbers if number != -1)
    if found != list(range(len(found))) or len(found) > MAX_OUTPUTS:
        raise InputError(f"{name} has an impossible output: they are numbered from 0, each once")
