"""Serves docker's API on listening sockets: one thread for each connection, a limit to how many, and an end.

What handlers raise becomes a status, or, once a stream has begun, whatever the handler made of it.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
from collections.abc import Sequence

from lamina import __version__
from lamina.daemon.docker.exchange import Connection, Exchange, GoneError
from lamina.daemon.docker.failures import ApiError, status_of, text_of
from lamina.daemon.docker.routes import API_VERSION, Request, Routes, version_text
from lamina.errors import CancelledError, Error

MAX_CONNECTIONS = 512
"""Connections at once; a build has two or three. Who comes beyond that is told nothing but good-bye."""
_JOIN_S = 10.0
_PAUSE_S = 0.1
_COMMON = (
    ("Api-Version", version_text(API_VERSION)),
    ("Docker-Experimental", "false"),
    ("Ostype", "linux"),
    ("Server", f"lamina/{__version__} (linux)"),
)
_log = logging.getLogger(__name__)


class DockerServer:
    """Accepts connections until it is closed. The listening sockets stay the caller's to make, and are closed here.

    Args:
        routes: what requests mean.
        listeners: bound, listening stream sockets.
    """

    def __init__(
        self, routes: Routes, listeners: Sequence[socket.socket], *, max_connections: int = MAX_CONNECTIONS
    ) -> None:
        self._routes, self._listeners, self._most = routes, list(listeners), max_connections
        self._open: dict[socket.socket, threading.Thread] = {}
        self._guard = threading.Lock()
        self._closing = False
        self._ended = threading.Event()
        self._accepting = [
            threading.Thread(target=self._accept, args=(listener,), name="docker-accept", daemon=True)
            for listener in self._listeners
        ]

    def start(self) -> None:
        """Begin to accept; returns at once."""
        for thread in self._accepting:
            thread.start()

    def close(self) -> None:
        """Stop accepting, cut all connections, and wait for their threads. Idempotent."""
        self._ended.set()
        with self._guard:
            self._closing = True
            threads = list(self._open.values())
            for connected in self._open:
                _shut(connected)
        for listener in self._listeners:
            _shut(listener)
        for thread in (*self._accepting, *threads):
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(_JOIN_S)
        for listener in self._listeners:
            listener.close()

    def serve(self, connected: socket.socket, first: bytes = b"") -> None:
        """Serve one connection until its end; the socket stays the caller's to close.

        Args:
            first: what was read of it already.
        """
        connection = Connection(connected, first=first)
        try:
            while (exchange := connection.next()) is not None:
                self._answer(exchange)
                if not connection.finish():
                    connection.linger()
                    return
        except GoneError as gone:
            _log.debug("a client of the docker API went away: %s", gone)
            connection.linger()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError as error:
                if self._closing or listener.fileno() < 0:
                    return
                _log.warning("docker API: cannot accept: %s", error)
                self._ended.wait(_PAUSE_S)  # out of descriptors: others end meanwhile
                continue
            thread = threading.Thread(target=self._serve, args=(connected,), name="docker", daemon=True)
            with self._guard:
                if self._closing or len(self._open) >= self._most:
                    connected.close()
                    continue
                self._open[connected] = thread
            thread.start()

    def _serve(self, connected: socket.socket) -> None:
        try:
            self.serve(connected)
        except Exception:
            _log.exception("docker API: a connection failed")
        finally:
            with self._guard:
                del self._open[connected]
            connected.close()

    @staticmethod
    def _refuse_browsers(exchange: Exchange) -> None:
        """Refuse what a web page made a browser on this machine send: it may not use what its user may.

        Docker's clients send no `Origin`; and by TCP a name that only resolves to this machine is not its name.

        Raises:
            ApiError: 403.
        """
        is_tcp = exchange.family in (socket.AF_INET, socket.AF_INET6)
        if exchange.header("origin") or (is_tcp and not _is_loopback(exchange.header("host"))):
            raise ApiError(403, "this is for docker's clients on this machine only")

    def _answer(self, exchange: Exchange) -> None:
        exchange.reply_headers = list(_COMMON)
        try:
            self._refuse_browsers(exchange)
            handler, version, names, query = self._routes.find(exchange.method, exchange.target)
            handler(Request(exchange, version, names, query))
        except GoneError:
            raise
        except Exception as error:
            status = status_of(error)
            if not isinstance(error, Error):
                _log.error("docker API: %s failed", exchange.target.partition("?")[0], exc_info=error)
            if exchange.started:
                raise GoneError("a stream was cut off by an error") from error
            if isinstance(error, CancelledError):
                raise GoneError("cancelled") from error
            exchange.reply(status, {"message": text_of(error)})


def _is_loopback(host: str) -> bool:
    """Tell whether a `Host` header names this machine."""
    name = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
