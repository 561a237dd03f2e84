"""Connections that leave HTTP/1.1: `/session` and `/grpc`, both HTTP/2 over what was one request.

`/session`: the client is the server of that HTTP/2 connection, and the daemon calls it (context, secrets, ...).
`/grpc`: the client calls the daemon's gRPC services (Control), as buildx does.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

from lamina.daemon.docker.failures import ApiError
from lamina.daemon.docker.routes import Request, Routes
from lamina.daemon.sessions import Sessions, info_of
from lamina.tunnel.peer import Peer
from lamina.tunnel.streams import SocketStream

PROTOCOL = "h2c"
_CHUNK_BYTES = 256 << 10

Pump = Callable[[socket.socket, bytes], None]
"""Carries a connection to the gRPC server until either side ends; the bytes are what was read of it already."""


def pump_to(path: Path) -> Pump:
    """Return what carries connections to the unix socket at `path`."""

    def pump(connected: socket.socket, first: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as inner:
            inner.connect(str(path))
            inner.sendall(first)
            back = threading.Thread(target=_carry, args=(inner, connected), name="docker-grpc", daemon=True)
            back.start()
            _carry(connected, inner)
            back.join()

    return pump


def _carry(source: socket.socket, target: socket.socket) -> None:
    """Carry what comes from one socket to the other until it ends, and then say so."""
    try:
        while data := source.recv(_CHUNK_BYTES):
            target.sendall(data)
    except OSError:
        _shut(source, socket.SHUT_RDWR)
    _shut(target, socket.SHUT_WR)


def _shut(connected: socket.socket, how: int) -> None:
    try:
        connected.shutdown(how)
    except OSError:
        pass


class HijackedStream(SocketStream):
    """A socket of which the first bytes were read before. `tunnel.streams.ByteStream`."""

    def __init__(self, connected: socket.socket, first: bytes) -> None:
        super().__init__(connected)
        self._first, self._guard = first, threading.Lock()

    def receive(self) -> bytes:
        """Return what has come."""
        with self._guard:
            first, self._first = self._first, b""
        return first or super().receive()


class Hijacked:
    """Handlers for both.

    Args:
        pump: None where no gRPC server is at hand.
    """

    def __init__(self, sessions: Sessions, pump: Pump | None) -> None:
        self._sessions, self._pump = sessions, pump

    def register(self, routes: Routes) -> None:
        """Add the handlers."""
        routes.add("POST", "/session", self.session)
        routes.add("POST", "/grpc", self.grpc)

    def session(self, request: Request) -> None:
        """Hold a client's session for as long as the connection lasts."""
        info = info_of(request.exchange.headers)
        connected, first = request.exchange.hijack(PROTOCOL)
        self._sessions.hold(info, lambda: Peer(HijackedStream(connected, first)))

    def grpc(self, request: Request) -> None:
        """Let the client speak to the gRPC services."""
        if self._pump is None:
            raise ApiError(501, "this daemon offers gRPC on a socket of its own only")
        self._pump(*request.exchange.hijack(PROTOCOL))
