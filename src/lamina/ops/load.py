"""From an LLB graph to solver vertices: each op gets the class that carries it out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamina.errors import InputError
from lamina.llb.definition import Graph
from lamina.llb.definition import Vertex as LlbVertex
from lamina.ops.blob import BlobOp
from lamina.ops.build import BuildOp
from lamina.ops.exec import ExecOp
from lamina.ops.file import FileOp
from lamina.ops.http import HttpOp
from lamina.ops.limits import limits_of
from lamina.ops.merge import DiffOp, MergeOp
from lamina.ops.passthrough import PassthroughOp
from lamina.ops.source import ImageOp, LayoutOp, LocalOp
from lamina.ops.worker import Worker
from lamina.solver.protocol import Op, Vertex
from lamina.source.http_request import without_credentials


def load_vertices(graph: Graph, worker: Worker, depth: int = 0) -> dict[str, Vertex]:
    """Return the graph's vertices for the solver, inputs first.

    Args:
        depth: how many builds the graph is nested in.

    Raises:
        InputError: an op that no version of us knows; NotYetError: one that we do not carry out yet.
    """
    vertices = {}
    for found in graph.vertices:
        metadata = found.metadata
        name = str(metadata.description.get("llb.customname", "")) or describe(found.op)
        vertices[found.digest] = Vertex(
            digest=found.digest,
            name=name,
            op=_op(found, worker, depth),
            inputs=tuple(found.inputs),
            ignore_cache=bool(metadata.ignore_cache),
            source=found.sources[0] if found.sources else None,
        )
    return vertices


def _op(vertex: LlbVertex, worker: Worker, depth: int) -> Op:
    kind = vertex.op.WhichOneof("op")
    source = vertex.sources[0] if vertex.sources else None
    if kind == "source":
        return _source(vertex, worker)
    if kind == "exec":
        names = str(vertex.metadata.description.get("lamina.buildargs", ""))
        limits = limits_of(vertex.metadata, source)
        return ExecOp(vertex.op, worker, source, build_args=tuple(names.split(",")) if names else (), limits=limits)
    if kind == "file":
        return FileOp(vertex.op, worker, vertex.digest, source)
    if kind == "merge":
        return MergeOp(vertex.op, worker)
    if kind == "diff":
        return DiffOp(vertex.op, worker)
    if kind == "passthrough":
        return PassthroughOp(vertex.op, worker)
    if kind == "build":
        return BuildOp(vertex.op, worker, depth, source)
    raise InputError(f"vertex {vertex.digest} has no op that is known", source=source)


def _source(vertex: LlbVertex, worker: Worker) -> Op:
    identifier = vertex.op.source.identifier
    scheme, _, rest = identifier.partition("://")
    source = vertex.sources[0] if vertex.sources else None
    if scheme == "docker-image":
        return ImageOp(rest, vertex.op, worker)
    if scheme == "local":
        return LocalOp(rest, vertex.op, worker)
    if scheme == "oci-layout":
        return LayoutOp(rest, vertex.op, worker)
    if scheme in ("docker-image+blob", "oci-layout+blob"):
        return BlobOp(scheme, rest, vertex.op, worker, vertex.digest)
    if scheme in ("http", "https"):
        return HttpOp(vertex.op, worker, vertex.digest, source)
    if scheme == "git":
        from lamina.ops.git import GitOp

        return GitOp(rest, vertex.op, worker, source)
    raise InputError(f"unknown source {identifier!r}", source=source)


def describe(op: Any) -> str:
    """Return a name for a vertex whose author gave it none."""
    kind = op.WhichOneof("op")
    if kind == "source":
        return without_credentials(str(op.source.identifier))
    if kind == "exec":
        return " ".join(op.exec.meta.args)
    return str(kind)


def trees_needed(graph: Graph, also: Iterable[str] = ()) -> frozenset[str]:
    """Return the vertices whose files will be executed on or read, so that they are best made as trees.

    A FileOp's result that only goes on to other recipes and the exporter is packed straight into a blob instead.

    Args:
        graph: the whole graph.
        also: vertices whose files are wanted for another reason (exported as files).
    """
    needed = set(also)
    for vertex in reversed(graph.vertices):
        kind = vertex.op.WhichOneof("op")
        read = _read_inputs(vertex)
        for number, (below, _output) in enumerate(vertex.inputs):
            if number in read or vertex.digest in needed or kind == "diff":
                needed.add(below)
    return frozenset(needed)


def _read_inputs(vertex: LlbVertex) -> set[int]:
    """Return the inputs that files are read from: all of a step or a nested build, of a FileOp those copied from."""
    kind = vertex.op.WhichOneof("op")
    if kind in ("exec", "build"):
        return set(range(len(vertex.inputs)))
    if kind != "file":
        return set()
    copies = (action for action in vertex.op.file.actions if action.WhichOneof("action") == "copy")
    return {action.secondaryInput for action in copies if 0 <= action.secondaryInput < len(vertex.inputs)}
