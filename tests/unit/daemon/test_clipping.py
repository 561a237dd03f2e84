"""K2: how much of a step's output clients are shown."""

from __future__ import annotations

import pytest

from lamina.daemon.clipping import Clipping, LogLimits, parse_limit
from lamina.errors import InputError
from lamina.progress import Event, LogEvent, VertexEvent


def shown(limits: LogLimits, *events: Event) -> list[Event]:
    found: list[Event] = []
    sink = Clipping(limits).through(found.append)
    for event in events:
        sink(event)
    return found


def text_of(events: list[Event], vertex: str = "a") -> str:
    return b"".join(one.data for one in events if isinstance(one, LogEvent) and one.vertex == vertex).decode()


def log(data: bytes, at: float = 0.0, vertex: str = "a") -> LogEvent:
    return LogEvent(vertex, 1, data, at)


def test_without_limits_everything_is_shown():
    """Nothing stands between the events and who watches."""
    found: list[Event] = []

    assert Clipping(LogLimits()).through(found.append) == found.append


def test_a_step_shows_so_many_bytes_and_says_once_that_there_is_more():
    found = shown(LogLimits(size=10), log(b"12345"), log(b"67890abc"), log(b"more"), log(b"other", vertex="b"))

    assert text_of(found) == "1234567890\n[output clipped, log limit 10B reached]\n"
    assert text_of(found, "b") == "other"


def test_what_comes_too_fast_is_clipped_until_it_slows_down():
    """So many bytes for each second since the output began."""
    found = shown(
        LogLimits(speed=1024),
        log(b"x" * 1000, at=100.0),
        log(b"y" * 1000, at=100.5),
        log(b"z", at=100.9),
        log(b"later", at=101.5),
    )

    assert text_of(found) == f"{'x' * 1000}{'y' * 24}\n[output clipped, log limit 1KiB/s reached]\nlater"


def test_the_tighter_limit_counts():
    found = shown(LogLimits(size=2 << 20, speed=1 << 20), log(b"x" * (3 << 20)), log(b"y" * (3 << 20), at=60.0))

    assert len(text_of(found)) < (2 << 20) + 200
    assert "log limit 1MiB/s" in text_of(found)


def test_only_output_is_clipped():
    event = VertexEvent("a", "step", started=1.0)

    assert shown(LogLimits(size=0), event, log(b"x"))[0] is event


@pytest.mark.parametrize(("text", "limit"), [("", None), ("-1", None), ("0", 0), (" 2097152 ", 2 << 20)])
def test_limits_are_bytes(text: str, limit: int | None):
    assert parse_limit(text, "NAME") == limit


@pytest.mark.parametrize("text", ["2MiB", "-2", "1e6", "9" * 30, "٣"])
def test_what_is_no_number_is_named(text: str):
    with pytest.raises(InputError, match="NAME"):
        parse_limit(text, "NAME")
