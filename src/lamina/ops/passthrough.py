"""PassthroughOp: some of its inputs as outputs, once all of them are done; order without data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lamina.cancel import Cancel
from lamina.llb.identity import op_digest
from lamina.ops.whole import whole_key, whole_rows
from lamina.ops.worker import Worker
from lamina.solver.protocol import CacheMap, Dependency, Result, RunContext

if TYPE_CHECKING:
    from lamina.layer.recipe_listing import Row


class PassthroughOp:
    """Yields `inputs[outputs[n]]` as output n."""

    def __init__(self, op: Any, worker: Worker) -> None:
        self._id = str(op.passthrough.id)
        self._outputs = [int(number) for number in op.passthrough.outputs]
        self._count = len(op.inputs)
        self._worker = worker

    def cache_map(self) -> CacheMap:
        """The id, which input is which output, and the identities of all inputs."""
        order = ",".join(map(str, self._outputs))
        parts = {"kind": "passthrough", "id": self._id, "order": order}
        return CacheMap(
            op_digest("passthrough", self._id, order), tuple(Dependency() for _ in range(self._count)), parts
        )

    def content_key(self, number: int, result: Result, cancel: Cancel) -> str:
        """Return the digest of a whole input; asked only of one without an identity."""
        return whole_key(self._worker, result, cancel)

    def listing(self, number: int, result: Result, cancel: Cancel) -> Iterator[Row]:
        """Iterate over what `content_key` digests."""
        return whole_rows(self._worker, result, cancel)

    def run(self, inputs: Sequence[Result], context: RunContext) -> list[Result]:
        """Hand the inputs on."""
        return [self._worker.as_layers(inputs[number], context.cancel) for number in self._outputs]
