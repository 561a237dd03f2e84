"""Definitions from outside, checked and taken apart: the wire form of a graph becomes vertices in order.

In: `pb.Definition` or its bytes, from a frontend, a client or a library user; hostile until checked. Out: a `Graph`.
A vertex is named by the sha256 of its op's bytes, so a definition cannot hold a cycle; what it can hold (missing
inputs, two targets, numbers out of range, absurd sizes) is refused with `InputError`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from lamina.errors import InputError, SourceRange
from lamina.llb.check import check_caps, check_op, output_count
from lamina.llb.pb import ops_pb2 as pb

MAX_VERTICES = 100_000
MAX_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Vertex:
    """One op of a graph.

    Attributes:
        digest: sha256 of the op's bytes as they arrived.
        op: the parsed message; not to be changed.
        inputs: digest and output number, in the op's order.
        metadata: what does not count: names, `ignore_cache`.
        sources: the lines it comes from.
        data: the op's bytes as they arrived, b"" when it was made here.
    """

    digest: str
    op: pb.Op
    inputs: tuple[tuple[str, int], ...]
    metadata: pb.OpMetadata
    sources: tuple[SourceRange, ...] = ()
    data: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Graph:
    """Vertices in topological order (inputs first), and the output that is asked for.

    Attributes:
        last: digest of the empty op that names the target, "" for a graph that no definition gave.
        source: the files it was written in, None where nobody said.
    """

    vertices: tuple[Vertex, ...]
    target: tuple[str, int]
    last: str = ""
    source: pb.Source | None = field(default=None, compare=False, repr=False)


def with_target(graph: Graph, target: tuple[str, int]) -> Graph:
    """Return the same graph asked for another of its vertices."""
    return Graph(graph.vertices, target, "", graph.source)


def load_definition(definition: pb.Definition | bytes) -> Graph:
    """Check a definition and return its graph.

    Raises:
        InputError: it is not a definition, or one that cannot be solved.
    """
    message = _parse(definition) if isinstance(definition, bytes) else definition
    serialized: list[bytes] = list(getattr(message, "def"))  # a keyword here, so the field cannot be spoken
    if len(serialized) > MAX_VERTICES:
        raise InputError(f"the definition has {len(serialized)} vertices; at most {MAX_VERTICES} are taken")
    sources = _SourceMap(message.Source)
    vertices: dict[str, Vertex] = {}
    last: Vertex | None = None
    for data in serialized:
        last = _vertex(data, message, sources)
        for below, output in last.inputs:
            if below not in vertices:
                raise InputError(f"vertex {last.digest} has an input that is not before it: {below[:80]!r}")
            if not 0 <= output < output_count(vertices[below].op):
                raise InputError(
                    f"vertex {last.digest} asks for output {output} of {below}, which has none of that number"
                )
        vertices[last.digest] = last
    if last is None or last.op.WhichOneof("op") is not None or len(last.inputs) != 1:
        raise InputError("the definition has no target: its last op must be empty with one input")
    del vertices[last.digest]
    source = message.Source if message.HasField("Source") else None
    return Graph(tuple(vertices.values()), last.inputs[0], last.digest, source)


def _parse(data: bytes) -> pb.Definition:
    from google.protobuf.message import DecodeError

    if len(data) > MAX_BYTES:
        raise InputError(f"the definition has {len(data)} bytes; at most {MAX_BYTES} are taken")
    message = pb.Definition()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise InputError(f"not an LLB definition: {error}") from error
    return message


def _vertex(data: bytes, message: pb.Definition, sources: _SourceMap) -> Vertex:
    from google.protobuf.message import DecodeError

    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    op = pb.Op()
    try:
        op.ParseFromString(data)
    except DecodeError as error:
        raise InputError(f"vertex {digest} is not an op: {error}") from error
    inputs = tuple((item.digest, item.index) for item in op.inputs)
    metadata = message.metadata[digest] if digest in message.metadata else pb.OpMetadata()
    vertex = Vertex(digest, op, inputs, metadata, sources.of(digest), data)
    check_op(op, f"vertex {digest}")
    check_caps(metadata, f"vertex {digest}")
    return vertex


class _SourceMap:
    """Lines of source files by vertex; a broken map costs excerpts, never a build."""

    def __init__(self, message: pb.Source) -> None:
        self._locations = message.locations
        self._files = [(info.filename, info.data.decode("utf-8", "replace")) for info in message.infos]

    def of(self, digest: str) -> tuple[SourceRange, ...]:
        """Return where a vertex comes from."""
        if digest not in self._locations:
            return ()
        found = []
        for location in self._locations[digest].locations:
            if 0 <= location.sourceIndex < len(self._files):
                name, text = self._files[location.sourceIndex]
                found += [SourceRange(name, lines.start.line, lines.end.line, text) for lines in location.ranges]
        return tuple(found)
