"""What a step writes: handed on as log events, with the last lines kept for its error."""

from __future__ import annotations

import threading
import time

from lamina.progress import LogEvent
from lamina.solver.protocol import RunContext

_TAIL_BYTES = 64 << 10
_TAIL_LINES = 20


class Output:
    """Takes the bytes of one step's stdout (1) and stderr (2), in the order they come."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._tail = bytearray()
        self._lock = threading.Lock()

    def write(self, stream: int, data: bytes) -> None:
        """Pass a piece on at once; nothing is held back or cut."""
        with self._lock:
            self._tail += data
            if len(self._tail) > 2 * _TAIL_BYTES:
                del self._tail[:-_TAIL_BYTES]
        self._context.sink(LogEvent(self._context.vertex, stream, data, time.time()))

    def close(self) -> None:
        """Nothing more comes."""

    def tail(self) -> list[str]:
        """Return the last lines as text."""
        lines = bytes(self._tail).decode("utf-8", "replace").splitlines()
        return [line.rpartition("\r")[2] or line for line in lines[-_TAIL_LINES:]]
