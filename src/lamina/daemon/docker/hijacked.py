"""Connections that leave HTTP/1.1: `/session` and `/grpc`, both HTTP/2 over what was one request.

`/session`: the client is the server of that HTTP/2 connection, and the daemon calls it (context, secrets, ...).
`/grpc`: the client calls the daemon's gRPC services (Control), as buildx does.
"""

from __future__ import annotations

import socket
import threading

from lamina.daemon.docker.failures import ApiError
from lamina.daemon.docker.routes import Request, Routes
from lamina.daemon.sessions import Sessions, info_of
from lamina.rpc.server import Server
from lamina.tunnel.peer import Peer
from lamina.tunnel.streams import SocketStream

PROTOCOL = "h2c"


class HijackedStream(SocketStream):
    """A socket of which the first bytes were read before. `tunnel.streams.ByteStream`."""

    def __init__(self, connected: socket.socket, first: bytes) -> None:
        super().__init__(connected)
        self._first, self._guard = first, threading.Lock()

    def receive(self) -> bytes:
        """See `ByteStream`."""
        with self._guard:
            first, self._first = self._first, b""
        return first or super().receive()


class Hijacked:
    """Handlers for both.

    Args:
        server: serves the gRPC services; None where they are not to be had here.
    """

    def __init__(self, sessions: Sessions, server: Server | None) -> None:
        self._sessions, self._server = sessions, server

    def register(self, routes: Routes) -> None:
        """Add the handlers."""
        routes.add("POST", "/session", self.session)
        routes.add("POST", "/grpc", self.grpc)

    def session(self, request: Request) -> None:
        """Hold a client's session for as long as the connection lasts."""
        info = info_of(request.exchange.headers)
        # only when the name is free does the connection change hands: till then the client can be answered
        self._sessions.hold(info, lambda: Peer(HijackedStream(*request.exchange.hijack(PROTOCOL))))

    def grpc(self, request: Request) -> None:
        """Let the client speak to the gRPC services."""
        if self._server is None:
            raise ApiError(501, "this daemon offers gRPC on a socket of its own only")
        self._server.serve(HijackedStream(*request.exchange.hijack(PROTOCOL)))
