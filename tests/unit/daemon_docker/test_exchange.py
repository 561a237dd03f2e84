"""E6: HTTP/1.1 on a connection, with clients that are slow, odd or hostile."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.daemon.docker.exchange import MAX_HEAD, Connection, GoneError
from lamina.daemon.docker.routes import Request
from lamina.daemon.docker.server import DockerServer
from lamina.errors import InputError
from unit.daemon_docker.support import PATIENCE_S, Wire, routes_of, wire

HOST = b"Host: docker\r\n"


def hello(request: Request) -> None:
    request.exchange.reply(200, {"name": request.names.get("name", "")})


def echo(request: Request) -> None:
    request.exchange.reply(200, request.exchange.body(100).decode())


def body_of(answer: bytes) -> object:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def test_a_connection_serves_one_request_after_the_other():
    with wire({"GET /a/{name}": hello}) as client:
        client.send(b"GET /a/1 HTTP/1.1\r\n" + HOST + b"\r\nGET /v1.41/a/2 HTTP/1.1\r\n" + HOST + b"\r\n")
        first, second = client.until(b"}\n"), client.until(b"}\n")

    assert (body_of(first), body_of(second)) == ({"name": "1"}, {"name": "2"})
    assert b"api-version: 1.47\r\n" in first.lower()


def test_head_is_answered_without_a_body():
    with wire({"HEAD /x": lambda request: request.exchange.reply(200, {"a": 1})}) as client:
        client.send(b"HEAD /x HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        answer = client.rest()

    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"\r\n\r\n")


def test_a_body_may_come_in_chunks():
    with wire({"POST /e": echo}) as client:
        client.send(
            b"POST /e HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        )
        assert body_of(client.until(b'"\n')) == "abcde"


def test_who_waits_for_100_is_told_to_go_on_only_when_the_body_is_wanted():
    head = HOST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    with wire({"POST /e": echo, "POST /no": hello}) as client:
        client.send(b"POST /e HTTP/1.1\r\n" + head)
        assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        client.send(b"abc")
        assert body_of(client.until(b'"\n')) == "abc"
        client.send(b"POST /no HTTP/1.1\r\n" + head)
        assert client.until(b"}\n").startswith(b"HTTP/1.1 200")


def test_a_body_has_a_limit_where_it_is_kept():
    with wire({"POST /e": echo}) as client:
        client.send(b"POST /e HTTP/1.1\r\n" + HOST + b"Content-Length: 101\r\n\r\n" + b"x" * 101)
        assert client.until(b"}\n").startswith(b"HTTP/1.1 413")


def test_who_is_refused_before_the_body_was_read_gets_to_read_why():
    """The connection must not be reset under an answer that the client has not read yet."""

    def refuse(_request: Request) -> None:
        raise InputError("not this")

    with wire({"POST /load": refuse}) as client:
        client.send(b"POST /load HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            client.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        answer = client.until(b"}\n")
        client.socket.shutdown(socket.SHUT_WR)

    assert answer.startswith(b"HTTP/1.1 400")
    assert body_of(answer) == {"message": "not this"}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS
        (b"GET / HTTP/1.1\r\n" + HOST + b"X : y\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"y" * (MAX_HEAD + 10), 431),
    ],
)
def test_what_is_no_request_is_refused(request_: bytes, status: int):
    with wire({"GET /": hello}) as client:
        client.send(request_)
        client.socket.shutdown(socket.SHUT_WR)
        answer = client.rest()

    assert int(answer.split(b" ")[1]) in (status, 400)
    assert set(body_of(answer)) == {"message"}


def test_a_head_that_does_not_end_is_not_waited_for_forever():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"GET / HT")
        with pytest.raises(GoneError):
            Connection(theirs, head_s=0.01).next()


def test_a_body_that_ends_early_is_no_body():
    seen: list[BaseException] = []

    def read(request: Request) -> None:
        try:
            request.exchange.body(100)
        except GoneError as error:
            seen.append(error)
            raise

    with wire({"POST /e": read}) as client:
        client.send(b"POST /e HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\nabc")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.rest() == b""

    assert len(seen) == 1


def test_pieces_of_a_body_are_no_larger_than_asked():
    seen: list[bytes] = []

    def read(request: Request) -> None:
        while data := request.exchange.read(3):
            seen.append(data)
        request.exchange.reply(200)

    with wire({"POST /e": read}) as client:
        client.send(b"POST /e HTTP/1.1\r\n" + HOST + b"Content-Length: 8\r\nConnection: close\r\n\r\nabcdefgh")
        client.rest()

    assert b"".join(seen) == b"abcdefgh"
    assert max(map(len, seen)) <= 3


def test_a_stream_that_breaks_does_not_look_complete():
    def broken(request: Request) -> None:
        with request.exchange.stream("text/plain") as stream:
            stream.write(b"half")
            raise InputError("the disk is gone")

    with wire({"GET /s": broken}) as client:
        client.send(b"GET /s HTTP/1.1\r\n" + HOST + b"\r\n")
        answer = client.rest()

    assert b"4\r\nhalf\r\n" in answer
    assert not answer.endswith(b"0\r\n\r\n")


def test_a_client_that_leaves_cancels_what_is_done_for_it():
    begun = threading.Event()
    cancelled = threading.Event()

    def slow(request: Request) -> None:
        with request.exchange.gone() as cancel:
            begun.set()
            if cancel.wait(PATIENCE_S):
                cancelled.set()
        request.exchange.reply(200)

    with wire({"POST /b": slow}) as client:
        client.send(b"POST /b HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n")
        assert begun.wait(PATIENCE_S)
        client.socket.close()
        assert cancelled.wait(PATIENCE_S)


def test_a_client_that_stays_is_not_cancelled():
    def quick(request: Request) -> None:
        with request.exchange.gone() as cancel:
            pass
        request.exchange.reply(200, cancel.is_cancelled())

    with wire({"GET /b": quick}) as client:
        client.send(b"GET /b HTTP/1.1\r\n" + HOST + b"\r\n")
        assert body_of(client.until(b"e\n")) is False


def test_a_connection_is_handed_over_with_what_was_read_of_it():
    def session(request: Request) -> None:
        connected, first = request.exchange.hijack("h2c")
        connected.sendall(b"heard " + first + connected.recv(100))

    with wire({"POST /session": session}) as client:
        client.send(b"POST /session HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\nPRI")
        head = client.until(b"\r\n\r\n")
        client.send(b" *")
        assert client.rest() == b"heard PRI *"

    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    assert b"upgrade: h2c\r\n" in head.lower()


def test_a_connection_is_not_handed_over_unasked():
    def session(request: Request) -> None:
        request.exchange.hijack("h2c")

    with wire({"POST /session": session}) as client:
        client.send(b"POST /session HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        assert client.rest().startswith(b"HTTP/1.1 400")


def test_a_fault_of_this_program_tells_no_more_than_its_kind(caplog: pytest.LogCaptureFixture):
    def faulty(_request: Request) -> None:
        raise KeyError("x")

    with wire({"GET /f": faulty}) as client:
        client.send(b"GET /f HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        assert client.rest().startswith(b"HTTP/1.1 500")

    assert "KeyError" in caplog.text


@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([
    b"GET /a/1 HTTP/1.1\r\n", b"POST /e HTTP/1.1\r\n", HOST, b"\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 5\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"Expect: 100-continue\r\n",
    b"Connection: Upgrade\r\nUpgrade: h2c\r\n",
])), max_size=12))  # fmt: skip
@settings(deadline=None, max_examples=150)
def test_no_bytes_make_the_server_hang_or_fail(pieces: list[bytes]):
    client = Wire(DockerServer(routes_of({"GET /a/{name}": hello, "POST /e": echo}), []))
    try:
        client.send(b"".join(pieces))
        client.socket.shutdown(socket.SHUT_WR)
        answer = client.rest()
        assert not answer or answer.startswith(b"HTTP/1.1 ")
    finally:
        client.close()
