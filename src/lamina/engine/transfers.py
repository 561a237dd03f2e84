"""Blobs that move between registries and the store, told as progress."""

from __future__ import annotations

import time

from lamina.progress import Sink, StatusEvent, done_for


class Transfers:
    """Turns the registry client's reports into status events."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def moved(self, digest: str, current: int, total: int) -> None:
        """Tell of a blob that moves."""
        now = time.time()
        completed = now if current >= total else None
        self._sink(StatusEvent(done_for(), digest[:19], current, total, started=now, completed=completed))
