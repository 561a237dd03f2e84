"""A far side that errs, lies, floods or falls silent: a clear error, bounded memory, no thread left."""

from __future__ import annotations

import socket
import threading

import pytest
from h2.events import DataReceived, RequestReceived, StreamReset, WindowUpdated
from h2.settings import SettingCodes
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, PingFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.api.pb.filesync_pb2 import BytesMessage
from lamina.api.services import Method
from lamina.cancel import Cancel
from lamina.errors import CancelledError
from lamina.tunnel.framing import frame
from lamina.tunnel.http2 import CONNECTION_WINDOW, STREAM_WINDOW
from lamina.tunnel.peer import MAX_BACKLOG, MAX_UNSENT, Peer
from lamina.tunnel.status import Code, RpcError
from lamina.tunnel.streams import SocketStream

CALL = Method("/test.Service/Call", BytesMessage, BytesMessage, client_streams=True, server_streams=True)
BODY = frame(BytesMessage(data=b"hi").SerializeToString())


def outcome(call) -> tuple[int, str]:
    """Receive until the call ends; return code and message."""
    try:
        while call.receive() is not None:
            pass
    except RpcError as error:
        return error.code, error.message
    return 0, ""


def raw_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


frames = st.builds(
    raw_frame,
    st.integers(0, 11),
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1]),
    st.binary(max_size=64),
)


@settings(max_examples=300, deadline=None)
@given(st.booleans(), st.lists(st.one_of(frames, st.binary(max_size=40)), max_size=12))
def test_whatever_comes_the_call_fails_and_nothing_is_left(greets: bool, pieces: list[bytes]):
    near, far = socket.socketpair()
    with far, Peer(SocketStream(near)) as peer:
        call = peer.open(CALL, cancel=Cancel())
        try:
            far.sendall((SettingsFrame(0).serialize() if greets else b"") + b"".join(pieces))
            far.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # closed at the first piece
        outcome(call)  # an RpcError or a good end, nothing else
        call.close()

        assert peer.join()
        assert peer.closed
        assert peer.reason
    assert near.fileno() == -1


def test_endless_continuations_close_the_connection(far):
    call = far.peer.open(CALL, cancel=Cancel())
    far.socket.sendall(HeadersFrame(1, b"").serialize())

    sent = far.flood(ContinuationFrame(1, bytes(16000)).serialize())

    assert sent < 4 << 20
    assert outcome(call)[0] == Code.UNAVAILABLE
    assert "protocol" in far.peer.reason


