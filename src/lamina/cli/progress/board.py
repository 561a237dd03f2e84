"""The state of a build as a display sees it: numbered vertices, their lines, how long they have run.

Pure but for the clock it is handed; not thread-safe (each display has one lock around its board). Durations are
measured with that monotonic clock when events arrive, never computed from the times inside the events.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable, Iterator

from lamina.cli.terminal import clean_log, clean_name
from lamina.progress import LogEvent, StatusEvent, VertexEvent

MAX_KEPT = 1 << 20
"""Characters of one step's output that are kept to be shown again when it fails."""
MAX_LINE = 64 << 10
"""Characters after which a line without an end is shown in parts."""


class Lines:
    """Cuts one stream of bytes into lines; a character or line may be spread over several pieces."""

    __slots__ = ("_decoder", "_rest")

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that `data` completes, made safe for a terminal."""
        text = self._rest + self._decoder.decode(data)
        *lines, rest = text.split("\n")
        if "\r" in rest[:-1]:  # a progress bar that redraws itself: only its last state counts
            rest = rest[rest.rindex("\r", 0, -1) + 1 :]
        if len(rest) > MAX_LINE:
            lines.append(rest)
            rest = ""
        self._rest = rest
        return [clean_log(line) for line in lines]

    def finish(self) -> list[str]:
        """Return the last line, if it had no end."""
        text = self._rest + self._decoder.decode(b"", final=True)
        self._rest = ""
        return [clean_log(text)] if text else []

    @property
    def partial(self) -> str:
        """The line that has no end yet, as far as it goes."""
        return clean_log(self._rest)


class Vertex:
    """One vertex: its number in order of appearance, its latest event, its output."""

    __slots__ = (
        "began",
        "cut",
        "digest",
        "ended",
        "event",
        "explained",
        "kept",
        "kept_size",
        "name",
        "number",
        "shown",
        "statuses",
        "streams",
    )

    def __init__(self, number: int, digest: str) -> None:
        self.number = number
        self.digest = digest
        self.name = ""
        self.event: VertexEvent | None = None
        self.began: float | None = None
        self.ended: float | None = None
        self.streams: dict[int, Lines] = {}
        self.kept: deque[tuple[float, str]] = deque()
        self.kept_size = 0
        self.cut = 0
        self.statuses: dict[str, StatusEvent] = {}
        self.shown = False
        self.explained = False

    @property
    def running(self) -> bool:
        """Whether it has started and not ended."""
        return self.began is not None and self.ended is None

    def seconds(self, now: float) -> float:
        """Return how long it has run, or ran."""
        if self.began is None:
            return 0.0
        return max(0.0, (self.ended if self.ended is not None else now) - self.began)

    def keep(self, at: float, line: str) -> None:
        """Remember a line of output, forgetting the oldest beyond `MAX_KEPT`."""
        self.kept.append((at, line))
        self.kept_size += len(line) + 1
        while self.kept_size > MAX_KEPT and len(self.kept) > 1:
            self.kept_size -= len(self.kept.popleft()[1]) + 1
            self.cut += 1


class Board:
    """All vertices of one build, by digest, in order of appearance.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.began = clock()
        self.vertices: dict[str, Vertex] = {}

    def vertex(self, digest: str) -> Vertex:
        """Return the vertex with this digest, numbering it when it is new."""
        vertex = self.vertices.get(digest)
        if vertex is None:
            vertex = self.vertices[digest] = Vertex(len(self.vertices) + 1, digest)
        return vertex

    def update(self, event: VertexEvent) -> Vertex:
        """Take the new state of a vertex and return it. Once ended it stays so."""
        vertex = self.vertex(event.digest)
        vertex.event = event
        vertex.name = clean_name(event.name)
        if event.started is not None and vertex.began is None:
            vertex.began = self.clock()
        if event.completed is not None and vertex.ended is None:
            vertex.ended = self.clock()
            if vertex.began is None:
                vertex.began = vertex.ended
        return vertex

    def log(self, event: LogEvent) -> tuple[Vertex, list[tuple[float, str]]]:
        """Take output and return its vertex and the completed lines, with seconds since the vertex began."""
        vertex = self.vertex(event.vertex)
        lines = vertex.streams.setdefault(event.stream, Lines())
        return vertex, self._stamp(vertex, lines.feed(event.data))

    def finish_lines(self, vertex: Vertex) -> list[tuple[float, str]]:
        """Return the lines that had no end when their step ended."""
        return self._stamp(vertex, [line for lines in vertex.streams.values() for line in lines.finish()])

    def _stamp(self, vertex: Vertex, lines: list[str]) -> list[tuple[float, str]]:
        at = vertex.seconds(self.clock())
        for line in lines:
            vertex.keep(at, line)
        return [(at, line) for line in lines]

    def running(self) -> list[Vertex]:
        """Return the vertices that run now."""
        return [vertex for vertex in self.vertices.values() if vertex.running]

    def failed(self) -> Iterator[Vertex]:
        """Iterate over the vertices that failed of their own, not because another did."""
        for vertex in self.vertices.values():
            if vertex.event is not None and vertex.event.error and not is_cancelled(vertex.event.error):
                yield vertex

    def counts(self) -> tuple[int, int]:
        """Return how many vertices ended, and how many there are."""
        return sum(1 for v in self.vertices.values() if v.ended is not None), len(self.vertices)

    def seconds(self) -> float:
        """Return how long the build has run."""
        return self.clock() - self.began


def is_cancelled(error: str) -> bool:
    """Tell whether a vertex's error only says that it was stopped."""
    return error == "cancelled" or error.startswith("cancelled:") or "context canceled" in error
