"""Blobs that move between registries and the store, told as progress."""

from __future__ import annotations

import time

from lamina.progress import PULLED, PUSHED, Sink, StatusEvent, done_for


class Transfers:
    """Turns the registry client's reports into status events."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def moved(self, digest: str, current: int, total: int) -> None:
        """Tell of a blob that moves here."""
        self._tell(digest, current, total, PULLED)

    def sent(self, digest: str, current: int, total: int) -> None:
        """Tell of a blob that moves to a registry."""
        self._tell(digest, current, total, PUSHED)

    def _tell(self, digest: str, current: int, total: int, way: str) -> None:
        now = time.time()
        completed = now if current >= total else None
        name = f"pushing {digest[:19]}" if way == PUSHED else digest[:19]
        self._sink(StatusEvent(done_for(), name, current, total, started=now, completed=completed, way=way))
