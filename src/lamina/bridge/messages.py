"""Between the bridge's values and the messages of `moby.buildkit.v1.frontend`. Pure."""

from __future__ import annotations

import stat
from collections.abc import Callable
from typing import Any

from lamina.api.pb import fsutil_pb2, gateway_pb2
from lamina.bridge.values import Attestation, Ref, Result
from lamina.layer.entry import Entry
from lamina.oci.platform import Platform

_TYPES = {"f": 0, "d": 1 << 31, "l": 1 << 27, "p": 1 << 25, "c": (1 << 26) | (1 << 21), "b": 1 << 26}
_SPECIAL = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))
Keep = Callable[[Ref | None], str]
Find = Callable[[str], Ref | None]


def result_message(result: Result, keep: Keep, *, arrays: bool) -> gateway_pb2.Result:
    """Return a result as clients get it.

    Args:
        keep: gives each reference an id.
        arrays: the client knows references that carry their definitions.
    """

    def ref_message(ref: Ref | None) -> gateway_pb2.Ref:
        message = gateway_pb2.Ref(id=keep(ref))
        if ref is not None:
            getattr(message, "def").CopyFrom(ref.definition)
        return message

    message = gateway_pb2.Result(metadata=result.metadata)
    if result.refs:
        if arrays:
            message.refs.SetInParent()
            for key, ref in result.refs.items():
                message.refs.refs[key].CopyFrom(ref_message(ref))
        else:
            message.refsDeprecated.SetInParent()
            for key, ref in result.refs.items():
                message.refsDeprecated.refs[key] = keep(ref)
    elif arrays:
        message.ref.CopyFrom(ref_message(result.ref))
    else:
        message.refDeprecated = keep(result.ref)
    for key, attestations in result.attestations.items():
        for one in attestations:
            added = message.attestations[key].attestation.add(
                kind=one.kind, metadata=one.metadata, path=one.path, inTotoPredicateType=one.predicate_type
            )
            added.ref.CopyFrom(ref_message(one.ref))
            for kind, name, digests in one.subjects:
                added.inTotoSubjects.add(kind=kind, name=name, digest=digests)
    return message


def result_of(message: gateway_pb2.Result, find: Find) -> Result:
    """Return the value of a result that a frontend gives back.

    Args:
        find: returns the reference of an id; raises when there is none.
    """
    result = Result(metadata=dict(message.metadata))
    kind = message.WhichOneof("result")
    if kind == "refDeprecated":
        result.ref = find(message.refDeprecated)
    elif kind == "refsDeprecated":
        result.refs = {key: find(name) for key, name in message.refsDeprecated.refs.items()}
    elif kind == "ref":
        result.ref = find(message.ref.id)
    elif kind == "refs":
        result.refs = {key: find(ref.id) for key, ref in message.refs.refs.items()}
    for key, several in message.attestations.items():
        result.attestations[key] = [_attestation(one, find) for one in several.attestation]
    return result


def _attestation(message: gateway_pb2.Attestation, find: Find) -> Attestation:
    subjects = tuple((one.kind, one.name, tuple(one.digest)) for one in message.inTotoSubjects)
    return Attestation(
        message.kind,
        find(message.ref.id),
        message.path,
        message.inTotoPredicateType,
        dict(message.metadata),
        subjects,
    )


def stat_message(entry: Entry) -> fsutil_pb2.Stat:
    """Return an entry as `fsutil` tells it: the mode is that of Go's `os.FileMode`, the path only the name."""
    mode = (entry.mode & 0o777) | _TYPES.get(entry.kind, 0)
    for bit, go in _SPECIAL:
        if entry.mode & bit:
            mode |= go
    return fsutil_pb2.Stat(
        path=entry.path.rpartition("/")[2],
        mode=mode,
        uid=entry.uid,
        gid=entry.gid,
        size=entry.size,
        modTime=entry.mtime_ns,
        linkname=entry.target,
        devmajor=entry.dev[0],
        devminor=entry.dev[1],
        xattrs=dict(entry.xattrs),
    )


def platform_of(message: Any) -> Platform | None:
    """Return a platform, None where none is said."""
    if not message.OS:
        return None
    return Platform.normal(message.OS, message.Architecture, message.Variant)
