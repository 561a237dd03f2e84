"""One build's spans, gathered from its progress events while it runs.

In: every `VertexEvent` and `StatusEvent`, the phases that the engine names, how the build ended. Out: spans: one for
the build; below it one for each phase; one for each vertex (steps, sources, exports, caches), below what was open when
it began; one for each thing that moved within a vertex (blobs, contexts, files). A vertex links to those it stands on.

Invariants: what runs is not slowed (a dictionary's update for each event); at most `MAX_SPANS` spans, the rest is
counted; no log of a step, no secret and no build argument's value gets into a span (`hidden`). Thread-safe.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from lamina.errors import CancelledError, Error
from lamina.progress import PULLED, Event, Sink, StatusEvent, VertexEvent
from lamina.tracing.context import TraceContext, new_span_id, new_trace

MAX_SPANS = 10_000
_MAX_LINKS = 64
_MAX_NAME = 400
_MAX_TEXT = 4000
_SHORTEST_HIDDEN = 4
_MAX_HIDDEN = 1000
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+@")

Value = str | int | float | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time with a name.

    Attributes:
        start, end: seconds since the epoch.
        error: why it failed, "" when it did not.
        links: spans of the same trace that it stands on.
        events: moments within it: time, name, attributes.
    """

    name: str
    span_id: bytes
    parent_id: bytes
    start: float
    end: float
    attributes: Mapping[str, Value] = field(default_factory=dict)
    error: str = ""
    links: tuple[bytes, ...] = ()
    events: tuple[tuple[float, str, Mapping[str, Value]], ...] = ()
    is_entry: bool = False


@dataclass(slots=True)
class _Open:
    """A span under way: a phase, a vertex, or something that moves."""

    span_id: bytes
    parent_id: bytes
    name: str
    start: float
    last: float
    end: float | None = None
    error: str = ""
    vertex: VertexEvent | None = None
    current: int = 0
    total: int = 0


