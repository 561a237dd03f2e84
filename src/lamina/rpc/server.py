"""Listens on sockets and serves what connects: a thread for each connection, one for each call."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable

from lamina.api.services import Service
from lamina.rpc.call import Handler
from lamina.rpc.connection import Connection, Serving
from lamina.tunnel.streams import ByteStream, SocketStream

MAX_CALLS = 4096
"""Calls under way at a time, of all connections."""
MAX_CONNECTIONS = 1024
_log = logging.getLogger(__name__)

Wrap = Callable[[socket.socket], ByteStream]
"""Makes a stream of a connection that was accepted; may speak TLS first. Called in the connection's own thread."""


def table(*services: tuple[Service, dict[str, Handler]]) -> Serving:
    """Return what `Server` serves: for each service its handlers by the methods' short names."""
    found = {}
    for service, handlers in services:
        for name, handler in handlers.items():
            method = service.methods[name]
            found[method.path] = (method, handler)
    return found


class Server:
    """Serves connections until it is stopped."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._running: set[threading.Thread] = set()
        self._listeners: list[socket.socket] = []
        self._connections: set[Connection] = set()
        self._changed = threading.Condition()
        self._stopping = False

    def listen(self, listener: socket.socket, wrap: Wrap = SocketStream) -> None:
        """Accept connections on a listening socket, which belongs to the server from now on."""
        self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener, wrap), name="rpc-accept", daemon=True).start()

    def serve(self, stream: ByteStream) -> None:
        """Serve one connection in this thread, until it ends."""
        connection = Connection(stream, self._serving, self._start)
        with self._changed:
            if self._stopping or len(self._connections) >= MAX_CONNECTIONS:
                stream.close()
                return
            self._connections.add(connection)
        try:
            connection.serve()
        finally:
            with self._changed:
                self._connections.discard(connection)
                self._changed.notify_all()

    def stop(self, patience_s: float = 0.0) -> None:
        """Take no new connections and calls, wait for calls under way, and end what is left after the time."""
        with self._changed:
            self._stopping = True
            connections = list(self._connections)
        for listener in self._listeners:
            try:
                listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            listener.close()
        for connection in connections:
            connection.drain()
        deadline = time.monotonic() + patience_s
        while any(connection.calls for connection in connections) and time.monotonic() < deadline:
            time.sleep(0.02)
        for connection in connections:
            connection.close()
        with self._changed:
            running = list(self._running)
        for thread in running:
            thread.join()

    def _start(self, carry_out: Callable[[], None]) -> bool:
        """Run a call in a thread of its own, which ends with it; False when too many run."""

        def run() -> None:
            try:
                carry_out()
            finally:
                with self._changed:
                    self._running.discard(thread)

        thread = threading.Thread(target=run, name="call", daemon=True)
        with self._changed:
            if len(self._running) >= MAX_CALLS:
                return False
            self._running.add(thread)
        thread.start()
        return True

    def _accept(self, listener: socket.socket, wrap: Wrap) -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError as error:
                if self._stopping or listener.fileno() < 0:
                    return
                _log.warning("cannot accept a connection: %s", error)
                time.sleep(0.1)  # out of descriptors, say: there is nothing to do but wait
                continue
            threading.Thread(target=self._begin, args=(accepted, wrap), name="rpc-read", daemon=True).start()

    def _begin(self, accepted: socket.socket, wrap: Wrap) -> None:
        try:
            stream = wrap(accepted)
        except OSError as error:
            _log.info("a client did not get through: %s", error)
            accepted.close()
            return
        self.serve(stream)


def services_of(*groups: Iterable[tuple[Service, dict[str, Handler]]]) -> Serving:
    """Return one table of several groups of services."""
    return table(*(pair for group in groups for pair in group))
