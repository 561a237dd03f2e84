"""The gRPC server as real clients and hostile ones meet it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.api.errors import NotFoundError
from lamina.api.pb import control_pb2, health_pb2
from lamina.api.services import CONTROL, HEALTH
from lamina.errors import InputError, SourceRange
from lamina.rpc.call import ServedCall
from lamina.rpc.health import health_service
from lamina.rpc.server import Server, table
from lamina.tunnel.streams import SocketStream
from support.buildkit_client import Client, details, stub

Bytes = control_pb2.BytesMessage
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Handlers:
    """One handler of each kind."""

    def __init__(self) -> None:
        self.gone = threading.Event()
        self.release = threading.Event()

    def info(self, _request: object, _call: ServedCall) -> control_pb2.InfoResponse:
        return control_pb2.InfoResponse()

    def status(self, request: control_pb2.StatusRequest, call: ServedCall) -> Iterator[control_pb2.StatusResponse]:
        if request.Ref == "wait":
            call.on_end(self.gone.set)
            yield control_pb2.StatusResponse()
            self.gone.wait(30)
            return
        for _ in range(int(request.Ref)):
            yield control_pb2.StatusResponse(logs=[control_pb2.VertexLog(msg=b"x" * 10_000)])

    def session(self, requests: ServedCall, _call: ServedCall) -> Iterator[Bytes]:
        yield from requests

    def usage(self, request: control_pb2.DiskUsageRequest, call: ServedCall) -> object:
        kind = request.filter[0] if request.filter else ""
        if kind == "metadata":
            record = control_pb2.UsageRecord(Description=repr(sorted(call.metadata)))
            return control_pb2.DiskUsageResponse(record=[record])
        if kind == "input":
            raise InputError("wröng", hint="mend it", source=SourceRange("D", 2, 3, "a\nb\nc"))
        if kind == "missing":
            raise NotFoundError("not there")
        raise ValueError("a fault")

    def drain(self, requests: ServedCall, _call: ServedCall) -> Iterator[Bytes]:
        count = sum(len(message.data) for batch in requests.batches() for message in batch)
        yield Bytes(data=str(count).encode())


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
def server(handlers: Handlers):
    control = {
        "Info": handlers.info,
        "Status": handlers.status,
        "Session": handlers.session,
        "DiskUsage": handlers.usage,
    }
    found = Server(table((CONTROL, control), health_service()))
    yield found
    handlers.release.set()
    handlers.gone.set()
    found.stop()


@pytest.fixture
def address(server: Server, tmp_path: Path) -> str:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen(64)
    server.listen(listener)
    return f"unix:{tmp_path / 's'}"


@pytest.fixture
def client(address: str):
    with Client(address) as found:
        yield found


def test_each_kind_of_call(client: Client):
    assert client.control["Info"](control_pb2.InfoRequest()) == control_pb2.InfoResponse()
    told = list(client.control["Status"](control_pb2.StatusRequest(Ref="500")))
    assert sum(len(one.logs[0].msg) for one in told) == 5_000_000
    sent = [Bytes(data=bytes([number % 256]) * number) for number in range(0, 3000, 7)]
    assert list(client.control["Session"](iter(sent))) == sent


def test_large_messages_both_ways(client: Client):
    channel = grpc.insecure_channel(
        client.channel._channel.target().decode(), options=[("grpc.max_receive_message_length", -1)]
    )
    sent = [Bytes(data=os.urandom(15 << 20)) for _ in range(2)]
    assert list(stub(channel, CONTROL.Session)(iter(sent))) == sent
    channel.close()


def test_a_message_that_is_too_large_ends_its_call_alone(client: Client):
    with pytest.raises(grpc.RpcError) as failed:
        list(client.control["Session"](iter([Bytes(data=b"x" * (17 << 20))])))

    assert failed.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.control["Info"](control_pb2.InfoRequest()) is not None


def test_errors_become_statuses_with_details(client: Client):
    def ask(kind: str) -> grpc.RpcError:
        with pytest.raises(grpc.RpcError) as failed:
            client.control["DiskUsage"](control_pb2.DiskUsageRequest(filter=[kind]))
        return failed.value

    assert (ask("input").code(), ask("input").details()) == (grpc.StatusCode.UNKNOWN, "wröng (mend it)")
    assert details(ask("input")).details[0].type_url.endswith("errdefs.Source+json")
    assert ask("missing").code() == grpc.StatusCode.NOT_FOUND
    assert (ask("fault").code(), ask("fault").details()) == (
        grpc.StatusCode.INTERNAL,
        "internal error: ValueError: a fault",
    )


def test_unknown_methods_are_unimplemented(client: Client):
    with pytest.raises(grpc.RpcError) as failed:
        client.control["ListWorkers"](control_pb2.ListWorkersRequest())

    assert failed.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_metadata_reach_the_handler(client: Client):
    found = client.control["DiskUsage"](
        control_pb2.DiskUsageRequest(filter=["metadata"]), metadata=[("a-b", "c"), ("x-bin", b"\0\xff")]
    )
    assert "('a-b', 'c')" in found.record[0].Description
    assert "('x-bin', b'\\x00\\xff')" in found.record[0].Description


def test_health(client: Client):
    check, watch = stub(client.channel, HEALTH.Check), stub(client.channel, HEALTH.Watch)
    assert check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError):
        check(health_pb2.HealthCheckRequest(service="nobody"))
    watching = watch(health_pb2.HealthCheckRequest())
    assert next(watching).status == health_pb2.HealthCheckResponse.SERVING
    watching.cancel()


def test_a_client_that_cancels_is_told_to_the_handler(client: Client, handlers: Handlers):
    call = client.control["Status"](control_pb2.StatusRequest(Ref="wait"))
    next(call)
    call.cancel()

    assert handlers.gone.wait(10)


def test_a_client_that_dies_is_told_to_the_handler(address: str, handlers: Handlers):
    with Client(address) as client:
        next(client.control["Status"](control_pb2.StatusRequest(Ref="wait")))

    assert handlers.gone.wait(10)


def test_a_client_that_reads_nothing_does_not_make_the_server_hold_more_than_its_windows(client: Client):
    call = client.control["Status"](control_pb2.StatusRequest(Ref="100000"))
    next(call)
    assert client.control["Info"](control_pb2.InfoRequest()) is not None  # others go on
    call.cancel()


def test_many_calls_at_once(client: Client):
    def talk(number: int) -> None:
        sent = [Bytes(data=str(number).encode() * 50) for _ in range(20)]
        results.append(list(client.control["Session"](iter(sent))) == sent)

    results: list[bool] = []
    threads = [threading.Thread(target=talk, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [True] * 40


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.booleans(),
    st.binary(max_size=400),
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=60)), max_size=8),
)
def test_hostile_bytes_end_their_own_connection_alone(server: Server, greeted: bool, junk: bytes, frames: list):
    """Whatever comes, the thread that reads it comes back, and nothing escapes it."""
    ours, theirs = socket.socketpair()
    data = _PREFACE + b"\0\0\0\4\0\0\0\0\0" if greeted else b""
    for kind, flags, stream, body in frames:
        data += len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body
    thread = threading.Thread(target=server.serve, args=(SocketStream(ours),))
    thread.start()
    with theirs:
        try:
            theirs.sendall(data + junk)
            theirs.shutdown(socket.SHUT_WR)
            while theirs.recv(65536):
                pass
        except OSError:
            pass
    thread.join(20)

    assert not thread.is_alive()


def test_nothing_is_left_of_connections(server: Server, address: str):
    def threads() -> int:
        return sum(thread.name in ("rpc-read", "call") for thread in threading.enumerate())

    for _ in range(20):
        with Client(address) as client:
            client.control["Info"](control_pb2.InfoRequest())
    for thread in threading.enumerate():
        if thread.name in ("rpc-read", "call"):
            thread.join(10)

    assert threads() == 0
