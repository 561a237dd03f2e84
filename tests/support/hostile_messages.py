"""Protobuf messages that no honest client sends: hypothesis strategies by reflection over message types.

Texts come from a pool of what breaks things (paths that climb, names of other vertices, numbers out of range, control
characters), and no text leads to a host but this one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

from lamina.llb.pb import ops_pb2 as pb

ZEROS = "sha256:" + "0" * 64
TEXTS = (
    *(
        "",
        "/",
        "a",
        "..",
        "../../../etc/passwd",
        "/proc/self/root",
        "\0",
        "a\nb",
        "\x1b[31m",
        "\u202e",
        "*",
        "[",
        "a" * 5000,
    ),
    *("true", "false", "-1", "9" * 40, "1e9", "0777", "linux", "linux/amd64", "{", "{}", "[]", "null", '{"a": {}}'),
    *(ZEROS, "sha256:", "sha256:zz", f"a@{ZEROS}", "local://", "local://ctx", "local://../..", "docker-image://"),
    *("docker-image://127.0.0.1:1/a", f"docker-image://127.0.0.1:1/a@{ZEROS}", f"oci-layout://a@{ZEROS}", "http://"),
    *(
        f"docker-image+blob://127.0.0.1:1/a@{ZEROS}",
        "http://127.0.0.1:1/a",
        "git://127.0.0.1:1/a.git",
        "git://",
        "x://y",
    ),
)
KEYS = (
    *("image.resolvemode", "image.checksum", "image.layerlimit", "image.recordtype", "oci.store", "oci.session"),
    *("local.session", "local.unique", "local.includepattern", "local.excludepatterns", "local.followpaths"),
    *("local.sharedkeyhint", "local.differ", "git.keepgitdir", "git.fullurl", "git.checksum", "git.mtime"),
    *("git.knownsshhosts", "git.authtokensecret", "http.checksum", "http.filename", "http.perm", "http.uid"),
    *("http.header.accept", "http.authheadersecret", "llbbuild.filename", "buildkit.llb.definition", "llb.customname"),
    *(
        "context",
        "filename",
        "target",
        "platform",
        "build-arg:A",
        "label:a",
        "no-cache",
        "multi-platform",
        "name",
        "push",
    ),
    *("attest:provenance", "attest:sbom", "source", "cmdline", "context:a", "dest", "compression", "type", "ref"),
    *("input:a", "frontend.caps", "cache-imports", "hostname", "ulimit", "shm-size", "add-hosts", "force-network-mode"),
    *("containerimage.config", "refs.platforms", "containerimage.digest", "annotation.a", "attestation-prefix"),
)
INTEGERS = (0, 1, -1, 2, 7, 0o777, 1 << 20, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}

texts = st.sampled_from(TEXTS)


@st.composite
def messages(draw: st.DrawFn, kind: type[Message], depth: int = 3, never: frozenset[str] = frozenset()) -> Any:
    """Return a message of `kind`, some of its fields set, those named in `never` left out wherever they are."""
    made = kind()
    fields = [field for field in kind.DESCRIPTOR.fields if field.name not in never]
    chosen = draw(st.lists(st.sampled_from(fields), max_size=6, unique_by=lambda field: field.name)) if fields else []
    for field in chosen:
        _fill(draw, made, field, depth, never)
    return made


def _fill(draw: st.DrawFn, made: Message, field: FieldDescriptor, depth: int, never: frozenset[str]) -> None:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        target = getattr(made, field.name)
        for _ in range(draw(st.integers(0, 2))):
            name = draw(st.sampled_from(KEYS) | texts) if key.type == key.TYPE_STRING else draw(_scalars(key))
            if value.message_type is None:
                target[name] = draw(_scalars(value))
            elif depth:
                target[name].CopyFrom(draw(messages(GetMessageClass(value.message_type), depth - 1, never)))
    elif entry is not None:
        count = draw(st.integers(0, 2)) if field.is_repeated else 1
        for _ in range(count if depth else 0):
            below = draw(messages(GetMessageClass(entry), depth - 1, never))
            target = getattr(made, field.name)
            target.add().CopyFrom(below) if field.is_repeated else target.CopyFrom(below)
    elif field.is_repeated:
        getattr(made, field.name).extend(draw(st.lists(_scalars(field), max_size=3)))
    else:
        setattr(made, field.name, draw(_scalars(field)))


def _scalars(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return st.binary(max_size=40) if field.type == FieldDescriptor.TYPE_BYTES else texts
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return st.sampled_from([0, 1, 2, 3, 99, -1])
    if kind in _RANGES:
        low, high = _RANGES[kind]
        return st.sampled_from([number for number in INTEGERS if low <= number <= high])
    return st.sampled_from([0.0, -1.5, float("inf"), float("nan")])


@st.composite
def definitions(draw: st.DrawFn) -> pb.Definition:
    """Return a definition of a few ops of any kind, mostly wired up right so that more than the first check is met."""
    made: list[bytes] = []
    for _ in range(draw(st.integers(0, 4))):
        op = draw(messages(pb.Op, depth=5, never=frozenset({"inputs"})))
        wired = draw(st.lists(st.integers(0, len(made) - 1), max_size=2)) if made else []
        for number in wired:
            index = draw(st.sampled_from([0, 0, 0, 0, 1, -1, 2**31]))
            op.inputs.append(pb.Input(digest=_digest(made[number]), index=index))
        made.append(op.SerializeToString())
    if made:
        end = pb.Op(inputs=[pb.Input(digest=_digest(made[-1]), index=draw(st.sampled_from([0, 0, 0, 1, -1])))])
        made.append(end.SerializeToString())
    found = pb.Definition(**{"def": made})
    for data in made:
        if draw(st.booleans()):
            found.metadata[_digest(data)].CopyFrom(draw(messages(pb.OpMetadata)))
    if draw(st.booleans()):
        found.Source.CopyFrom(draw(messages(pb.Source)))
    return found


@st.composite
def mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """Return `data` with a few bytes changed, dropped, doubled or added."""
    found = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(found) - 1)))
        piece = draw(st.binary(max_size=6))
        length = draw(st.sampled_from([0, 1, 1, 2, 8, 64]))
        found[at : at + length] = piece
    return bytes(found)


@st.composite
def altered(draw: st.DrawFn, definition: pb.Definition) -> pb.Definition:
    """Return a real definition, one op of it changed in a field or two, digests and wires made right again."""
    serialized = list(getattr(definition, "def"))
    position = draw(st.integers(0, len(serialized) - 1))
    renamed: dict[str, str] = {}
    made = []
    for number, data in enumerate(serialized):
        op = pb.Op.FromString(data)
        for given in op.inputs:
            given.digest = renamed.get(given.digest, given.digest)
        if number == position:
            _alter(draw, op)
        changed = op.SerializeToString()
        renamed[_digest(data)] = _digest(changed)
        made.append(changed)
    found = pb.Definition(**{"def": made})
    for digest, metadata in definition.metadata.items():
        found.metadata[renamed.get(digest, digest)].CopyFrom(metadata)
    return found


def _alter(draw: st.DrawFn, message: Message) -> None:
    """Walk down to some message within and set one or two of its fields anew."""
    below = [value for value in _submessages(message) if value.DESCRIPTOR.fields]
    if below and draw(st.integers(0, 3)):
        _alter(draw, draw(st.sampled_from(range(len(below))).map(below.__getitem__)))
        return
    fields: list[FieldDescriptor] = list(message.DESCRIPTOR.fields)
    for field in draw(st.lists(st.sampled_from(fields), min_size=1, max_size=2)):
        if draw(st.booleans()):
            message.ClearField(field.name)
        _fill(draw, message, field, 2, frozenset())


def _submessages(message: Message) -> list[Message]:
    found: list[Message] = []
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            found += [one for one in value.values() if isinstance(one, Message)] if isinstance(value, Mapping) else []
        else:
            found += list(value) if field.is_repeated else [value]
    return found


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()
