"""What a tunnel runs over: sockets, and the messages of a call that somebody else serves."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections.abc import Iterator

import grpc
import pytest

from lamina.api.pb.filesync_pb2 import BytesMessage
from lamina.api.services import Method
from lamina.cancel import Cancel
from lamina.tunnel.peer import Peer
from lamina.tunnel.status import Code, RpcError
from lamina.tunnel.streams import ByteStream, MessageStream, SocketStream

ECHO = Method("/test.Service/Echo", BytesMessage, BytesMessage, client_streams=False, server_streams=False)
HANG = Method("/test.Service/Hang", BytesMessage, BytesMessage, client_streams=False, server_streams=False)


def test_a_socket_carries_bytes_and_ends(started):
    near, far = socket.socketpair()
    with far:
        stream = SocketStream(near)
        stream.send(b"out")
        assert far.recv(10) == b"out"
        far.sendall(b"in")
        assert stream.receive() == b"in"
        waiting = started(lambda: stream.receive() == b"" or pytest.fail("not the end"))
        stream.close()
        stream.close()
        waiting.join(30)

        assert stream.receive() == b""
        assert near.fileno() == -1
        with pytest.raises(OSError, match="closed"):
            stream.send(b"more")


def test_a_socket_takes_what_goes_without_waiting():
    near, far = socket.socketpair()
    with far:
        stream = SocketStream(near)
        taken = stream.offer(bytes(4 << 20))

        assert 0 < taken < 4 << 20
        assert stream.offer(b"x" * (1 << 20)) == 0
        stream.close()


def test_closing_a_socket_wakes_who_sends(started):
    near, far = socket.socketpair()
    with far:
        stream = SocketStream(near)
        errors: list[OSError] = []

        def send() -> None:
            try:
                stream.send(bytes(16 << 20))
            except OSError as error:
                errors.append(error)

        sending = started(send)
        far.recv(1)
        stream.close()
        sending.join(30)

        assert errors
        assert near.fileno() == -1


def test_messages_queue_up_to_a_limit(started):
    stream = MessageStream(iter([]), limit=10)
    stream.send(b"12345")
    stream.send(b"67890")
    assert stream.offer(b"x") == 0, "ten bytes wait already"
    sending = started(lambda: stream.send(b"more"))
    out = stream.outgoing()
    taken = next(out)
    sending.join(30)
    stream.close()

    assert taken + b"".join(out) == b"1234567890more"
    with pytest.raises(OSError, match="closed"):
        stream.send(b"late")


def test_messages_that_come_are_passed_on_without_the_empty_ones():
    stream = MessageStream(iter([b"", b"a", b"", b"b"]))

    assert [stream.receive() for _ in range(3)] == [b"a", b"b", b""]


def test_closing_a_message_stream_wakes_who_sends_and_stops_what_comes(started):
    stopped = threading.Event()
    stream = MessageStream(iter([]), stop=stopped.set, limit=1)
    stream.send(b"full")
    failed = threading.Event()

    def send() -> None:
        with pytest.raises(OSError, match="closed"):
            stream.send(b"blocked")
        failed.set()

    started(send)
    stream.close()
    stream.close()

    assert failed.wait(30)
    assert stopped.is_set()
    assert b"".join(stream.outgoing()) == b"full"


class Handed:
    """A stream of two queues that cannot say what it takes at once, as the plainest ones are."""

    def __init__(self, stream: socket.socket) -> None:
        self._inner = SocketStream(stream)
        self.send, self.receive, self.close = self._inner.send, self._inner.receive, self._inner.close


def test_a_plain_stream_is_written_by_a_thread_of_its_own(server, cancel):
    stream: ByteStream = Handed(server.connect())
    with Peer(stream, name="plain") as peer:
        for size in (0, 1, 1 << 20):
            assert len(peer.unary(ECHO, BytesMessage(data=bytes(size)), cancel=cancel).data) == size
        assert any(thread.name == "tunnel-write-plain" for thread in threading.enumerate())
    assert peer.join()


class Broken:
    """A stream that breaks at the first byte."""

    def send(self, data: bytes) -> None:
        raise OSError("no route")

    def receive(self) -> bytes:
        self._ended.wait(30)
        return b""

    def close(self) -> None:
        self._ended.set()

    def __init__(self) -> None:
        self._ended = threading.Event()


def test_a_stream_that_breaks_fails_its_calls(cancel):
    peer = Peer(Broken())
    with pytest.raises(RpcError, match=r"no route|connection") as failure:
        peer.unary(ECHO, BytesMessage(), cancel=cancel)
    assert failure.value.code == Code.UNAVAILABLE
    assert peer.join()


class Tunnel(grpc.GenericRpcHandler):
    """A server that calls its clients through the messages of one method, as the daemon does in `Control.Session`."""

    def __init__(self) -> None:
        self.peers: queue.Queue[Peer] = queue.Queue()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.stream_stream_rpc_method_handler(
            self.session, BytesMessage.FromString, BytesMessage.SerializeToString
        )

    def session(self, requests: Iterator[BytesMessage], context: grpc.ServicerContext) -> Iterator[BytesMessage]:
        stream = MessageStream(message.data for message in requests)
        context.add_callback(stream.close)
        with Peer(stream, name="tunnel") as peer:
            self.peers.put(peer)
            for data in stream.outgoing():
                yield BytesMessage(data=data)


@pytest.fixture
def tunnel(tmp_path_factory: pytest.TempPathFactory):
    """A server of such tunnels, and a connection to it."""
    path = tmp_path_factory.mktemp("t") / "s"
    handler = Tunnel()
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        running = grpc.server(pool, handlers=[handler])
        running.add_insecure_port(f"unix:{path}")
        running.start()
        with grpc.insecure_channel(f"unix:{path}") as channel:
            yield handler, channel
        running.stop(0).wait()


def client_of(channel: grpc.Channel, connected: socket.socket, started):
    """Pump a connection to the client's own server through the call."""

    def outgoing() -> Iterator[BytesMessage]:
        while data := connected.recv(65536):
            yield BytesMessage(data=data)

    call = channel.stream_stream("/t/Session", BytesMessage.SerializeToString, BytesMessage.FromString)(outgoing())

    def pump() -> None:
        try:
            for message in call:
                connected.sendall(message.data)
        except (grpc.RpcError, OSError):
            pass
        finally:
            try:
                connected.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    started(pump)
    return call


