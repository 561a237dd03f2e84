"""Events a build emits while it runs, and the sink they are handed to.

The shapes follow BuildKit's `SolveStatus` (vertex, status, log, warning), so that a display, `rawjson` and a
gRPC client can all draw from them. Times are seconds since the epoch as float, for people; durations are
never computed from them. Sinks are called from many threads and must not block for long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from lamina.errors import SourceRange


@dataclass(frozen=True, slots=True)
class VertexEvent:
    """State of one vertex; emitted again whenever it changes. The latest one for a digest is the truth.

    `reason` is a sentence that tells why it was not found in the cache, "" where it was or nobody asked.
    """

    digest: str
    name: str
    inputs: tuple[str, ...] = ()
    started: float | None = None
    completed: float | None = None
    cached: bool = False
    error: str = ""
    source: SourceRange | None = None
    reason: str = ""


PULLED, PUSHED, RECEIVED = "pulled", "pushed", "received"
"""Ways that bytes take: from a registry, to one, from the client of a daemon."""


@dataclass(frozen=True, slots=True)
class StatusEvent:
    """Progress of one thing inside a vertex, such as a layer being pulled or a blob being packed.

    `current` and `total` are bytes (or items); `total` is 0 when it is not known. `way` says where bytes go that leave
    or reach this machine, "" for others.
    """

    vertex: str
    id: str
    current: int = 0
    total: int = 0
    started: float | None = None
    completed: float | None = None
    way: str = ""


@dataclass(frozen=True, slots=True)
class LogEvent:
    """Bytes that a step wrote: `stream` is 1 for stdout, 2 for stderr. Not aligned to lines."""

    vertex: str
    stream: int
    data: bytes
    timestamp: float


@dataclass(frozen=True, slots=True)
class WarningEvent:
    """A warning of the frontend or of a step. `level` 1 is a lint finding."""

    vertex: str
    short: str
    detail: tuple[str, ...] = ()
    url: str = ""
    level: int = 1
    source: SourceRange | None = field(default=None)


Event = VertexEvent | StatusEvent | LogEvent | WarningEvent
Sink = Callable[[Event], None]

_doing: ContextVar[str] = ContextVar("doing", default="")


@contextmanager
def doing(vertex: str) -> Iterator[None]:
    """Say what the work of this thread is for, so that what moves bytes far below need not be told."""
    token = _doing.set(vertex)
    try:
        yield
    finally:
        _doing.reset(token)


def done_for() -> str:
    """Return the vertex that the work of this thread is for, "" when it is for none."""
    return _doing.get()


def discard(_event: Event) -> None:
    """A sink that drops every event."""
