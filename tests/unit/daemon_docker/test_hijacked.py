"""E1: a client's session on a connection that began as HTTP/1.1."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from lamina.cancel import Cancel
from lamina.daemon.docker.hijacked import Hijacked, HijackedStream
from lamina.daemon.docker.routes import Routes
from lamina.daemon.docker.server import DockerServer
from lamina.daemon.sessions import Sessions
from unit.daemon_docker.support import PATIENCE_S, Wire

REQUEST = (
    "POST /session HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    "X-Docker-Expose-Session-Uuid: one\r\nX-Docker-Expose-Session-Name: people\r\n"
    "X-Docker-Expose-Session-Sharedkey: key\r\n"
    "X-Docker-Expose-Session-Grpc-Method: /moby.filesync.v1.FileSync/DiffCopy\r\n"
    "X-Docker-Expose-Session-Grpc-Method: /moby.filesync.v1.Auth/Credentials\r\n\r\n"
)


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


@pytest.fixture
def client(sessions: Sessions) -> Iterator[Wire]:
    found = connect(sessions)
    yield found
    found.close()


def connect(sessions: Sessions) -> Wire:
    routes = Routes()
    Hijacked(sessions, None).register(routes)
    return Wire(DockerServer(routes, []))


def test_a_session_is_there_for_as_long_as_its_connection(sessions: Sessions, client: Wire):
    client.send(REQUEST.encode())
    assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101")
    info = sessions.wait("one", Cancel()).info
    assert client.until(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")  # the daemon is the client now
    client.socket.close()
    client.thread.join(PATIENCE_S)

    assert (info.id, info.name, info.shared_key) == ("one", "people", "key")
    assert info.methods == {"/moby.filesync.v1.FileSync/DiffCopy", "/moby.filesync.v1.Auth/Credentials"}
    assert not client.thread.is_alive()


def test_a_name_that_is_taken_is_refused_in_words(sessions: Sessions, client: Wire):
    client.send(REQUEST.encode())
    client.until(b"\r\n\r\n")
    sessions.wait("one", Cancel())
    second = connect(sessions)
    try:
        second.send(REQUEST.encode())
        assert second.until(b"}\n").startswith(b"HTTP/1.1 409")
        second.socket.close()
    finally:
        second.close()


def test_a_session_without_a_name_is_refused(client: Wire):
    client.send(REQUEST.replace("X-Docker-Expose-Session-Uuid: one\r\n", "").encode())

    assert client.until(b"}\n").startswith(b"HTTP/1.1 400")


def test_grpc_is_refused_where_there_is_none(client: Wire):
    client.send(REQUEST.replace("/session", "/grpc").encode())

    assert client.until(b"}\n").startswith(b"HTTP/1.1 501")


def test_what_was_read_before_comes_first():
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = HijackedStream(theirs, b"first")
        threading.Thread(target=ours.sendall, args=(b"second",)).start()
        assert stream.receive() == b"first"
        assert stream.receive() == b"second"
        stream.close()
        assert stream.receive() == b""
