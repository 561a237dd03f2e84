"""The display for terminals: finished steps scroll by, running ones stay below with a window of their output.

Nothing heavy is imported until a step really runs; a build that finds everything cached prints its lines and is
done. From then on rich draws the live part ten times a second in a thread of its own, so events only change the
board. When a step fails, its whole output comes last.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TextIO

from lamina.cli.progress.board import Board, Vertex, is_cancelled
from lamina.cli.progress.plain import status_text
from lamina.cli.progress.summary import failure_text, warnings_text
from lamina.cli.terminal import clean_name
from lamina.progress import Event, LogEvent, StatusEvent, VertexEvent, WarningEvent

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

WINDOW = 6
"""Most lines of output shown below a running step."""
LIVE_AFTER_S = 0.05
"""A build shorter than this never starts the live part."""


class Tty:
    """Draws on a terminal.

    Args:
        stream: the terminal.
        color: whether colours may be used.
        clock: monotonic seconds.
    """

    def __init__(self, stream: TextIO, *, color: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._color = color
        self._board = Board(clock)
        self._lock = threading.RLock()
        self._warnings: list[WarningEvent] = []
        self._finished: list[Vertex] = []  # ended, not yet written above the live part
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def sink(self, event: Event) -> None:
        """Take one event; the first step that really runs starts the live part."""
        with self._lock:
            if self._closed:
                return
            if isinstance(event, VertexEvent):
                self._vertex(event)
            elif isinstance(event, LogEvent):
                self._board.log(event)
            elif isinstance(event, StatusEvent):
                self._board.vertex(event.vertex).statuses[event.id] = event
            else:
                self._warnings.append(event)

    def close(self, error: BaseException | None, names: Sequence[str] = ()) -> bool:
        """Stop the live part, write what is left and how long it took."""
        with self._lock:
            self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            lines = [self._plain_line(vertex) for vertex in self._finished]
            self._finished.clear()
            failed = list(self._board.failed()) if error is not None else []
            lines += [failure_text(vertex) for vertex in failed]
            if self._warnings:
                lines.append(warnings_text(self._warnings))
            done, total = self._board.counts()
            outcome = "FINISHED" if error is None else "FAILED"
            lines.append(f"[+] {outcome} in {self._board.seconds():.1f}s ({done}/{total})")
            lines += [f"image: {clean_name(name)}" for name in names if error is None]
            self._write("\n".join(lines) + "\n")
            return any(vertex.kept for vertex in failed)

    def _vertex(self, event: VertexEvent) -> None:
        known = self._board.vertices.get(event.digest)
        if known is not None and known.ended is not None:
            return
        vertex = self._board.update(event)
        if vertex.ended is not None:
            self._board.finish_lines(vertex)
            self._finished.append(vertex)
        elif vertex.began is not None and self._thread is None:
            self._thread = threading.Thread(target=self._draw, name="display", daemon=True)
            self._thread.start()

    def _draw(self) -> None:
        """Draw until closed; runs in the display's own thread. A terminal that breaks ends the drawing only."""
        if self._wake.wait(LIVE_AFTER_S):
            return
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream, no_color=not self._color, highlight=False, soft_wrap=False)
        try:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                while not self._wake.is_set():
                    self._frame(console, live)
                    self._wake.wait(0.1)
        except (OSError, ValueError):
            pass

    def _frame(self, console: Console, live: Live) -> None:
        """Write what has finished above the live part, then draw it anew."""
        with self._lock:
            finished, self._finished = self._finished, []
            above = [line for vertex in finished for line in (self._line(vertex, console.width), *_why(vertex))]
            below = self._running(console.width, console.height)
        if above:
            console.print(*above, sep="\n")
        live.update(below, refresh=True)

    def _running(self, width: int, height: int) -> Group:
        """Return the live part: head line, running steps, windows of output; never taller than the terminal."""
        from rich.console import Group
        from rich.text import Text

        done, total = self._board.counts()
        head = Text(f"[+] Building {self._board.seconds():.1f}s ({done}/{total})", style="bold", no_wrap=True)
        running = self._board.running()
        room = max(1, height - 2)
        shown = running[:room]
        window = min(WINDOW, max(0, (room - len(shown)) // max(1, len(shown))))
        lines: list[Text] = [head]
        for vertex in shown:
            lines += [self._line(vertex, width), *_why(vertex)]
            for text in _window(vertex, window):
                lines.append(Text(f" => => {text}", style="dim", no_wrap=True, overflow="ellipsis"))
        if len(running) > len(shown):
            lines.append(Text(f" => and {len(running) - len(shown)} more", style="dim"))
        return Group(*lines[: height - 1])

    def _line(self, vertex: Vertex, width: int) -> Text:
        """Return a vertex on one line of `width` cells: mark, name, seconds at the right edge."""
        from rich.text import Text

        mark, style = _mark(vertex)
        seconds = f" {vertex.seconds(self._board.clock()):.1f}s"
        left = Text(f" => {mark}{vertex.name}", style=style, no_wrap=True)
        left.truncate(max(8, width - len(seconds) - 1), overflow="ellipsis", pad=True)
        return left + Text(seconds, style=style)

    def _plain_line(self, vertex: Vertex) -> str:
        mark, _ = _mark(vertex)
        took = "" if mark == "CACHED " else f"  {vertex.seconds(self._board.clock()):.1f}s"
        why = f"\n => => not cached: {clean_name(reason)}" if (reason := _reason(vertex)) else ""
        return f" => {mark}{vertex.name}{took}{why}"

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass


def _reason(vertex: Vertex) -> str:
    return vertex.event.reason if vertex.event is not None else ""


def _why(vertex: Vertex) -> list[Text]:
    """Return the line that tells why a step runs, if that was asked for."""
    from rich.text import Text

    reason = _reason(vertex)
    return [Text(f" => => not cached: {clean_name(reason)}", style="dim", overflow="fold")] if reason else []


def _mark(vertex: Vertex) -> tuple[str, str]:
    """Return the word before a vertex's name, and its style."""
    event = vertex.event
    if event is not None and event.error:
        return ("CANCELED ", "yellow") if is_cancelled(event.error) else ("ERROR ", "red")
    if event is not None and event.cached:
        return "CACHED ", "blue"
    return "", "cyan" if vertex.ended is None else ""


def _window(vertex: Vertex, height: int) -> list[str]:
    """Return the transfers that go on and the last lines of output, at most `height` lines."""
    if height <= 0:
        return []
    going = [status_text(status) for status in vertex.statuses.values() if status.completed is None]
    lines = [line for _, line in islice(reversed(vertex.kept), height)][::-1]
    lines += [lines_.partial for lines_ in vertex.streams.values() if lines_.partial]
    return [text.expandtabs() for text in [*going, *lines][-height:]]