def test_a_tunnel_within_a_call(server, tunnel, cancel, started):
    """E1: the client serves at the end of the connection it opened; either side may end it."""
    handler, channel = tunnel
    with server.connect() as connected:
        client_of(channel, connected, started)
        peer = handler.peers.get(timeout=30)
        data = os.urandom(2 << 20)

        assert peer.unary(ECHO, BytesMessage(data=data), cancel=cancel).data == data
        peer.close()
        assert peer.join(), "the call's end is the iterator's end"


def test_a_client_that_goes_away_in_a_call(server, tunnel, started):
    handler, channel = tunnel
    with server.connect() as connected:
        call = client_of(channel, connected, started)
        peer = handler.peers.get(timeout=30)

        def leave() -> None:
            server.service.entered.wait(30)
            call.cancel()

        started(leave)
        with pytest.raises(RpcError) as failure:
            peer.unary(HANG, BytesMessage(), cancel=Cancel())

        assert failure.value.code == Code.UNAVAILABLE
        assert peer.join()


def test_nothing_is_left_of_many_connections(server, cancel):
    """Threads and descriptors, counted around connections of all kinds of ends."""
    mine = lambda: [thread for thread in threading.enumerate() if thread.name.startswith("tunnel-")]  # noqa: E731
    with server.peer() as peer:
        peer.unary(ECHO, BytesMessage(), cancel=cancel)
    before = len(os.listdir("/proc/self/fd"))

    for number in range(20):
        near, far = socket.socketpair()
        lost = Peer(SocketStream(near))
        if number % 2:
            far.sendall(b"garbage" * 100)
            assert lost.join()
        far.close()
        assert lost.join() or number % 2
        with server.peer() as peer:
            assert peer.unary(ECHO, BytesMessage(data=b"x"), cancel=cancel).data == b"x"

    assert not mine()
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # the server's end of the last ones may close a little later
    assert not cancel._callbacks, "calls that are over are forgotten"
