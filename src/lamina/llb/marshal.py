"""From `State` to `pb.Definition`: every vertex once, inputs first, bytes that depend on nothing else."""

from __future__ import annotations

import hashlib
from typing import Any

from lamina.errors import InputError
from lamina.llb.pb import ops_pb2 as pb
from lamina.llb.state import _NETWORKS, _SHARING, Mount, State


def marshal(state: State) -> pb.Definition:
    """Return the definition whose target is `state`.

    Raises:
        InputError: the empty state.
    """
    if state._node is None:
        raise InputError("the empty state cannot be marshalled", hint="make something on it first")
    builder = _Builder()
    digest = builder.add(state)
    last = pb.Op(inputs=[pb.Input(digest=digest, index=0)])
    builder.serialized.append(last.SerializeToString(deterministic=True))
    getattr(builder.definition, "def").extend(builder.serialized)
    return builder.definition


class _Builder:
    """Walks the states below one, without recursion: graphs may be deep."""

    def __init__(self) -> None:
        self.definition = pb.Definition()
        self.serialized: list[bytes] = []
        self._digests: dict[int, str] = {}
        self._known: set[str] = set()

    def add(self, target: State) -> str:
        """Add a state and all below it; return its digest."""
        pending = [target]
        while pending:
            state = pending[-1]
            below = [s for s in state._node.inputs if s._node is not None] if state._node else []
            missing = [s for s in below if id(s._node) not in self._digests]
            if missing:
                pending += missing
                continue
            pending.pop()
            if id(state._node) not in self._digests:
                self._digests[id(state._node)] = self._add_one(state)
        return self._digests[id(target._node)]

    def _add_one(self, state: State) -> str:
        node = state._node
        assert node is not None
        op = _OPS[node.kind](self, node)
        data = op.SerializeToString(deterministic=True)
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if digest not in self._known:
            self._known.add(digest)
            self.serialized.append(data)
            metadata = self.definition.metadata[digest]
            metadata.description["llb.customname"] = node.name
            metadata.ignore_cache = node.ignore_cache
        return digest

    def number(self, op: pb.Op, state: State | None) -> int:
        """Return the number of a state among an op's inputs, adding it if need be; -1 for the empty one."""
        if state is None or state._node is None:
            return -1
        digest = self._digests[id(state._node)]
        for number, known in enumerate(op.inputs):
            if known.digest == digest:
                return number
        op.inputs.add(digest=digest, index=0)
        return len(op.inputs) - 1


def _source(builder: _Builder, node: Any) -> pb.Op:  # noqa: ARG001 - as the others
    op = pb.Op(source=pb.SourceOp(identifier=node.get("identifier"), attrs=dict(node.get("attrs"))))
    platform = node.get("platform")
    if platform is not None:
        op.platform.OS, op.platform.Architecture, op.platform.Variant = (
            platform.os,
            platform.architecture,
            platform.variant,
        )
    return op


def _exec(builder: _Builder, node: Any) -> pb.Op:
    op = pb.Op()
    meta = pb.Meta(args=node.get("args"), cwd=node.get("cwd"), user=node.get("user"))
    meta.env.extend(f"{name}={value}" for name, value in node.get("env"))
    root = pb.Mount(input=builder.number(op, node.inputs[0]), dest="/", output=0)
    mounts = [root, *(_mount(builder, op, mount) for mount in node.get("mounts"))]
    network: Any = _NETWORKS[node.get("network")]
    op.exec.CopyFrom(pb.ExecOp(meta=meta, mounts=mounts, network=network))
    return op


def _mount(builder: _Builder, op: pb.Op, mount: Mount) -> pb.Mount:
    made = pb.Mount(input=-1, dest=mount.target, output=-1, readonly=mount.readonly)
    if mount.kind == "bind":
        made.input = builder.number(op, mount.state)
        made.selector = "" if mount.source == "/" else mount.source
    elif mount.kind == "cache":
        sharing: Any = _SHARING[mount.sharing]
        made.mountType = pb.CACHE
        made.cacheOpt.CopyFrom(pb.CacheOpt(ID=mount.id, sharing=sharing))
    elif mount.kind == "tmpfs":
        made.mountType = pb.TMPFS
        made.TmpfsOpt.CopyFrom(pb.TmpfsOpt(size=mount.size))
    elif mount.kind == "secret":
        made.mountType = pb.SECRET
        made.secretOpt.CopyFrom(pb.SecretOpt(ID=mount.id, mode=mount.mode, optional=mount.optional))
    else:
        made.mountType = pb.SSH
        made.SSHOpt.CopyFrom(pb.SSHOpt(ID=mount.id, mode=mount.mode, optional=mount.optional))
    return made


def _file(builder: _Builder, node: Any) -> pb.Op:
    op = pb.Op()
    action = pb.FileAction(input=builder.number(op, node.inputs[0]), secondaryInput=-1, output=0)
    if node.kind == "copy":
        action.secondaryInput = builder.number(op, node.inputs[1])
        action.copy.CopyFrom(_copy(node))
    elif node.kind == "mkdir":
        made = pb.FileActionMkDir(path=node.get("path"), mode=node.get("mode"), makeParents=node.get("parents"))
        made.timestamp = -1
        action.mkdir.CopyFrom(made)
    elif node.kind == "mkfile":
        file = pb.FileActionMkFile(path=node.get("path"), mode=node.get("mode"), data=node.get("data"), timestamp=-1)
        action.mkfile.CopyFrom(file)
    elif node.kind == "symlink":
        action.symlink.CopyFrom(
            pb.FileActionSymlink(oldpath=node.get("target"), newpath=node.get("path"), timestamp=-1)
        )
    else:
        removal = pb.FileActionRm(path=node.get("path"))
        removal.allowNotFound, removal.allowWildcard = node.get("missing_ok"), node.get("wildcard")
        action.rm.CopyFrom(removal)
    op.file.actions.append(action)
    return op


def _copy(node: Any) -> pb.FileActionCopy:
    copy = pb.FileActionCopy(
        src=node.get("path"),
        dest=node.get("dest"),
        mode=node.get("mode"),
        dirCopyContents=node.get("contents"),
        followSymlink=True,
        createDestPath=True,
        allowWildcard=node.get("wildcard"),
        timestamp=-1,
    )
    owner = node.get("owner")
    if owner is not None:
        copy.owner.user.byID, copy.owner.group.byID = owner
    return copy


def _merge(builder: _Builder, node: Any) -> pb.Op:
    op = pb.Op()
    numbers = []
    for state in node.inputs:
        digest = builder._digests[id(state._node)]
        op.inputs.add(digest=digest, index=0)
        numbers.append(pb.MergeInput(input=len(op.inputs) - 1))
    op.merge.CopyFrom(pb.MergeOp(inputs=numbers))
    return op


def _diff(builder: _Builder, node: Any) -> pb.Op:
    op = pb.Op()
    states = list(node.inputs)
    lower = builder.number(op, states.pop(0)) if node.get("lower") else -1
    upper = builder.number(op, states.pop(0)) if node.get("upper") else -1
    parts = pb.DiffOp(lower=pb.LowerDiffInput(input=lower), upper=pb.UpperDiffInput(input=upper))
    op.diff.CopyFrom(parts)
    return op


_OPS = {
    "source": _source,
    "exec": _exec,
    "merge": _merge,
    "diff": _diff,
    **dict.fromkeys(("copy", "mkdir", "mkfile", "symlink", "rm"), _file),
}
