"""Streams of bytes that a tunnel runs through: a socket, or the messages of a gRPC call.

A stream may be used from two threads, one that sends and one that receives; `close` may come from a third.
"""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol

_CHUNK_BYTES = 256 << 10
_MOST_WAITING = 1 << 20


class ByteStream(Protocol):
    """Bytes both ways, in order."""

    def send(self, data: bytes) -> None:
        """Send all of it; blocks while the other end does not take any. Raises OSError when the stream has ended."""

    def receive(self) -> bytes:
        """Return what has come, at least one byte; b"" when the stream has ended."""

    def close(self) -> None:
        """End the stream; whoever is blocked in it goes on. Idempotent."""


class SocketStream:
    """A connected stream socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self._connection.sendall(data)

    def receive(self) -> bytes:
        """Return what has come."""
        try:
            return self._connection.recv(_CHUNK_BYTES)
        except OSError:
            return b""

    def close(self) -> None:
        """Shut the connection; the socket itself belongs to who made it."""
        try:
            self._connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


class MessageStream:
    """Bytes in the messages of a call that goes both ways: what comes is iterated over, what goes is iterated out.

    Invariant: at most `_MOST_WAITING` bytes (and one piece) wait to be taken by `outgoing`.
    """

    def __init__(self, incoming: Iterable[bytes]) -> None:
        self._incoming = iter(incoming)
        self._outgoing: deque[bytes] = deque()
        self._waiting = 0
        self._closed = False
        self._changed = threading.Condition()

    def send(self, data: bytes) -> None:
        """Queue the bytes; waits while too many are waiting."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting < _MOST_WAITING)
            if self._closed:
                raise OSError("the stream has ended")
            self._outgoing.append(data)
            self._waiting += len(data)
            self._changed.notify_all()

    def receive(self) -> bytes:
        """Return the next message that is not empty."""
        try:
            return next((data for data in self._incoming if data), b"")
        except Exception:  # grpcio raises a bare Exception when the call has ended
            return b""

    def close(self) -> None:
        """End the stream."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def outgoing(self) -> Iterator[bytes]:
        """Yield what is sent, until the stream has ended."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._outgoing)
                if not self._outgoing:
                    return
                data = b"".join(self._outgoing)
                self._outgoing.clear()
                self._waiting = 0
                self._changed.notify_all()
            yield data
