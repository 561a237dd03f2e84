"""The pure parts: messages in a stream, headers, timeouts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.tunnel.framing import Deframer, FramingError, TooLongError, frame
from lamina.tunnel.metadata import check_answer, final_status, received, request_headers, timeout
from lamina.tunnel.status import MAX_MESSAGE, Code


@given(st.lists(st.binary(max_size=50)), st.lists(st.integers(1, 30), min_size=1))
def test_messages_come_out_as_they_went_in_however_they_are_cut(messages: list[bytes], cuts: list[int]):
    wire, deframer, found = b"".join(map(frame, messages)), Deframer(), []
    at = 0
    while at < len(wire):
        size = cuts[at % len(cuts)]
        deframer.feed(wire[at : at + size])
        at += size
        while deframer.is_ready():
            found.append(deframer.pop())
        assert deframer.pop() is None

    assert found == messages
    assert len(deframer) == 0


@given(st.lists(st.binary(max_size=20)))
def test_any_bytes_are_messages_or_a_framing_error(pieces: list[bytes]):
    deframer = Deframer(limit=100)
    try:
        for piece in pieces:
            deframer.feed(piece)
            while (message := deframer.pop()) is not None:
                assert len(message) <= 100
    except FramingError:
        pass


def test_a_length_is_judged_before_the_message_is_here():
    deframer = Deframer(limit=10)
    deframer.feed(b"\0\0\0\0\x0b")

    with pytest.raises(TooLongError, match="11 bytes; 10 are allowed"):
        deframer.pop()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0n"),
        (1e-9, "1n"),
        (0.05, "50000000n"),
        (1, "1000000u"),
        (99, "99000000u"),
        (100, "100000m"),
        (1e5, "100000S"),
    ],
)
def test_timeouts_have_eight_digits(seconds, text):
    assert timeout(seconds) == text


@given(st.floats(0, 1e13))
def test_a_timeout_is_never_shorter_than_asked_for(seconds: float):
    text = timeout(seconds)
    unit = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "S": 1, "M": 60, "H": 3600}[text[-1]]

    assert len(text) <= 9
    assert int(text[:-1]) * unit >= min(seconds, 99_999_999 * 3600) * (1 - 1e-9)


@given(st.binary(max_size=40), st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_metadata_comes_back_as_it_went(raw: bytes, text: str):
    headers = request_headers("/a/B", [("x-bin", raw), ("x", text)], None)

    assert received(headers)[-2:] == (("x-bin", raw), ("x", text))


@given(
    st.lists(st.tuples(st.sampled_from(["grpc-status", "grpc-message", ":status", "content-type", "a-bin"]), st.text()))
)
def test_whatever_headers_say_has_a_meaning(headers: list[tuple[str, str]]):
    assert final_status(headers).code >= 0
    assert len(final_status(headers).message) <= MAX_MESSAGE
    check_answer(headers)
    received(headers)


def test_a_message_is_percent_decoded():
    status = final_status([("grpc-status", "13"), ("grpc-message", "a%20b%C3%A4%zz%FF")])

    assert (status.code, status.message) == (Code.INTERNAL, "a bä%zz\ufffd")
