"""Talking to a `DockerServer` byte for byte, and a store with images in it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lamina.daemon.docker.images import Images
from lamina.daemon.docker.routes import Request, Routes
from lamina.daemon.docker.server import DockerServer
from lamina.image.assemble import assemble
from lamina.store.store import Store
from unit.exporter.support import add_layer, config_of

PATIENCE_S = 60


def routes_of(handlers: dict[str, Callable[[Request], None]]) -> Routes:
    """Return routes by `METHOD /path`."""
    routes = Routes()
    for line, handler in handlers.items():
        routes.add(*line.split(" "), handler)
    return routes


class Wire:
    """A connection to a server: raw bytes out, raw bytes in."""

    def __init__(self, server: DockerServer) -> None:
        self.socket, self._theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE_S)
        self.thread = threading.Thread(target=self._serve, args=(server,))
        self.thread.start()

    def _serve(self, server: DockerServer) -> None:
        with self._theirs:
            server.serve(self._theirs)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def until(self, mark: bytes) -> bytes:
        """Return what comes up to the mark, with it."""
        found = b""
        while not found.endswith(mark):
            data = self.socket.recv(1)
            assert data, found
            found += data
        return found

    def rest(self) -> bytes:
        """Return what comes until the other end closes."""
        found = b""
        while True:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                return found
            if not data:
                return found
            found += data

    def close(self) -> None:
        self.socket.close()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()


@contextmanager
def wire(handlers: dict[str, Callable[[Request], None]]) -> Iterator[Wire]:
    """Connect to a server with these handlers."""
    found = Wire(DockerServer(routes_of(handlers), []))
    try:
        yield found
    finally:
        found.close()


class UnixClient(http.client.HTTPConnection):
    """The standard library's client on a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(self._path)


class Shelf:
    """Handlers over a store in a folder, asked as a client asks."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "oci", durable=False)
        self._routes = Routes()
        Images(folder).register(self._routes)

    def add(self, *names: str, labels: dict[str, str] | None = None, created: str = "", text: bytes = b"") -> str:
        """Add an image of two layers under names, or without one, and return its ID."""
        config = config_of()
        config["config"]["Labels"] = labels or {}
        config["created"] = created or config["created"]
        layers = [add_layer(self.store, {"a": b"one"}), add_layer(self.store, {"b": text or b"two"})]
        image = assemble(layers, config)
        for raw in (image.config.raw, image.manifest.raw):
            self.store.add(raw)
        for name in names or ("",):
            self.store.tag(name, replace(image.descriptor, platform=None))
        return str(image.id)

    def ask(self, method: str, path: str) -> tuple[int, Any]:
        """Ask, and return status and document."""
        found = Wire(DockerServer(self._routes, []))
        try:
            found.send(f"{method} {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n".encode())
            head, _, body = found.rest().partition(b"\r\n\r\n")
            return int(head.split(b" ")[1]), json.loads(body) if body else None
        finally:
            found.close()
