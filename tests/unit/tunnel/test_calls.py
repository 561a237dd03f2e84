"""Calls against a real gRPC server: the four kinds, sizes, metadata, errors, deadlines, cancelling."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from google.rpc.status_pb2 import Status as RpcStatus

from lamina.api.pb.filesync_pb2 import BytesMessage
from lamina.api.services import Method
from lamina.cancel import Cancel
from lamina.errors import CancelledError, InputError
from lamina.tunnel.peer import Peer
from lamina.tunnel.status import Code, RpcError

KINDS = {"client_streams": False, "server_streams": False}
M16 = 16 << 20


def method(name: str) -> Method:
    return Method(f"/test.Service/{name}", BytesMessage, BytesMessage, **KINDS)


ECHO, META, FAIL, HANG = method("Echo"), method("Meta"), method("Fail"), method("Hang")
HANG_STREAM, COUNT, SINK, CHAT = method("HangStream"), method("Count"), method("Sink"), method("Chat")
THREE_THEN_FAIL, EARLY = method("ThreeThenFail"), method("Early")


def test_one_message_each_way(peer: Peer, cancel):
    assert peer.unary(ECHO, BytesMessage(data=b"hi"), cancel=cancel).data == b"hi"
    assert peer.unary(ECHO, BytesMessage(), cancel=cancel).data == b"", "an empty message is a message"


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 65535, 1 << 20, (4 << 20) + 1, M16 - 64])
def test_messages_of_all_sizes_come_back_whole(peer: Peer, cancel, size):
    """Beyond frames and windows, up to the limit."""
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)

    assert peer.unary(ECHO, BytesMessage(data=data), cancel=cancel).data == data


def test_many_messages_come_in_order(peer: Peer, cancel):
    with peer.open(COUNT, cancel=cancel) as call:
        call.send_last(BytesMessage(data=b"10000 8000"))
        numbers = [int(message.data[:8]) for message in call]

    assert numbers == list(range(10000))


def test_many_messages_are_sent(peer: Peer, cancel):
    """More than all windows together, so the sender has waited."""
    with peer.open(SINK, cancel=cancel) as call:
        for _ in range(1000):
            call.send(BytesMessage(data=bytes(32 << 10)))
        call.end()
        call.end()

        assert int(call.receive().data) == 1000 * (32 << 10)
        assert call.receive() is None


def test_both_ways_at_once(peer: Peer, cancel, started):
    with peer.open(CHAT, cancel=cancel) as call:

        def feed() -> None:
            for index in range(5000):
                call.send(BytesMessage(data=b"%d" % index))
            call.end()

        started(feed)
        assert [int(message.data) for message in call] == list(range(5000))


def test_many_threads_share_a_connection(peer: Peer, cancel):
    def talk(number: int) -> bool:
        data = bytes([number]) * (number * 1000)
        return all(peer.unary(ECHO, BytesMessage(data=data), cancel=cancel).data == data for _ in range(20))

    with ThreadPoolExecutor(24) as pool:
        assert all(pool.map(talk, range(48)))


def test_metadata_travels_both_ways(peer: Peer, cancel):
    sent = [("name", "value with space"), ("name", "again"), ("raw-bin", b"\x00\x01\xff")]
    with peer.open(META, metadata=sent, cancel=cancel) as call:
        call.send_last(BytesMessage())
        first = call.headers()
        seen = call.receive().data.decode()
        assert call.receive() is None

    assert ("first", "1") in first
    assert ("first-bin", b"\x00\xff") in first
    assert not any(key.startswith("grpc-") for key, _ in first)
    assert ("last", "2") in call.trailers()
    assert ("last-bin", b"\xfe") in call.trailers()
    for pair in sent:
        assert repr(pair) in seen


@pytest.mark.parametrize(
    "pair",
    [
        ("Näme", "x"),
        ("", "x"),
        ("a", "line\nbreak"),
        ("a", "ä"),
        ("a", b"x"),
        ("a-bin", "x"),
        ("grpc-x", "y"),
        (":path", "/"),
    ],
)
def test_metadata_that_cannot_travel_is_refused_here(peer: Peer, cancel, pair):
    with pytest.raises(InputError, match="metadata"):
        peer.unary(ECHO, BytesMessage(), metadata=[pair], cancel=cancel)

    assert peer.unary(ECHO, BytesMessage(data=b"on"), cancel=cancel).data == b"on"


def test_a_refusal_has_code_message_and_details(peer: Peer, cancel):
    with pytest.raises(RpcError) as failure:
        peer.unary(FAIL, BytesMessage(), cancel=cancel)

    assert failure.value.code == Code.NOT_FOUND
    assert failure.value.message == "kein Geheimnis: ä%\n"
    assert RpcStatus.FromString(failure.value.details).details[0].value
    assert "not found: kein Geheimnis" in str(failure.value)


def test_a_method_nobody_serves(peer: Peer, cancel):
    with pytest.raises(RpcError) as failure:
        peer.unary(method("Missing"), BytesMessage(), cancel=cancel)

    assert failure.value.code == Code.UNIMPLEMENTED


def test_messages_before_a_failure_are_received(peer: Peer, cancel):
    with peer.open(THREE_THEN_FAIL, cancel=cancel) as call:
        call.send_last(BytesMessage())
        received = [call.receive().data for _ in range(3)]
        with pytest.raises(RpcError, match="three are all") as failure:
            call.receive()

    assert received == [b"0", b"1", b"2"]
    assert failure.value.code == Code.DATA_LOSS


def test_sending_on_after_the_server_has_ended_well_is_told(peer: Peer, cancel):
    with peer.open(EARLY, cancel=cancel) as call:
        assert call.receive().data == b"early"
        assert call.receive() is None
        with pytest.raises(RpcError) as failure:
            call.send(BytesMessage())

    assert failure.value.code == Code.ABORTED


def test_a_message_beyond_the_limit_is_not_sent(peer: Peer, cancel):
    with pytest.raises(RpcError) as failure:
        peer.unary(ECHO, BytesMessage(data=bytes(M16 + 1)), cancel=cancel)

    assert failure.value.code == Code.RESOURCE_EXHAUSTED
    assert peer.unary(ECHO, BytesMessage(data=b"on"), cancel=cancel).data == b"on"


def test_a_message_beyond_the_limit_is_not_received(peer: Peer, cancel):
    with peer.open(COUNT, cancel=cancel) as call:
        call.send_last(BytesMessage(data=b"1 %d" % M16))
        with pytest.raises(RpcError, match="16777216 are allowed") as failure:
            call.receive()

    assert failure.value.code == Code.RESOURCE_EXHAUSTED
    assert peer.unary(ECHO, BytesMessage(data=b"on"), cancel=cancel).data == b"on"


def test_nothing_is_sent_after_the_end(peer: Peer, cancel):
    with peer.open(CHAT, cancel=cancel) as call:
        call.end()
        assert call.receive() is None
    with peer.open(HANG_STREAM, cancel=cancel) as call:
        call.end()
        with pytest.raises(InputError, match="after the end"):
            call.send(BytesMessage())


def test_a_deadline_ends_the_call_at_both_ends(server, peer: Peer, cancel):
    with pytest.raises(RpcError) as failure:
        peer.unary(HANG, BytesMessage(), cancel=cancel, timeout_s=0.05)

    assert failure.value.code == Code.DEADLINE_EXCEEDED
    assert server.service.entered.wait(30) and server.service.gone.wait(30)


def test_cancelling_ends_the_call_at_both_ends(server, peer: Peer, started):
    cancel = Cancel()

    def interrupt() -> None:
        server.service.entered.wait(30)
        cancel.cancel()

    started(interrupt)
    with pytest.raises(CancelledError):
        peer.unary(HANG, BytesMessage(), cancel=cancel)
    assert server.service.gone.wait(30)
    with pytest.raises(CancelledError):
        peer.unary(ECHO, BytesMessage(), cancel=cancel)
    assert peer.unary(ECHO, BytesMessage(data=b"on"), cancel=Cancel()).data == b"on", "other builds' calls go on"


def test_cancelling_wakes_a_sender_that_waits_for_the_window(server, peer: Peer, started):
    cancel, sending = Cancel(), threading.Event()

    def interrupt() -> None:
        sending.wait(30)
        cancel.cancel()

    started(interrupt)
    with peer.open(HANG_STREAM, cancel=cancel) as call, pytest.raises(CancelledError):
        for index in range(10000):
            call.send(BytesMessage(data=bytes(32 << 10)))
            if index == 1:
                sending.set()


def test_closing_a_call_wakes_its_receiver(server, peer: Peer, cancel, started):
    call = peer.open(HANG_STREAM, cancel=cancel)

    def close() -> None:
        server.service.entered.wait(30)
        call.close()

    started(close)
    with pytest.raises(RpcError) as failure:
        call.receive()
    call.close()

    assert failure.value.code == Code.CANCELLED
    assert server.service.gone.wait(30)


def test_a_ping_is_answered(peer: Peer, cancel):
    assert 0 < peer.ping(cancel=cancel) < 10
    with pytest.raises(CancelledError):
        over = Cancel()
        over.cancel()
        peer.ping(cancel=over)
