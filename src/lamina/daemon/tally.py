"""What a build has moved so far, counted from its progress events: for metrics. Thread-safe."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from lamina.engine.recording import Figures
from lamina.progress import Event, Sink, StatusEvent


@dataclass(frozen=True, slots=True)
class Ended:
    """How a build ended.

    Attributes:
        seconds: how long it took.
        error: what went wrong, None for nothing.
        figures: how its steps went.
        moved: bytes by the way they took (`lamina.progress.PULLED` and others).
    """

    seconds: float
    error: BaseException | None
    figures: Figures
    moved: Mapping[str, int] = field(default_factory=dict)


class Tally:
    """Counts the bytes of one build."""

    def __init__(self) -> None:
        self.figures = Figures()
        self._guard = threading.Lock()
        self._known: dict[tuple[str, str], int] = {}
        self._moved: dict[str, int] = defaultdict(int)

    def through(self, outer: Sink) -> Sink:
        """Return a sink that counts each event and hands it on."""

        def sink(event: Event) -> None:
            if isinstance(event, StatusEvent) and event.way:
                self._count(event)
            outer(event)

        return sink

    def _count(self, event: StatusEvent) -> None:
        with self._guard:
            before = self._known.get((event.way, event.id), 0)
            self._known[event.way, event.id] = event.current
            # less than before: it is moved once more
            self._moved[event.way] += event.current - before if event.current >= before else event.current

    @property
    def moved(self) -> dict[str, int]:
        """Bytes by where they went."""
        with self._guard:
            return dict(self._moved)
