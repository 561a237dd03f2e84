"""What a tunnel runs over: the protocol, a socket, and messages that a bidirectional gRPC method carries.

    peer = Peer(SocketStream(connected))

    stream = MessageStream(message.data for message in requests)    # in grpcio's handler of Control.Session
    peer = Peer(stream)
    for data in stream.outgoing():
        yield BytesMessage(data=data)

Invariants: `close` wakes whoever is in `send` or `receive`; nothing is buffered without a bound; a descriptor is closed
only when no thread is inside a call on it, so that its number cannot mean another file meanwhile.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

READ_SIZE = 256 << 10
MAX_QUEUED = 1 << 20
MAX_PIECE = 256 << 10


class ByteStream(Protocol):
    """Bytes both ways. One thread may send while another receives; `close` may come from any."""

    def send(self, data: bytes) -> None:
        """Send all of `data`; block as long as the far side takes none.

        Raises:
            OSError: the stream is closed or broken.
        """

    def receive(self) -> bytes:
        """Return the next bytes, at least one; b"" at the end.

        Raises:
            OSError: the stream is broken.
        """

    def close(self) -> None:
        """End the stream both ways; idempotent; never blocks."""


@runtime_checkable
class EagerStream(Protocol):
    """A stream that can also say how much it takes at once, which saves handing bytes to another thread."""

    def offer(self, data: bytes) -> int:
        """Send as much of `data` as goes without waiting; return how much that was.

        Raises:
            OSError: the stream is closed or broken.
        """


class SocketStream:
    """A connected stream socket, which belongs to this object from now on."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        connected.settimeout(None)
        self._lock = threading.Lock()
        self._users = 0
        self._closed = False

    def send(self, data: bytes) -> None:
        """See `ByteStream`."""
        self._enter()
        try:
            self._socket.sendall(data)
        finally:
            self._leave()

    def offer(self, data: bytes) -> int:
        """See `EagerStream`."""
        self._enter()
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        finally:
            self._leave()

    def receive(self) -> bytes:
        """See `ByteStream`."""
        try:
            self._enter()
        except OSError:
            return b""
        try:
            return self._socket.recv(READ_SIZE)
        finally:
            self._leave()

    def close(self) -> None:
        """See `ByteStream`."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the far side was faster
            if not self._users:
                self._socket.close()

    def _enter(self) -> None:
        with self._lock:
            if self._closed:
                raise OSError("the stream is closed")
            self._users += 1

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._closed and not self._users:
                self._socket.close()


class MessageStream:
    """Bytes that travel as messages of a call somebody else serves.

    Args:
        incoming: gives the far side's bytes, piece by piece; ends or raises when the call does.
        stop: called once by `close`; must make a blocked `incoming` end (of grpcio: the context's `cancel`).
        limit: bytes that may wait to be taken from `outgoing`.
    """

    def __init__(
        self, incoming: Iterator[bytes], *, stop: Callable[[], object] = lambda: None, limit: int = MAX_QUEUED
    ) -> None:
        self._incoming = incoming
        self._stop = stop
        self._limit = limit
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._changed = threading.Condition()
        self._closed = False

    def send(self, data: bytes) -> None:
        """See `ByteStream`."""
        with self._changed:
            while self._queued >= self._limit and not self._closed:
                self._changed.wait()
            self._put(data)

    def offer(self, data: bytes) -> int:
        """See `EagerStream`: all or nothing."""
        with self._changed:
            if self._queued >= self._limit and not self._closed:
                return 0
            self._put(data)
            return len(data)

    def _put(self, data: bytes) -> None:
        if self._closed:
            raise OSError("the stream is closed")
        if data:
            self._queue.append(data)
            self._queued += len(data)
            self._changed.notify_all()

    def receive(self) -> bytes:
        """See `ByteStream`; empty pieces are passed over."""
        while not self._closed:
            data = next(self._incoming, None)
            if data is None:
                break
            if data:
                return data
        return b""

    def close(self) -> None:
        """See `ByteStream`. What is queued can still be taken from `outgoing`."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._stop()

    def outgoing(self) -> Iterator[bytes]:
        """Give what is to be sent, small pieces joined and large ones cut, until the stream is closed."""
        while True:
            with self._changed:
                while not self._queue and not self._closed:
                    self._changed.wait()
                if not self._queue:
                    return
                joined = b"".join(self._queue)
                self._queue.clear()
                self._queued = 0
                self._changed.notify_all()
            for start in range(0, len(joined), MAX_PIECE):
                yield joined[start : start + MAX_PIECE]
