"""A real gRPC server on a unix socket, and peers connected to it through a socket of their own."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.status_pb2 import Status as RpcStatus

from lamina.api.pb.filesync_pb2 import BytesMessage
from lamina.api.services import Method
from lamina.cancel import Cancel
from lamina.tunnel.peer import Peer
from lamina.tunnel.streams import SocketStream


def method(name: str, *, client_streams: bool = False, server_streams: bool = False) -> Method:
    return Method(f"/test.Service/{name}", BytesMessage, BytesMessage, client_streams, server_streams)


ECHO = method("Echo")
META = method("Meta")
FAIL = method("Fail")
HANG = method("Hang")
HANG_STREAM = method("HangStream", client_streams=True, server_streams=True)
COUNT = method("Count", server_streams=True)
SINK = method("Sink", client_streams=True)
CHAT = method("Chat", client_streams=True, server_streams=True)
THREE_THEN_FAIL = method("ThreeThenFail", server_streams=True)
EARLY = method("Early", client_streams=True)


class Service(grpc.GenericRpcHandler):
    """What the tests call. `gone` is set once a hanging call has been seen to end at the server."""

    def __init__(self) -> None:
        self.entered, self.gone = threading.Event(), threading.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        kinds = {
            "Echo": (grpc.unary_unary_rpc_method_handler, lambda request, _: request),
            "Meta": (grpc.unary_unary_rpc_method_handler, self.meta),
            "Fail": (grpc.unary_unary_rpc_method_handler, self.fail),
            "Hang": (grpc.unary_unary_rpc_method_handler, self.hang),
            "HangStream": (grpc.stream_stream_rpc_method_handler, self.hang),
            "Count": (grpc.unary_stream_rpc_method_handler, self.count),
            "Sink": (grpc.stream_unary_rpc_method_handler, self.sink),
            "Chat": (grpc.stream_stream_rpc_method_handler, lambda requests, _: requests),
            "ThreeThenFail": (grpc.unary_stream_rpc_method_handler, self.three_then_fail),
            "Early": (grpc.stream_unary_rpc_method_handler, lambda _requests, _context: BytesMessage(data=b"early")),
        }
        kind = kinds.get(details.method.rpartition("/")[2])
        if kind is None:
            return None
        return kind[0](kind[1], BytesMessage.FromString, BytesMessage.SerializeToString)

    def meta(self, _request: BytesMessage, context: grpc.ServicerContext) -> BytesMessage:
        sent = sorted((item.key, item.value) for item in context.invocation_metadata())
        context.send_initial_metadata((("first", "1"), ("first-bin", b"\x00\xff")))
        context.set_trailing_metadata((("last", "2"), ("last-bin", b"\xfe")))
        return BytesMessage(data=repr(sent).encode())

    def fail(self, request: BytesMessage, context: grpc.ServicerContext) -> BytesMessage:
        detail = AnyMessage()
        detail.Pack(BytesMessage(data=b"why"))
        status = RpcStatus(code=5, message="kein Geheimnis: ä%\n", details=[detail])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.NOT_FOUND, status.message)
        return request

    def hang(self, _request: object, context: grpc.ServicerContext) -> BytesMessage:
        ended = threading.Event()
        if not context.add_callback(ended.set):
            ended.set()
        self.entered.set()
        ended.wait(60)
        self.gone.set()
        return BytesMessage()

    def count(self, request: BytesMessage, _context: grpc.ServicerContext) -> Iterator[BytesMessage]:
        number, size = map(int, request.data.split())
        for index in range(number):
            yield BytesMessage(data=b"%08d" % index + bytes(size))

    def sink(self, requests: Iterator[BytesMessage], _context: grpc.ServicerContext) -> BytesMessage:
        return BytesMessage(data=b"%d" % sum(len(request.data) for request in requests))

    def three_then_fail(self, _request: BytesMessage, context: grpc.ServicerContext) -> Iterator[BytesMessage]:
        for index in range(3):
            yield BytesMessage(data=b"%d" % index)
        context.abort(grpc.StatusCode.DATA_LOSS, "three are all there are")


class Server:
    """A server, and what connects to it."""

    def __init__(self, folder: Path, service: Service) -> None:
        self.path, self.service = folder / "s", service
        sixteen = 16 << 20
        limits = [("grpc.max_receive_message_length", sixteen), ("grpc.max_send_message_length", 2 * sixteen)]
        self.grpc = grpc.server(ThreadPoolExecutor(16), handlers=[service], options=limits)
        self.grpc.add_insecure_port(f"unix:{self.path}")
        self.grpc.start()

    def connect(self) -> socket.socket:
        connected = socket.socket(socket.AF_UNIX)
        connected.connect(str(self.path))
        return connected

    @contextmanager
    def peer(self) -> Iterator[Peer]:
        with Peer(SocketStream(self.connect()), name="test") as peer:
            yield peer
        assert peer.join(), "threads are left"


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("grpc")  # short enough for a socket's name
    running = Server(folder, Service())
    yield running
    running.grpc.stop(0).wait()


@pytest.fixture
def peer(server: Server) -> Iterator[Peer]:
    with server.peer() as connected:
        yield connected


@pytest.fixture
def cancel() -> Cancel:
    return Cancel()


@pytest.fixture
def started() -> Iterator[Callable[[Callable[[], object]], threading.Thread]]:
    """Start functions in threads that are joined at the end."""
    threads: list[threading.Thread] = []

    def start(function: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=function)
        threads.append(thread)
        thread.start()
        return thread

    yield start
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
