"""The way out of a tunnel: bytes in order, written by whoever can without waiting, else by one thread.

No thread that sends a message or reads the connection ever blocks in the stream itself: it offers what it has, and
what is not taken waits here for a writer thread that is started when first needed. So cancelling works while the far
side reads nothing, and two sides that both only write cannot lock each other up.
Invariant: every method but `run` is called with the peer's lock held; `pending` is bounded by the callers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from lamina.tunnel.streams import ByteStream, EagerStream

LOW_WATER = 256 << 10
"""Bytes waiting below which senders are called again."""


class Outlet:
    """Writes to a stream in order.

    Args:
        stream: where to.
        lock: the peer's.
        name: of the thread, should one be needed.
        room: called with the lock held when there is room again.
        broken: called without the lock when the stream took no more.
    """

    def __init__(
        self,
        stream: ByteStream,
        lock: threading.Lock,
        name: str,
        room: Callable[[], None],
        broken: Callable[[BaseException], None],
    ) -> None:
        self._stream = stream
        self._eager = stream if isinstance(stream, EagerStream) else None
        self._changed = threading.Condition(lock)
        self._name = name
        self._room = room
        self._broken = broken
        self._waiting: list[bytes] = []
        self._closed = False
        self.pending = 0
        self.thread: threading.Thread | None = None

    def push(self, data: bytes) -> None:
        """Send `data` after all that was pushed before; never blocks."""
        if not data or self._closed:
            return
        if self._eager is not None and not self.pending:
            try:
                taken = self._eager.offer(data)
            except OSError:
                taken = 0  # the thread meets the same error and can tell it without the lock
            if taken == len(data):
                return
            data = data[taken:]
        self._waiting.append(data)
        self.pending += len(data)
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self.thread.start()
        self._changed.notify()

    def close(self) -> None:
        """Drop what waits and let the thread end; the stream must be closed by the caller."""
        self._closed = True
        self._waiting.clear()
        self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                batch = b"".join(self._waiting)
                self._waiting.clear()
            try:
                self._stream.send(batch)
            except Exception as error:
                self._broken(error)
                return
            with self._changed:
                self.pending -= len(batch)
                if self.pending <= LOW_WATER:
                    self._room()
