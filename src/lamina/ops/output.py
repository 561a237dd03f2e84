"""What a step writes: handed on as log events, with the last lines kept for its error."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from lamina.progress import LogEvent
from lamina.solver.protocol import RunContext

_TAIL_BYTES = 64 << 10
_TAIL_LINES = 20
_SHORTEST_SECRET = 4  # blanking shorter values would spoil the log and hide nothing
_BLANK = b"***"


class Output:
    """Takes the bytes of one step's stdout (1) and stderr (2), in the order they come."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._tail = bytearray()
        self._lock = threading.Lock()
        self._secrets: list[bytes] = []
        self._held: dict[int, bytes] = {}

    def hide(self, secrets: Iterable[bytes]) -> None:
        """Blank these values, and each longer line of them, in what is written from now on."""
        texts = {text.strip() for secret in secrets for text in (secret, *secret.split(b"\n"))}
        self._secrets = sorted((text for text in texts if len(text) >= _SHORTEST_SECRET), key=len, reverse=True)

    def write(self, stream: int, data: bytes) -> None:
        """Pass a piece on at once; only what may be the beginning of a secret is held back, and nothing is cut."""
        if self._secrets:
            data = self._blanked(stream, data)
        if data:
            self._pass_on(stream, data)

    def _pass_on(self, stream: int, data: bytes) -> None:
        with self._lock:
            self._tail += data
            if len(self._tail) > 2 * _TAIL_BYTES:
                del self._tail[:-_TAIL_BYTES]
        self._context.sink(LogEvent(self._context.vertex, stream, data, time.time()))

    def _blanked(self, stream: int, data: bytes) -> bytes:
        """Return `data` with what was held back, secrets blanked, without what may go on as a secret."""
        with self._lock:
            data = self._held.pop(stream, b"") + data
            for secret in self._secrets:
                data = data.replace(secret, _BLANK)
            held = max((_overlap(data, secret) for secret in self._secrets), default=0)
            if held:
                self._held[stream] = data[-held:]
                data = data[:-held]
        return data

    def close(self) -> None:
        """Nothing more comes: pass on what was held back."""
        with self._lock:
            held, self._held = self._held, {}
        for stream, data in held.items():
            self._pass_on(stream, data)

    def tail(self) -> list[str]:
        """Return the last lines as text."""
        lines = bytes(self._tail).decode("utf-8", "replace").splitlines()
        return [line.rpartition("\r")[2] or line for line in lines[-_TAIL_LINES:]]


def _overlap(data: bytes, secret: bytes) -> int:
    """Return how many bytes at the end of `data` are the beginning of `secret`."""
    start = max(0, len(data) - len(secret) + 1)
    while (start := data.find(secret[:1], start)) >= 0:
        if secret.startswith(data[start:]):
            return len(data) - start
        start += 1
    return 0
