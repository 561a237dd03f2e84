"""The graphs of a build, kept with its record: LLB definitions as they were solved, compressed.

In: graphs. Out: the file `definition.z` in the record's folder, and definitions again. Written before anything is
solved, so that a build that fails or is killed leaves it too; failing to write it costs the record, not the build.

Invariant: no user information of a URL is in it, and no value of a variable whose name looks like a secret. Secrets
themselves are in no graph. An op that had such a text is kept without it, and everything above it under digests of its
own (its inputs' names are part of an op): the graph stays one that loads, `Kept.changed` says that keys differ.

Format: zlib over one byte ("1" when something was left out), then each definition behind its length in eight bytes.
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina.cache.changes import looks_secret
from lamina.history.project import without_credentials
from lamina.llb.pb import ops_pb2 as pb

if TYPE_CHECKING:
    from lamina.llb.definition import Graph, Vertex

FILE = "definition.z"
MAX_BYTES = 1 << 20
"""Largest file; of a graph that needs more, nothing is kept."""
_MAX_PLAIN = 256 << 20
_HIDDEN = "(hidden)"
_SHORTEST = 6
_SUSPECT = re.compile(rb"://[^\s]*@|pass|secret|token|credential|api_?key|private|auth|pwd", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Kept:
    """What the record of a build has of its graphs.

    Attributes:
        definitions: one for each platform.
        changed: credentials were left out, so that digests are not those of the build.
    """

    definitions: tuple[pb.Definition, ...]
    changed: bool


def keep_definitions(folder: Path, graphs: Sequence[Graph]) -> int:
    """Write the graphs of a build down; return how many bytes that took, 0 when they are too large or it failed."""
    hidden = _hidden_values(graphs)
    made = [_definition(graph, hidden) for graph in graphs]
    plain = [b"1" if any(changed for _, changed in made) else b"0"]
    for definition, _ in made:
        data = definition.SerializeToString(deterministic=True)
        plain += [len(data).to_bytes(8, "big"), data]
    if sum(map(len, plain)) > _MAX_PLAIN:
        return 0
    packed = zlib.compress(b"".join(plain), 1)
    if len(packed) > MAX_BYTES:
        return 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        making = folder / f"{FILE}.tmp"
        with open(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(packed)
        os.replace(making, folder / FILE)
    except OSError:
        return 0
    return len(packed)


def kept_definitions(folder: Path) -> Kept | None:
    """Return the graphs of a build, None when the record has none (any more)."""
    from google.protobuf.message import DecodeError

    try:
        packed = (folder / FILE).read_bytes()
        plain = zlib.decompressobj().decompress(packed, _MAX_PLAIN)
        found, at = [], 1
        while at < len(plain):
            end = at + 8 + int.from_bytes(plain[at : at + 8], "big")
            found.append(pb.Definition.FromString(plain[at + 8 : end]))
            at = end
    except (OSError, zlib.error, DecodeError):
        return None
    return Kept(tuple(found), plain[:1] == b"1")


def _definition(graph: Graph, hidden: Sequence[str]) -> tuple[pb.Definition, bool]:
    """Return a graph in its wire form, and whether something was left out."""
    definition = pb.Definition()
    ops: Any = getattr(definition, "def")  # a keyword here, so the field cannot be spoken
    renamed: dict[str, str] = {}
    for vertex in graph.vertices:
        data = _without_secrets(vertex, renamed, hidden)
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if digest != vertex.digest:
            renamed[vertex.digest] = digest
        ops.append(data)
        metadata = definition.metadata[digest]
        metadata.CopyFrom(vertex.metadata)
        for name, text in metadata.description.items():
            metadata.description[name] = _blank(text, hidden)
    target, output = graph.target
    ops.append(pb.Op(inputs=[pb.Input(digest=renamed.get(target, target), index=output)]).SerializeToString())
    return definition, bool(renamed)


def _without_secrets(vertex: Vertex, renamed: dict[str, str], hidden: Sequence[str]) -> bytes:
    """Return an op's bytes, without what must not be kept; as they arrived where there is nothing of that."""
    data = vertex.data or vertex.op.SerializeToString(deterministic=True)
    if not any(digest in renamed for digest, _ in vertex.inputs):
        suspect = _SUSPECT.search(data) or any(value.encode("utf-8", "replace") in data for value in hidden)
        if not suspect:
            return data
    op = pb.Op()
    op.CopyFrom(vertex.op)
    before = op.SerializeToString(deterministic=True)
    _blank_texts(op, lambda text: _blank(text, hidden))
    for item, (digest, _) in zip(op.inputs, vertex.inputs, strict=True):
        item.digest = renamed.get(digest, digest)
    after = op.SerializeToString(deterministic=True)
    return data if before == after else after


def _hidden_values(graphs: Sequence[Graph]) -> list[str]:
    """Return the values of variables that look like secrets; short ones are hidden only where they are set."""
    found: set[str] = set()
    for graph in graphs:
        for vertex in graph.vertices:
            for line in vertex.op.exec.meta.env:
                name, _, value = line.partition("=")
                if len(value) >= _SHORTEST and looks_secret(name):
                    found.add(value)
    return sorted(found, key=len, reverse=True)


def _blank(text: str, hidden: Sequence[str]) -> str:
    for value in hidden:
        text = text.replace(value, _HIDDEN)
    return without_credentials(text) if "@" in text else text


def _blank_texts(message: Any, change: Callable[[str], str]) -> None:
    """Change every text of a message, however deep; of variables and attributes those that look secret, whole."""
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            kind = field.message_type.fields_by_name["value"].type
            for key in list(value) if kind == field.TYPE_STRING else ():
                value[key] = _HIDDEN if _is_header(str(key)) else change(value[key])
        elif field.type == field.TYPE_MESSAGE:
            for item in value if isinstance(value, Sequence) or hasattr(value, "add") else (value,):
                _blank_texts(item, change)
        elif field.type == field.TYPE_BYTES:
            text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else ""
            if text and (told := change(text)) != text:
                setattr(message, field.name, told.encode("utf-8", "surrogateescape"))
        elif field.type == field.TYPE_STRING:
            if isinstance(value, str):
                setattr(message, field.name, change(value))
            else:
                value[:] = [_variable(text, change) if field.name == "env" else change(text) for text in value]


def _variable(line: str, change: Callable[[str], str]) -> str:
    name, equals, value = line.partition("=")
    return f"{name}={_HIDDEN}" if equals and value and looks_secret(name) else change(line)


def _is_header(name: str) -> bool:
    """Tell whether an attribute is a header of a request that may hold credentials."""
    return name.startswith("http.header.") and looks_secret(name)
