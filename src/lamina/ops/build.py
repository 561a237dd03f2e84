"""BuildOp: a graph that is read from a file of one of its inputs, and solved in the same build.

In: an input that holds a `pb.Definition` (`buildkit.llb.definition`, or what `llbbuild.filename` names). Out: what the
definition's target yields. The steps of the inner graph are steps of this build: the same cache, session, entitlements
and slots. As with BuildKit the key is the op and its inputs by identity; what the inner graph's sources are today does
not count. Graphs that make graphs end at `MAX_DEPTH`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lamina.cancel import Cancel
from lamina.errors import Error, InputError, SourceRange
from lamina.llb.definition import MAX_BYTES, load_definition
from lamina.llb.identity import message_digest
from lamina.ops.user import read_image_file
from lamina.ops.whole import whole_key, whole_rows
from lamina.ops.worker import Worker
from lamina.solver.protocol import CacheMap, Dependency, Result, RunContext

MAX_DEPTH = 16
_INPUT = "buildkit.llb.definition"
_FILE_ATTR = "llbbuild.filename"

if TYPE_CHECKING:
    from lamina.layer.recipe_listing import Row


class BuildOp:
    """Solves the definition that lies in its input.

    Attributes:
        nests: it waits for steps of its own, so it must not hold a slot meanwhile.
    """

    nests = True

    def __init__(self, op: Any, worker: Worker, depth: int, source: SourceRange | None) -> None:
        self._op, self._worker, self._depth, self._source = op, worker, depth, source
        self._number = int(op.build.inputs[_INPUT].input)
        self._file = str(op.build.attrs.get(_FILE_ATTR, "")) or _INPUT

    def cache_map(self) -> CacheMap:
        """The op, and its inputs by identity."""
        bare = type(self._op)()
        bare.CopyFrom(self._op)
        bare.ClearField("inputs")
        parts = {"kind": "build", "file": self._file}
        mark = self._worker.policy_mark
        return CacheMap(
            message_digest(f"build {mark}" if mark else "build", bare),
            tuple(Dependency() for _ in self._op.inputs),
            parts,
        )

    def content_key(self, number: int, result: Result, cancel: Cancel) -> str:
        """Return the digest of a whole input; asked only of one without an identity."""
        return whole_key(self._worker, result, cancel)

    def listing(self, number: int, result: Result, cancel: Cancel) -> Iterator[Row]:
        """Iterate over what `content_key` digests."""
        return whole_rows(self._worker, result, cancel)

    def run(self, inputs: Sequence[Result], context: RunContext) -> list[Result]:
        """Read the definition and solve it.

        Raises:
            InputError: it is not there, broken, or nested too deeply; Error: what went wrong in it.
        """
        if self._depth >= MAX_DEPTH:
            raise InputError(f"builds in builds, more than {MAX_DEPTH} deep", source=self._source)
        worker = self._worker
        ref = worker.as_layers(inputs[self._number], context.cancel)
        worker.layers.trees(ref, context.cancel)
        data = read_image_file(worker.layers.view(ref, context.cancel), self._file, MAX_BYTES + 1)
        if not data:
            what = f"the nested build's definition {self._file!r} is not there, or empty"
            raise InputError(what, source=self._source)
        try:
            graph = load_definition(data)
        except Error as error:
            error.what = f"the nested build's definition {self._file!r}: {error.what}"
            raise
        return [worker.nested(graph, self._depth + 1, context.cancel)]
