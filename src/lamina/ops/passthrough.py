"""PassthroughOp: some of its inputs as outputs, once all of them are done; order without data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina.cancel import Cancel
from lamina.llb.identity import op_digest
from lamina.ops.worker import Worker
from lamina.solver.protocol import CacheMap, Dependency, Result, RunContext


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
        """Never asked: inputs count by identity."""
        raise AssertionError("passthrough inputs count by identity")

    def run(self, inputs: Sequence[Result], context: RunContext) -> list[Result]:
        """Hand the inputs on."""
        return [self._worker.as_layers(inputs[number], context.cancel) for number in self._outputs]
