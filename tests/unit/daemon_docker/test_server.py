"""The docker API's server: many connections, too many, and its end."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lamina.daemon.docker.routes import Request, Routes
from lamina.daemon.docker.server import DockerServer
from lamina.daemon.unix_socket import unix_listener
from unit.daemon_docker.support import PATIENCE_S, UnixClient, routes_of


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE_S)
    client.connect(str(path))
    return client


@contextmanager
def serving(routes: Routes, path: Path, **options: int) -> Iterator[None]:
    with unix_listener(str(path)) as listener:
        server = DockerServer(routes, [listener], **options)
        server.start()
        try:
            yield
        finally:
            server.close()


def test_closing_cuts_connections_and_waits_for_what_they_do(tmp_path: Path):
    begun, ended = threading.Event(), threading.Event()

    def slow(request: Request) -> None:
        with request.exchange.gone() as cancel:
            begun.set()
            cancel.wait(PATIENCE_S)
        ended.set()

    path = tmp_path / "s"
    with unix_listener(str(path)) as listener:
        server = DockerServer(routes_of({"GET /slow": slow}), [listener])
        server.start()
        with connect(path) as client:
            client.sendall(b"GET /slow HTTP/1.1\r\nHost: d\r\n\r\n")
            assert begun.wait(PATIENCE_S)
            server.close()
            assert ended.is_set()
            assert client.recv(10) == b""
        server.close()


def test_more_connections_than_allowed_are_turned_away(tmp_path: Path):
    path = tmp_path / "s"
    routes = routes_of({"GET /x": lambda request: request.exchange.reply(200, 1)})
    with serving(routes, path, max_connections=1), connect(path) as first:
        first.sendall(b"GET /x HTTP/1.1\r\nHost: d\r\n\r\n")
        assert first.recv(100).startswith(b"HTTP/1.1 200")
        with connect(path) as second:
            assert second.recv(10) == b""
        first.sendall(b"GET /x HTTP/1.1\r\nHost: d\r\n\r\n")
        assert first.recv(1000)


def test_the_standard_library_is_served(tmp_path: Path):
    path = tmp_path / "s"
    routes = routes_of({"POST /e": lambda request: request.exchange.reply(200, request.exchange.body(9).decode())})
    with serving(routes, path):
        client = UnixClient(str(path))
        for text in (b"one", b"two"):
            client.request("POST", "/v1.30/e", body=text)
            assert client.getresponse().read() == b'"' + text + b'"\n'
        client.request("GET", "/nope")
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (404, b'{"message": "page not found"}\n')
        client.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:2375"}, 200),
        ({"Host": "[::1]:2375"}, 200),
        ({"Host": "rebound.example"}, 403),
        ({"Host": "127.0.0.1.example"}, 403),
        ({"Origin": "http://example.com"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_a_web_page_cannot_use_what_its_reader_may(headers: dict[str, str], status: int):
    routes = routes_of({"POST /x": lambda request: request.exchange.reply(200, 1)})
    listener = socket.create_server(("127.0.0.1", 0))
    server = DockerServer(routes, [listener])
    server.start()
    try:
        client = http.client.HTTPConnection(*listener.getsockname(), timeout=PATIENCE_S)
        client.request("POST", "/x", headers=headers)
        assert client.getresponse().status == status
        client.close()
    finally:
        server.close()
