"""Who runs what in this process, so that a build which waits for another's equal step hears what that step says.

In: progress events of the build that runs a key. Out: the same events under the waiting build's own vertex, from the
beginning (of logs the last `MAX_PAST_BYTES`). The right to run is not decided here: the cache's lock does that, and
a waiter whose runner was cancelled runs the step itself. Thread-safe.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from lamina.progress import Event, LogEvent, Sink, StatusEvent
from lamina.solver.slots import Slots

MAX_PAST_BYTES = 1 << 20


class _Run:
    """One key: what its runner said so far, and who listens."""

    __slots__ = ("guard", "listeners", "logged", "past", "statuses")

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.listeners: dict[object, tuple[str, Sink]] = {}
        self.clear()

    def clear(self) -> None:
        self.past: deque[LogEvent] = deque()
        self.statuses: dict[str, StatusEvent] = {}
        self.logged = 0

    def keep(self, event: LogEvent | StatusEvent) -> None:
        if isinstance(event, StatusEvent):
            self.statuses[event.id] = event
            return
        self.past.append(event)
        self.logged += len(event.data)
        while self.logged > MAX_PAST_BYTES and len(self.past) > 1:
            self.logged -= len(self.past.popleft().data)


class Runs:
    """The keys that are waited for or run by builds of one store."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, tuple[_Run, int]] = {}

    @contextmanager
    def following(self, key: str, vertex: str, sink: Sink) -> Iterator[None]:
        """Hear, as said by `vertex`, what whoever runs `key` says during the block."""
        me = object()
        with self._held(key) as run:
            with run.guard:
                run.listeners[me] = (vertex, sink)
                # under the lock, so that nothing newer overtakes what is past
                past: list[LogEvent | StatusEvent] = [*run.past, *run.statuses.values()]
                for event in past:
                    sink(replace(event, vertex=vertex))
            try:
                yield
            finally:
                with run.guard:
                    del run.listeners[me]

    @contextmanager
    def telling(self, key: str, vertex: str, sink: Sink) -> Iterator[Sink]:
        """Yield a sink for the one who runs `key`: what it says of `vertex` reaches the followers, too."""
        with self._held(key) as run:

            def tell(event: Event) -> None:
                sink(event)
                if isinstance(event, LogEvent | StatusEvent) and event.vertex == vertex:
                    with run.guard:
                        run.keep(event)
                        for name, listener in run.listeners.values():
                            listener(replace(event, vertex=name))

            try:
                yield tell
            finally:
                with run.guard:
                    run.clear()  # one who runs it again, after a failure, begins anew

    @contextmanager
    def _held(self, key: str) -> Iterator[_Run]:
        """Keep a key's entry for as long as anybody has to do with it."""
        with self._lock:
            run, users = self._runs.get(key) or (_Run(), 0)
            self._runs[key] = (run, users + 1)
        try:
            yield run
        finally:
            with self._lock:
                run, users = self._runs[key]
                if users == 1:
                    del self._runs[key]
                else:
                    self._runs[key] = (run, users - 1)


@dataclass(frozen=True, slots=True)
class Shared:
    """What the builds of one process share."""

    slots: Slots = field(default_factory=lambda: Slots(0))
    runs: Runs = field(default_factory=Runs)