def test_small_headers_that_unfold_to_large_ones_close_the_connection(far):
    """HPACK: a header of 3900 bytes put into the table, then named a thousand times by one byte."""
    call = far.peer.open(CALL, cancel=Cancel())
    far.until(RequestReceived)
    length = 3900 - 127
    large = b"\x40\x01a\x7f" + bytes([length % 128 | 128, length // 128]) + b"x" * 3900
    far.socket.sendall(HeadersFrame(1, b"\x88" + large + b"\xbe" * 1000, flags=["END_HEADERS"]).serialize())

    assert outcome(call)[0] == Code.UNAVAILABLE


def test_more_than_the_window_closes_the_connection(far):
    call = far.peer.open(CALL, cancel=Cancel())
    far.until(RequestReceived)
    far.answer(1, status=None)

    sent = far.flood(DataFrame(1, bytes(16384)).serialize())

    assert sent < STREAM_WINDOW + (8 << 20), "what the socket itself holds comes on top"
    assert outcome(call)[0] == Code.UNAVAILABLE


def test_a_window_opened_beyond_all_measure_closes_the_connection(far):
    call = far.peer.open(CALL, cancel=Cancel())
    update = WindowUpdateFrame(0)
    update.window_increment = 2**31 - 1

    far.flood(update.serialize())

    assert outcome(call)[0] == Code.UNAVAILABLE


def test_pings_whose_answers_are_not_read_close_the_connection(far):
    call = far.peer.open(CALL, cancel=Cancel())

    far.flood(PingFrame(0, b"12345678").serialize() * 1000)

    assert outcome(call)[0] == Code.UNAVAILABLE
    assert "does not read" in far.peer.reason
    assert far.peer._outlet.pending <= MAX_BACKLOG + (1 << 20)


@pytest.mark.parametrize("far", [{SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1}], indirect=True)
def test_a_far_side_that_never_reads_holds_up_its_sender_only(far, started):
    """Its windows are huge, so only the bytes that wait here set the bound; the sender can be cancelled."""
    far.h2.increment_flow_control_window(2**30)
    far.flush()
    cancel, blocked = Cancel(), threading.Event()
    call = far.peer.open(CALL, cancel=cancel)
    far.until(RequestReceived)

    def interrupt() -> None:
        blocked.wait(30)
        cancel.cancel()

    started(interrupt)
    with pytest.raises(CancelledError):
        while True:
            call.send(BytesMessage(data=bytes(64 << 10)))
            if far.peer._outlet.pending > MAX_UNSENT // 2:
                blocked.set()

    assert far.peer._outlet.pending <= MAX_UNSENT + (1 << 10)
    assert not far.peer.closed


def test_a_far_side_that_never_answers_is_given_its_time(far):
    with pytest.raises(RpcError) as failure:
        far.peer.unary(CALL, BytesMessage(), cancel=Cancel(), timeout_s=0.02)
    with pytest.raises(RpcError) as no_pong:
        far.peer.ping(cancel=Cancel(), timeout_s=0.02)

    assert failure.value.code == no_pong.value.code == Code.DEADLINE_EXCEEDED
    assert far.until(RequestReceived)
    assert far.until(StreamReset).error_code == 8


def test_a_receiver_that_does_not_read_gives_no_credit(far):
    """The stream's window is used up, the connection's stays open for others; reading gives credit again."""
    slow = far.peer.open(CALL, cancel=Cancel())
    far.until(RequestReceived)
    message = frame(BytesMessage(data=bytes(32 << 10)).SerializeToString())
    far.answer(1, status=None)
    while (room := far.h2.local_flow_control_window(1)) > 0:
        far.data(1, message[: min(room, len(message))])
        if far.h2.outbound_flow_control_window < CONNECTION_WINDOW // 2:
            far.until(WindowUpdated)

    quick = far.peer.open(CALL, cancel=Cancel())
    far.until(RequestReceived)
    far.answer(3, body=BODY)

    assert quick.receive().data == b"hi"
    assert far.peer._held <= STREAM_WINDOW
    assert far.h2.local_flow_control_window(1) == 0
    for _ in range(STREAM_WINDOW // len(message) // 2):
        slow.receive()
    while far.until(WindowUpdated).stream_id != 1:
        pass
    slow.close()
    assert far.peer._held == 0


@pytest.mark.parametrize(
    ("status", "body", "headers", "code", "text"),
    [
        ("5", b"", (), 5, ""),
        ("0", b"\x01\0\0\0\x01x", (), Code.INTERNAL, "compressed"),
        (None, b"\0\xff\xff\xff\xffx", (), Code.RESOURCE_EXHAUSTED, "are allowed"),
        ("0", BODY[:-1], (), Code.INTERNAL, "middle of a message"),
        ("0", frame(b"\xff\xff\xff"), (), Code.INTERNAL, "cannot be read|unreadable"),
        ("x", BODY, (), Code.UNKNOWN, "grpc-status"),
        ("", BODY, (), Code.UNKNOWN, "grpc-status"),
        ("99999999999999999999", BODY, (), Code.UNKNOWN, "grpc-status"),
        ("77", BODY, (), 77, ""),
        (None, b"", ((":status", "404"),), Code.UNIMPLEMENTED, "404"),
        (None, b"", ((":status", "503"),), Code.UNAVAILABLE, "503"),
        (None, b"", ((":status", "200"), ("content-type", "text/html")), Code.UNKNOWN, "text/html"),
        (
            None,
            b"",
            ((":status", "200"), ("content-type", "application/grpc"), ("grpc-encoding", "gzip")),
            Code.INTERNAL,
            "gzip",
        ),
    ],
)
def test_answers_that_are_wrong(far, status, body, headers, code, text):
    """The call fails with a fitting code; the connection and other calls go on."""
    call = far.peer.open(CALL, cancel=Cancel())
    far.until(RequestReceived)
    far.answer(1, status=status, body=body, headers=headers)

    with call:
        found, message = outcome(call)
    assert found == code
    assert any(part in message for part in text.split("|"))
    with far.peer.open(CALL, cancel=Cancel()) as following:
        far.until(RequestReceived)
        far.answer(3, body=BODY)
        assert following.receive().data == b"hi"


def test_an_answer_that_ends_without_trailers(far):
    call = far.peer.open(CALL, cancel=Cancel())
    far.until(RequestReceived)
    far.h2.send_headers(1, ((":status", "200"), ("content-type", "application/grpc")))
    far.h2.send_data(1, BODY, end_stream=True)
    far.flush()

    assert call.receive().data == b"hi"
    assert outcome(call) == (Code.UNKNOWN, "the answer ended without a valid grpc-status")


@pytest.mark.parametrize(("error", "code"), [(0, 13), (2, 13), (7, 14), (8, 1), (11, 8), (12, 7), (999, 13)])
def test_a_reset_stream_is_a_failed_call(far, error, code):
    call = far.peer.open(CALL, cancel=Cancel())
    far.until(RequestReceived)
    far.h2.reset_stream(1, error)
    far.flush()

    assert outcome(call)[0] == code


def test_a_lost_connection_fails_every_call_at_once(far, started):
    calls = [far.peer.open(CALL, cancel=Cancel()) for _ in range(20)]
    codes: list[int] = []
    threads = [started(lambda call=call: codes.append(outcome(call)[0])) for call in calls]
    told = threading.Event()
    far.peer.on_close(told.set)

    far.socket.close()
    for thread in threads:
        thread.join(30)

    assert codes == [Code.UNAVAILABLE] * 20
    assert told.wait(30)
    assert far.peer.closed
    with pytest.raises(RpcError, match="connection"):
        far.peer.open(CALL, cancel=Cancel())
    with pytest.raises(RpcError):
        far.peer.ping(cancel=Cancel())
    late = threading.Event()
    far.peer.on_close(late.set)
    assert late.is_set()


@pytest.mark.parametrize("far", [{SettingCodes.MAX_CONCURRENT_STREAMS: 1}], indirect=True)
def test_calls_wait_for_as_many_streams_as_the_far_side_allows(far, started):
    first = far.peer.open(CALL, cancel=Cancel())
    far.until(RequestReceived)
    answers: list[bytes] = []
    cancelled = Cancel()

    def call() -> None:
        with far.peer.open(CALL, cancel=Cancel()) as second:
            second.end()
            answers.append(second.receive().data)

    def give_up() -> None:
        with pytest.raises(CancelledError):
            far.peer.open(CALL, cancel=cancelled)

    waiting = started(call)
    leaving = started(give_up)
    cancelled.cancel()
    leaving.join(30)
    first.close()
    assert far.until(RequestReceived).stream_id == 3
    far.answer(3, body=BODY)
    waiting.join(30)

    assert answers == [b"hi"]


def test_after_goaway_calls_finish_and_none_begin(far):
    call = far.peer.open(CALL, cancel=Cancel())
    far.until(RequestReceived)
    far.socket.sendall(raw_frame(7, 0, 0, (2**31 - 1).to_bytes(4, "big") + bytes(4) + b"good night"))
    far.answer(1, status=None, body=BODY)
    assert call.receive().data == b"hi"

    with pytest.raises(RpcError, match="good night") as failure:
        far.peer.open(CALL, cancel=Cancel())
    call.send(BytesMessage(data=b"still here"))
    far.until(DataReceived)
    far.data(1, BODY)
    far.h2.send_headers(1, [("grpc-status", "0")], end_stream=True)
    far.flush()

    assert failure.value.code == Code.UNAVAILABLE
    assert call.receive().data == b"hi"
    assert call.receive() is None


def test_goaway_with_an_error_fails_what_is_under_way(far):
    call = far.peer.open(CALL, cancel=Cancel())
    far.socket.sendall(raw_frame(7, 0, 0, (2**31 - 1).to_bytes(4, "big") + (11).to_bytes(4, "big")))

    assert outcome(call)[0] == Code.UNAVAILABLE


@pytest.mark.parametrize("far", [{SettingCodes.INITIAL_WINDOW_SIZE: 0}], indirect=True)
def test_a_call_is_announced_even_where_nothing_may_be_sent_yet(far, started):
    """The far side can open a stream's window only once it knows the stream."""
    answers: list[bytes] = []
    asking = started(lambda: answers.append(far.peer.unary(CALL, BytesMessage(data=b"?"), cancel=Cancel()).data))
    assert far.until(RequestReceived).stream_id == 1
    far.h2.increment_flow_control_window(100, 1)
    far.flush()
    far.until(DataReceived)
    far.answer(1, body=BODY)
    asking.join(30)

    assert answers == [b"hi"]
