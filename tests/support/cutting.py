"""A TCP proxy on loopback that counts what goes through it, and goes down after so many bytes."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_CHUNK = 16 << 10
_RESET = struct.pack("ii", 1, 0)


class CuttingProxy:
    """Forwards connections to one server.

    Attributes:
        port: where it listens.
        moved: bytes that went through, both ways.
        limit: when so many went through, every connection is reset and no new one is served; None for never.
        once: only the connections that there are then are reset; later ones are served without a limit.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.moved = 0
        self.limit: int | None = None
        self.once = False
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def is_down(self) -> bool:
        """Whether the limit was reached."""
        return self.limit is not None and self.moved >= self.limit

    def close(self) -> None:
        """Stop listening, and end what is open."""
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._reset_all()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.is_down:
                _reset(client)
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                _reset(client)
                continue
            with self._guard:
                self._open |= {client, server}
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=(one, other), daemon=True).start()

    def _forward(self, from_: socket.socket, to: socket.socket) -> None:
        with suppress(OSError):
            while data := from_.recv(_CHUNK):
                with self._guard:
                    room = len(data) if self.limit is None else max(0, self.limit - self.moved)
                    self.moved += min(room, len(data))
                to.sendall(data[:room])
                if room < len(data) or self.is_down:
                    if self.once:
                        self.limit = None
                    self._reset_all()
                    return
            to.shutdown(socket.SHUT_WR)
            return
        with suppress(OSError):
            to.shutdown(socket.SHUT_RDWR)

    def _reset_all(self) -> None:
        with self._guard:
            doomed, self._open = self._open, set()
        for one in doomed:
            _reset(one)


def _reset(connection: socket.socket) -> None:
    """Close a connection so that its other end sees an error, and no orderly end."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def cutting_proxy(port: int) -> Iterator[CuttingProxy]:
    """Run a proxy before the server at that port."""
    proxy = CuttingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