class BuildTrace:
    """The trace of one build that is under way.

    Args:
        parent: the span that asked for the build, None when it stands for itself.
        is_served: the build is for somebody else's call.
        started: seconds since the epoch, None for now.

    Attributes:
        context: the span of the build.
        parent: as given.
    """

    def __init__(
        self, parent: TraceContext | None = None, *, is_served: bool = False, started: float | None = None
    ) -> None:
        self.parent = parent
        self.context = parent.child() if parent is not None else new_trace()
        self._is_served = is_served
        self._started = time.time() if started is None else started
        self._guard = threading.Lock()
        self._phases: list[_Open] = []
        self._within: list[bytes] = [self.context.span_id]
        self._vertices: dict[str, _Open] = {}
        self._statuses: dict[tuple[str, str], _Open] = {}
        self._dropped = 0

    def through(self, outer: Sink) -> Sink:
        """Return a sink that takes each event in and hands it on."""

        def sink(event: Event) -> None:
            self.take(event)
            outer(event)

        return sink

    def take(self, event: Event) -> None:
        """Take an event in; logs and warnings are passed over."""
        if isinstance(event, VertexEvent):
            if event.started is not None:
                with self._guard:
                    self._vertex(event, event.started)
        elif isinstance(event, StatusEvent):
            with self._guard:
                self._status(event)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Have the block stand as a span of its own; what begins meanwhile lies below it."""
        with self._guard:
            now = time.time()
            phase = _Open(new_span_id(), self._within[-1], name, now, now)
            self._phases.append(phase)
            self._within.append(phase.span_id)
        try:
            yield
        except BaseException as error:
            phase.error = _error_text(error)
            raise
        finally:
            with self._guard:
                phase.end = time.time()
                self._within.remove(phase.span_id)

    def _vertex(self, event: VertexEvent, started: float) -> None:
        known = self._vertices.get(event.digest)
        if known is None:
            if self._is_full():
                return
            known = _Open(new_span_id(), self._within[-1], event.name, started, started)
            self._vertices[event.digest] = known
        elif known.vertex is not None and known.end is not None and not known.error:
            return  # it ran, and was found when the solve began anew
        known.vertex, known.end, known.error = event, event.completed, event.error

    def _status(self, event: StatusEvent) -> None:
        now = time.time()
        known = self._statuses.get((event.vertex, event.id))
        if known is None:
            if self._is_full():
                return
            above = self._vertices.get(event.vertex)
            parent = above.span_id if above is not None else self._within[-1]
            name = f"pulling {event.id}" if event.way == PULLED else event.id
            known = _Open(new_span_id(), parent, name, event.started or now, now)
            self._statuses[event.vertex, event.id] = known
        known.last, known.end = now, event.completed
        known.current, known.total = event.current, event.total

    def _is_full(self) -> bool:
        full = len(self._vertices) + len(self._statuses) >= MAX_SPANS
        self._dropped += full
        return full

    def finish(
        self,
        name: str,
        error: BaseException | None,
        attributes: Mapping[str, Value],
        hidden: Mapping[str, str] | None = None,
    ) -> list[Span]:
        """Return the spans of the build, which ends now; the build's own comes first.

        Args:
            name: of the build's span.
            attributes: of it.
            hidden: values that must not show, by the name that stands for them: build arguments.
        """
        end = time.time()
        clean = _Cleaner(hidden or {})
        with self._guard:
            counted = {"lamina.spans.dropped": self._dropped} if self._dropped else {}
            spans = [self._own(clean, name, end, error, {**attributes, **counted})]
            spans += [clean.span(phase, phase.end or end, {}) for phase in self._phases]
            for one in self._vertices.values():
                assert one.vertex is not None
                links = [self._vertices[below].span_id for below in one.vertex.inputs if below in self._vertices]
                spans.append(clean.span(one, one.end or end, _vertex_attributes(one.vertex), links))
            for one in self._statuses.values():
                moved: dict[str, Value] = {"lamina.progress.current": one.current, "lamina.progress.total": one.total}
                spans.append(clean.span(one, one.end or one.last, moved))
        return spans

    def _own(
        self, clean: _Cleaner, name: str, end: float, error: BaseException | None, attributes: Mapping[str, Value]
    ) -> Span:
        text = "" if error is None else _error_text(error)
        events = ((end, "exception", clean.attributes(_error_attributes(error, text))),) if error is not None else ()
        parent_id = self.parent.span_id if self.parent is not None else b""
        return Span(
            clean.text(name, _MAX_NAME),
            self.context.span_id,
            parent_id,
            self._started,
            end,
            clean.attributes(attributes),
            clean.text(text),
            events=events,
            is_entry=self._is_served,
        )


class _Cleaner:
    """Keeps out of spans what must not show in them."""

    def __init__(self, hidden: Mapping[str, str]) -> None:
        # the longest first, so that none is left of which another is a part
        found = sorted(
            ((value, name) for name, value in hidden.items() if len(value) >= _SHORTEST_HIDDEN),
            key=lambda pair: -len(pair[0]),
        )[:_MAX_HIDDEN]
        self._names = dict(reversed(found))
        texts = "|".join(re.escape(value) for value, _ in found)
        self._hidden = re.compile(rf"(?<!\w)(?:{texts})(?!\w)") if texts else None

    def text(self, text: str, most: int = _MAX_TEXT) -> str:
        """Return a text fit to be told: without hidden values and credentials, valid Unicode, not too long."""
        if self._hidden is not None:
            text = self._hidden.sub(lambda found: f"${{{self._names[found[0]]}}}", text)
        return _CREDENTIALS.sub("", text)[:most].encode("utf-8", "replace").decode()

    def attributes(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Return attributes fit to be told; those that say nothing are left out."""
        found: dict[str, Value] = {}
        for name, value in values.items():
            if isinstance(value, str):
                value = self.text(value)
            elif isinstance(value, tuple):
                value = tuple(map(self.text, value))
            if value not in ("", ()):
                found[name] = value
        return found

    def span(self, one: _Open, end: float, attributes: Mapping[str, Value], links: Sequence[bytes] = ()) -> Span:
        """Return a span that is over."""
        return Span(
            self.text(one.name, _MAX_NAME),
            one.span_id,
            one.parent_id,
            one.start,
            max(one.start, end),
            self.attributes(attributes),
            self.text(one.error),
            tuple(dict.fromkeys(links))[:_MAX_LINKS],
        )


def _vertex_attributes(event: VertexEvent) -> dict[str, Value]:
    found: dict[str, Value] = {"vertex": event.digest, "lamina.cached": event.cached}
    if event.source is not None:
        found |= {"code.file.path": event.source.file, "code.line.number": event.source.start}
    return found


def _error_text(error: BaseException) -> str:
    return "cancelled" if isinstance(error, (CancelledError, KeyboardInterrupt)) else str(error) or type(error).__name__


def _error_attributes(error: BaseException, text: str) -> dict[str, Value]:
    """Return what is told of an error: its kind, its text, and the lines of the Dockerfile it comes from."""
    found: dict[str, Value] = {"exception.type": type(error).__name__, "exception.message": text}
    if isinstance(error, Error):
        found |= {"lamina.error.exit_code": error.exit_code, "lamina.error.vertex": error.vertex}
        if error.source is not None:
            found |= {"code.file.path": error.source.file, "code.line.number": error.source.start}
    return found
