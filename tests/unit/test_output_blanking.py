"""Secrets a step was given are blanked in what it writes, however it is cut into pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lamina.cancel import Cancel
from lamina.ops.output import Output
from lamina.progress import Event, LogEvent
from lamina.solver.protocol import RunContext


def written(pieces: list[bytes], secrets: list[bytes]) -> tuple[bytes, Output]:
    seen: list[Event] = []
    output = Output(RunContext("v", seen.append, Cancel()))
    output.hide(secrets)
    for piece in pieces:
        output.write(1, piece)
    output.close()
    return b"".join(event.data for event in seen if isinstance(event, LogEvent)), output


@given(st.binary(max_size=40), st.binary(max_size=40), st.data())
def test_a_secret_never_shows_however_it_is_cut(before: bytes, after: bytes, data: st.DataObject):
    secret = b"aab-secret-aab"
    text = before + secret + after
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    shown, output = written(pieces, [secret])

    assert shown == text.replace(secret, b"***")
    assert "aab-secret-aab" not in "".join(output.tail())


def test_each_line_of_a_key_is_blanked():
    key = b"-----BEGIN-----\nAbCdEfGh\nIjKlMnOp\n-----END-----\n"

    shown, _ = written([b"one IjKlMnOp two\n"], [key])

    assert shown == b"one *** two\n"


def test_short_values_and_ordinary_output_pass_at_once():
    seen: list[Event] = []
    output = Output(RunContext("v", seen.append, Cancel()))
    output.hide([b"no", b"long-secret"])
    output.write(1, b"no progress: l")

    assert [event.data for event in seen if isinstance(event, LogEvent)] == [b"no progress: "]
