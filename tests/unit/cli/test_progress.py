"""Displays: one recorded build, shown in each way. `LAMINA_GOLDEN=write` makes the golden files anew."""

from __future__ import annotations

import base64
import io
import json
import os
import threading
from pathlib import Path

import pytest

from lamina.cli.progress.board import MAX_KEPT, Board, Lines
from lamina.cli.progress.cached import show_cached
from lamina.cli.progress.display import Display, open_display
from lamina.cli.progress.plain import Plain
from lamina.cli.progress.rawjson import RawJson
from lamina.cli.progress.tty import Tty
from lamina.errors import Error, SourceRange
from lamina.progress import Event, LogEvent, StatusEvent, VertexEvent, WarningEvent

GOLDEN = Path(__file__).parents[2] / "golden" / "progress"
SOURCE = SourceRange("Dockerfile", 3, 3, "FROM base\n\nRUN make\n")


class Clock:
    """A clock that a test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def step(digest: str, name: str, *, end: bool = False, cached: bool = False, error: str = "") -> VertexEvent:
    return VertexEvent(digest, name, started=5.0, completed=6.5 if end else None, cached=cached, error=error)


def recorded() -> list[tuple[float, Event]]:
    """A build with a transfer, a cached step, two parallel steps, odd output, a failure and a cancelled step."""
    base, make, test = "[base] FROM debian", "[build 2/3] RUN make", "[test 1/1] RUN sleep 60"
    return [
        (0.0, VertexEvent("a", base)),
        (0.0, step("a", base)),
        (0.1, StatusEvent("a", "sha256:abc", 0, 2_000_000, started=5.0)),
        (0.2, StatusEvent("a", "sha256:abc", 1_000_000, 2_000_000, started=5.0)),
        (0.9, StatusEvent("a", "sha256:abc", 2_000_000, 2_000_000, started=5.0, completed=6.0)),
        (1.0, step("a", base, end=True)),
        (1.0, step("b", "[build 1/3] WORKDIR /src", end=True, cached=True)),
        (1.0, step("c", make)),
        (1.1, step("d", test)),
        (1.2, LogEvent("c", 1, b"cc -c a.c\ncc -c ", 5.0)),
        (1.3, LogEvent("d", 1, b"waiting\n", 5.0)),
        (1.4, LogEvent("c", 2, b"\x1b[31mwarning:\x1b[0m caf\xc3", 5.0)),
        (1.5, LogEvent("c", 2, b"\xa9 10%\r20%\r\n", 5.0)),
        (1.6, LogEvent("c", 1, b"b.c\nno end", 5.0)),
        (1.7, WarningEvent("c", "FromAsCasing: 'as' and 'FROM' differ in case", source=SOURCE)),
        (2.0, step("c", make, end=True, error='process "/bin/sh -c make" did not complete: exit code 2')),
        (2.1, step("d", test, end=True, error="cancelled")),
    ]


def play(display: Display, clock: Clock, *, error: bool = True) -> bool:
    for at, event in recorded():
        clock.now = 100.0 + at
        display.sink(event)
    return display.close(Error("exit code 2") if error else None, () if error else ("docker.io/library/app:latest",))


def check_golden(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("LAMINA_GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_plain_looks_as_recorded():
    out, clock = io.StringIO(), Clock()
    assert play(Plain(out, clock), clock) is True
    check_golden("plain.txt", out.getvalue())


def test_rawjson_looks_as_recorded_and_is_buildkits_shape():
    out, clock = io.StringIO(), Clock()
    assert play(RawJson(out, clock), clock) is False
    check_golden("rawjson.txt", out.getvalue())

    objects = [json.loads(line) for line in out.getvalue().splitlines()]
    assert {key for o in objects for key in o} == {"vertexes", "statuses", "logs", "warnings"}
    logs = b"".join(base64.b64decode(o["logs"][0]["data"]) for o in objects if "logs" in o)
    assert logs == b"".join(e.data for _, e in recorded() if isinstance(e, LogEvent))


def test_tty_shows_the_failing_steps_whole_output_last():
    out, clock = io.StringIO(), Clock()
    display = Tty(out, color=False, clock=clock)
    assert play(display, clock) is True
    text = out.getvalue()
    assert " => ERROR [build 2/3] RUN make" in text
    assert " => CACHED [build 1/3] WORKDIR /src" in text
    tail = text[text.index(" > [build 2/3] RUN make:") :]
    assert "cc -c a.c\n" in tail and "cc -c b.c" in tail and "no end" in tail
    assert "\x1b[31m" not in tail
    assert "[+] FAILED in 2.1s (4/4)" in tail


def test_a_wholly_cached_build_starts_no_thread():
    """Nothing really ran, so neither rich nor a thread is needed."""
    out = io.StringIO()
    display = Tty(out, color=False)
    before = threading.active_count()
    for number in range(3):
        display.sink(step(str(number), f"[{number}/3] COPY . .", end=True, cached=True))
    assert threading.active_count() == before
    display.close(None, ("docker.io/library/app:latest",))
    assert out.getvalue().count("CACHED") == 3
    assert out.getvalue().endswith("image: docker.io/library/app:latest\n")


@pytest.mark.parametrize("kind", ["plain", "tty", "rawjson", "quiet", "none"])
def test_displays_stand_many_threads_and_a_stream_that_breaks(kind: str):
    class Broken(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    for stream in (io.StringIO(), Broken()):
        display = open_display(kind, stream)
        display.sink(step("v", "RUN many"))
        threads = [threading.Thread(target=_write_many, args=(display, n)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        display.sink(step("v", "RUN many", end=True))
        display.close(None)


def _write_many(display: Display, number: int) -> None:
    for line in range(200):
        display.sink(LogEvent("v", 1, f"{number} {line}\n".encode(), 0.0))


def test_events_after_the_end_change_nothing():
    out, clock = io.StringIO(), Clock()
    display = Plain(out, clock)
    display.sink(step("a", "RUN x", end=True))
    text = out.getvalue()
    display.sink(step("a", "RUN x", end=True, error="late"))
    assert out.getvalue() == text


def test_lines_are_whole_whatever_the_pieces():
    data = "eins\nzwei ü\n\ndrei".encode()
    for cut in range(len(data)):
        lines = Lines()
        assert [*lines.feed(data[:cut]), *lines.feed(data[cut:]), *lines.finish()] == ["eins", "zwei ü", "", "drei"]


def test_what_is_kept_of_a_log_has_a_cap():
    board = Board(Clock())
    vertex = board.update(step("a", "RUN yes"))
    for _ in range(40):
        board.log(LogEvent("a", 1, b"y" * 99_999 + b"\n", 0.0))
    assert sum(len(line) + 1 for _, line in vertex.kept) <= MAX_KEPT
    assert vertex.cut + len(vertex.kept) == 40


def test_the_memos_answer_looks_like_the_plain_display(capsys: pytest.CaptureFixture[str]):
    show_cached("plain", ["[1/2] FROM x", "[2/2] COPY\x1b . ."], ["W: y"], ["docker.io/library/app:latest"])
    assert capsys.readouterr().err == (
        "#1 [1/2] FROM x\n#1 CACHED\n\n#2 [2/2] COPY\\x1b . .\n#2 CACHED\n\n"
        "1 warning:\n - W: y\nimage: docker.io/library/app:latest\n"
    )
    show_cached("quiet", ["x"], [], [])
    assert capsys.readouterr().err == ""
