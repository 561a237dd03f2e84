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
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import Event, SettingsAcknowledged

from lamina.api.pb.filesync_pb2 import BytesMessage
from lamina.cancel import Cancel
from lamina.tunnel.peer import Peer
from lamina.tunnel.streams import SocketStream


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


class Far:
    """A far side that does what a test tells it, right or wrong, over a socket pair."""

    def __init__(self, near: socket.socket, far: socket.socket, settings: dict[int, int]) -> None:
        self.socket = far
        far.settimeout(30)
        self.h2 = H2Connection(H2Configuration(client_side=False, validate_outbound_headers=False))
        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings(settings)
        self.flush()
        self.peer = Peer(SocketStream(near), name="test")
        self.events: list[Event] = []
        for _ in range(2 if settings else 1):
            self.until(SettingsAcknowledged)

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def until(self, kind: type[Event]) -> Event:
        """Read until an event of a kind has come; return it."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if isinstance(event, kind):
                    return event
            data = self.socket.recv(65536)
            assert data, f"the connection ended before {kind.__name__}"
            self.events += self.h2.receive_data(data)
            self.flush()

    def answer(self, stream: int, *, status: str | None = "0", body: bytes = b"", headers: tuple = ()) -> None:
        """Answer a call; without a status it stays open."""
        said = headers or ((":status", "200"), ("content-type", "application/grpc"))
        self.h2.send_headers(stream, said)
        self.data(stream, body)
        if status is not None:
            self.h2.send_headers(stream, [("grpc-status", status)], end_stream=True)
        self.flush()

    def data(self, stream: int, body: bytes) -> None:
        for start in range(0, len(body), 16384):
            self.h2.send_data(stream, body[start : start + 16384])
        self.flush()

    def flood(self, data: bytes) -> int:
        """Send the same bytes again and again until the connection is closed; return how many."""
        sent = 0
        while True:
            try:
                self.socket.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                return sent
            sent += len(data)


@pytest.fixture
def far(request: pytest.FixtureRequest) -> Iterator[Far]:
    """A far side; parametrize indirectly with its settings."""
    near, other = socket.socketpair()
    with other:
        running = Far(near, other, getattr(request, "param", {}))
        yield running
        running.peer.close()
    assert running.peer.join(), "threads are left"
    assert near.fileno() == -1, "the descriptor is left"
