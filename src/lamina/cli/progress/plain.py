"""The plain display: one line per thing that happens, in the look that BuildKit's users know.

    #5 [stage 2/4] RUN make
    #5 0.123 cc -o app app.c
    #5 DONE 0.3s

For logs and pipes. Lines of parallel steps may alternate; each carries its number.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import TextIO

from lamina.cli.progress.board import Board, Vertex, is_cancelled
from lamina.cli.progress.summary import failure_text, warnings_text
from lamina.cli.terminal import clean_name, size_text
from lamina.progress import Event, LogEvent, StatusEvent, VertexEvent, WarningEvent

STATUS_EVERY_S = 5.0
"""Seconds between two lines about the same transfer."""


class Plain:
    """Writes lines to `stream` as events arrive.

    Args:
        stream: where to; a stream that breaks is not written to again.
        clock: monotonic seconds.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._board = Board(clock)
        self._lock = threading.Lock()
        self._warnings: list[WarningEvent] = []
        self._said: dict[tuple[str, str], float] = {}
        self._broken = False

    def sink(self, event: Event) -> None:
        """Show one event."""
        with self._lock:
            if isinstance(event, VertexEvent):
                self._vertex(event)
            elif isinstance(event, LogEvent):
                vertex, lines = self._board.log(event)
                self._lines(vertex, lines)
            elif isinstance(event, StatusEvent):
                self._status(event)
            else:
                self._warnings.append(event)

    def close(self, error: BaseException | None, names: Sequence[str] = ()) -> bool:
        """Show the failing steps' last lines, the warnings, and the names of the result."""
        with self._lock:
            failed = list(self._board.failed()) if error is not None else []
            for vertex in failed:
                self._write(failure_text(vertex, last=20))
            if self._warnings:
                self._write(warnings_text(self._warnings))
            for name in names if error is None else ():
                self._write(f"image: {clean_name(name)}")
            return any(vertex.kept for vertex in failed)

    def _vertex(self, event: VertexEvent) -> None:
        known = self._board.vertices.get(event.digest)
        if known is not None and known.ended is not None:
            return
        vertex = self._board.update(event)
        if vertex.began is None:
            return
        self._head(vertex)
        if event.reason and not vertex.explained:
            vertex.explained = True
            self._write(f"#{vertex.number} not cached: {clean_name(event.reason)}")
        if vertex.ended is None:
            return
        self._lines(vertex, self._board.finish_lines(vertex))
        self._write(f"#{vertex.number} {_outcome(vertex, event)}\n")

    def _head(self, vertex: Vertex) -> None:
        """Write the vertex's name before anything else about it."""
        if not vertex.shown and vertex.name:
            vertex.shown = True
            self._write(f"#{vertex.number} {vertex.name}")

    def _lines(self, vertex: Vertex, lines: list[tuple[float, str]]) -> None:
        if lines:
            self._head(vertex)
            self._write("\n".join(f"#{vertex.number} {at:.3f} {line}" for at, line in lines))

    def _status(self, event: StatusEvent) -> None:
        """Write a transfer's progress when it began, every few seconds, and when it ended."""
        vertex = self._board.vertex(event.vertex)
        key, now = (event.vertex, event.id), self._board.clock()
        done = event.completed is not None
        last = self._said.get(key)
        if last is not None and not done and now - last < STATUS_EVERY_S:
            return
        if last == float("inf"):
            return
        self._said[key] = float("inf") if done else now
        self._head(vertex)
        self._write(f"#{vertex.number} {status_text(event)}")

    def _write(self, text: str) -> None:
        if self._broken:
            return
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._broken = True


def _outcome(vertex: Vertex, event: VertexEvent) -> str:
    """Return how a vertex ended: DONE, CACHED, CANCELED or ERROR."""
    if event.error:
        return "CANCELED" if is_cancelled(event.error) else f"ERROR: {clean_name(event.error)}"
    return "CACHED" if event.cached else f"DONE {vertex.seconds(vertex.ended or 0):.1f}s"


def status_text(event: StatusEvent) -> str:
    """Return one transfer on one line."""
    text = clean_name(event.id)
    if event.total:
        text += f" {size_text(event.current)} / {size_text(event.total)}"
    elif event.current:
        text += f" {size_text(event.current)}"
    return text + (" done" if event.completed is not None else "")
