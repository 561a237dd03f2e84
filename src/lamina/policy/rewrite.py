"""A graph with other sources: what policies converted stands in it, and all above has another digest. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from lamina.errors import Error
from lamina.llb.definition import Graph, Vertex
from lamina.llb.pb import ops_pb2 as pb
from lamina.policy.normal import normal_source
from lamina.policy.values import Source

Judge = Callable[[pb.Op], Source]
"""Returns what an op's source is to be; raises when it may not be used."""


def source_of(op: pb.Op) -> Source:
    """Return an op's source, written in the one way."""
    return normal_source(Source(op.source.identifier, dict(op.source.attrs)))


def with_sources(graph: Graph, judge: Judge) -> Graph:
    """Return a graph in which every source is what `judge` makes of it; itself when nothing changes.

    Raises:
        Error: of `judge`, with the lines that the source comes from.
    """
    renamed: dict[str, str] = {}
    vertices: dict[str, Vertex] = {}
    for vertex in graph.vertices:
        op = _judged(vertex, judge)
        if op is None and any(below in renamed for below, _ in vertex.inputs):
            op = pb.Op()
            op.CopyFrom(vertex.op)
        if op is not None:
            for item in op.inputs:
                item.digest = renamed.get(item.digest, item.digest)
            data = op.SerializeToString(deterministic=True)
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            renamed[vertex.digest] = digest
            inputs = tuple((item.digest, item.index) for item in op.inputs)
            vertex = replace(vertex, digest=digest, op=op, inputs=inputs, data=data)
        vertices.setdefault(vertex.digest, vertex)
    if not renamed:
        return graph
    target, output = graph.target
    return Graph(tuple(vertices.values()), (renamed.get(target, target), output), "", graph.source)


def _judged(vertex: Vertex, judge: Judge) -> pb.Op | None:
    """Return the op with another source, None when it keeps its own."""
    if vertex.op.WhichOneof("op") != "source":
        return None
    try:
        source = judge(vertex.op)
    except Error as error:
        if error.source is None and vertex.sources:
            error.source = vertex.sources[0]
        error.vertex = error.vertex or vertex.digest
        raise
    if source == source_of(vertex.op):
        return None
    op = pb.Op()
    op.CopyFrom(vertex.op)
    op.source.identifier = source.identifier
    op.source.attrs.clear()
    op.source.attrs.update(source.attrs)
    return op
