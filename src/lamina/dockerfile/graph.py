"""Builds the LLB graph of one Dockerfile: ops in, a deterministic `pb.Definition` out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from lamina.errors import SourceRange
from lamina.llb.pb import ops_pb2 as pb


@dataclass(frozen=True, slots=True)
class Node:
    """One output of a vertex; None stands for scratch wherever a node may be missing."""

    digest: str
    output: int = 0


class GraphBuilder:
    """Collects vertices; equal ops are one vertex."""

    def __init__(self, filename: str, text: str) -> None:
        self._ops: dict[str, bytes] = {}
        self._message = pb.Definition()
        self._message.Source.infos.add(filename=filename, data=text.encode("utf-8", "replace"), language="Dockerfile")

    def add(
        self,
        op: pb.Op,
        name: str,
        source: SourceRange | None = None,
        *,
        ignore_cache: bool = False,
        build_args: tuple[str, ...] = (),
    ) -> Node:
        """Add an op whose inputs were added before, and return its first output.

        Args:
            build_args: names of the op's variables that come from ARG; told beside the op, so no key depends on it.
        """
        data, digest = _identified(op)
        if digest not in self._ops:
            self._ops[digest] = data
            metadata = self._message.metadata[digest]
            metadata.description["llb.customname"] = name
            metadata.ignore_cache = ignore_cache
            if build_args:
                metadata.description["lamina.buildargs"] = ",".join(build_args)
        if source is not None and digest not in self._message.Source.locations:
            location = self._message.Source.locations[digest].locations.add(sourceIndex=0)
            lines = location.ranges.add()
            lines.start.line, lines.end.line = source.start, source.end
        return Node(digest)

    def include(self, definition: pb.Definition) -> Node | None:
        """Add all vertices of another graph, and return its target; None where that has none.

        The graph has been checked (`llb.definition.load_definition`).
        """
        serialized = list(getattr(definition, "def"))
        if not serialized:
            return None
        for data in serialized[:-1]:
            digest = "sha256:" + hashlib.sha256(data).hexdigest()
            if digest not in self._ops:
                self._ops[digest] = data
                if digest in definition.metadata:
                    self._message.metadata[digest].CopyFrom(definition.metadata[digest])
        target = pb.Op.FromString(serialized[-1]).inputs[0]
        return Node(target.digest, target.index)

    def change(self, node: Node, op: pb.Op) -> dict[str, str]:
        """Put `op` in the place of a vertex without inputs; what stands on it changes its digest.

        Returns the new digest of every vertex that changed, by the old one.
        """
        changed: dict[str, str] = {}
        before, self._ops = self._ops, {}
        for digest, data in before.items():
            found = op if digest == node.digest else pb.Op.FromString(data)
            for number in found.inputs:
                number.digest = changed.get(number.digest, number.digest)
            data, new = _identified(found)
            self._ops[new] = data
            if new != digest:
                changed[digest] = new
                self._move(digest, new)
        return changed

    def _move(self, old: str, new: str) -> None:
        """Give a vertex's name and lines to its new digest."""
        self._message.metadata[new].CopyFrom(self._message.metadata[old])
        del self._message.metadata[old]
        if old in self._message.Source.locations:
            self._message.Source.locations[new].CopyFrom(self._message.Source.locations[old])
            del self._message.Source.locations[old]

    def finish(self, target: Node) -> pb.Definition:
        """Return the definition that asks for `target`."""
        last = pb.Op(inputs=[pb.Input(digest=target.digest, index=target.output)])
        serialized = [*self._ops.values(), last.SerializeToString(deterministic=True)]
        getattr(self._message, "def").extend(serialized)
        return self._message


def _identified(op: pb.Op) -> tuple[bytes, str]:
    data = op.SerializeToString(deterministic=True)
    return data, "sha256:" + hashlib.sha256(data).hexdigest()


def inputs_of(nodes: list[Node]) -> list[pb.Input]:
    """Return the input messages for these nodes, in order."""
    return [pb.Input(digest=node.digest, index=node.output) for node in nodes]
