"""The docker API's server: many connections, too many, and its end."""

from __future__ import annotations

import http.client
import socket
import threading
from pathlib import Path

import pytest

from lamina.daemon.docker.routes import Request
from lamina.daemon.docker.server import DockerServer
from lamina.daemon.listening import listen
from lamina.errors import InputError, MachineError
from unit.daemon_docker.support import PATIENCE_S, UnixClient, routes_of


def connect(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE_S)
    client.connect(str(path))
    return client


def test_closing_cuts_connections_and_waits_for_what_they_do(tmp_path: Path):
    begun, ended = threading.Event(), threading.Event()

    def slow(request: Request) -> None:
        with request.exchange.gone() as cancel:
            begun.set()
            cancel.wait(PATIENCE_S)
        ended.set()

    path = tmp_path / "s"
    server = DockerServer(routes_of({"GET /slow": slow}), [listen(f"unix://{path}")])
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
    server = DockerServer(routes, [listen(f"unix://{path}")], max_connections=1)
    server.start()
    try:
        with connect(path) as first:
            first.sendall(b"GET /x HTTP/1.1\r\nHost: d\r\n\r\n")
            assert first.recv(100).startswith(b"HTTP/1.1 200")
            with connect(path) as second:
                assert second.recv(10) == b""
            first.sendall(b"GET /x HTTP/1.1\r\nHost: d\r\n\r\n")
            assert first.recv(1000)
    finally:
        server.close()


def test_the_standard_library_is_served(tmp_path: Path):
    path = tmp_path / "s"
    routes = routes_of({"POST /e": lambda request: request.exchange.reply(200, request.exchange.body(9).decode())})
    server = DockerServer(routes, [listen(f"unix://{path}")])
    server.start()
    try:
        client = UnixClient(str(path))
        for text in (b"one", b"two"):
            client.request("POST", "/v1.30/e", body=text)
            assert client.getresponse().read() == b'"' + text + b'"\n'
        client.request("GET", "/nope")
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (404, b'{"message": "page not found"}\n')
        client.close()
    finally:
        server.close()


def test_a_dead_daemons_socket_is_taken_over_and_a_living_ones_is_not(tmp_path: Path):
    address = f"unix://{tmp_path / 'deep' / 's'}"
    listen(address).close()  # the file stays
    with listen(address) as living:
        assert (tmp_path / "deep" / "s").stat().st_mode & 0o777 == 0o660
        with pytest.raises(MachineError, match="another daemon"):
            listen(address)
        assert living.fileno() >= 0
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MachineError, match="something else"):
        listen(f"unix://{tmp_path / 'file'}")


@pytest.mark.parametrize(
    "address",
    ["/run/x", "unix://x", "tcp://", "tcp://127.0.0.1", "http://127.0.0.1:1", "tcp://127.0.0.1:99999"],
)
def test_what_is_no_address_is_refused(address: str):
    with pytest.raises(InputError):
        listen(address)


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:0", "tcp://192.0.2.1:2375", "tcp://example.com:2375", "tcp://[::]:0"]
)
def test_other_machines_are_not_let_in_without_tls(address: str):
    with pytest.raises(InputError):
        listen(address)


def test_loopback_may_be_listened_on():
    with listen("tcp://127.0.0.1:0") as listener:
        assert listener.getsockname()[1] > 0


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
    listener = listen("tcp://127.0.0.1:0")
    server = DockerServer(routes, [listener])
    server.start()
    try:
        client = http.client.HTTPConnection(*listener.getsockname(), timeout=PATIENCE_S)
        client.request("POST", "/x", headers=headers)
        assert client.getresponse().status == status
        client.close()
    finally:
        server.close()
