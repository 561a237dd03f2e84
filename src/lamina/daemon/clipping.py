"""How much of a step's output clients are shown: as much as it writes, unless the daemon's owner sets a limit.

The record of the build has all of it in any case: what is clipped here has passed the recorder already. Limits are
buildkitd's (`BUILDKIT_STEP_LOG_MAX_SIZE`, `BUILDKIT_STEP_LOG_MAX_SPEED`): bytes of one step, and bytes for each second
since its output began. Thread-safe.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, replace

from lamina.errors import InputError
from lamina.progress import Event, LogEvent, Sink

_MAX_STEPS = 100_000


@dataclass(frozen=True, slots=True)
class LogLimits:
    """Limits for each step, None for none: bytes, and bytes a second."""

    size: int | None = None
    speed: int | None = None


def parse_limit(text: str, name: str) -> int | None:
    """Return a limit in bytes; None for -1 and "".

    Args:
        name: of the variable, for the error.

    Raises:
        InputError: not a number of bytes.
    """
    if text.strip() in ("", "-1"):
        return None
    if not text.strip().isascii() or not text.strip().isdigit() or len(text) > 18:
        raise InputError(f"{name}={text[:40]!r} is not a number of bytes", hint="-1 for no limit")
    return int(text)


@dataclass(slots=True)
class _Shown:
    """What was shown of a step's output."""

    began: float
    size: int = 0
    is_clipped: bool = False


class Clipping:
    """Clips the output of one build's steps."""

    def __init__(self, limits: LogLimits) -> None:
        self._limits = limits
        self._guard = threading.Lock()
        self._shown: dict[str, _Shown] = {}

    def through(self, outer: Sink) -> Sink:
        """Return a sink that hands events on, output up to the limits; `outer` itself where there are none."""
        if self._limits == LogLimits():
            return outer

        def sink(event: Event) -> None:
            if not isinstance(event, LogEvent):
                outer(event)
                return
            for one in self._clip(event):
                outer(one)

        return sink

    def _clip(self, event: LogEvent) -> list[LogEvent]:
        with self._guard:
            if event.vertex not in self._shown and len(self._shown) >= _MAX_STEPS:
                return []
            shown = self._shown.setdefault(event.vertex, _Shown(event.timestamp))
            allowed, why = self._allowed(shown, event.timestamp)
            room = len(event.data) if allowed == math.inf else max(0, int(allowed) - shown.size)
            data = event.data[:room]
            shown.size += len(data)
            found = [replace(event, data=data)] if data else []
            if len(data) == len(event.data):
                shown.is_clipped = False
            elif not shown.is_clipped:
                shown.is_clipped = True
                found.append(replace(event, stream=2, data=f"\n[output clipped, log limit {why} reached]\n".encode()))
            return found

    def _allowed(self, shown: _Shown, now: float) -> tuple[float, str]:
        """Return how many bytes may have been shown by now, and which limit says so."""
        size = math.inf if self._limits.size is None else self._limits.size
        if self._limits.speed is not None:
            by_now = max(1, math.ceil(now - shown.began)) * self._limits.speed
            if by_now < size:
                return by_now, f"{_words(self._limits.speed)}/s"
        return size, "" if self._limits.size is None else _words(self._limits.size)


def _words(size: int) -> str:
    for unit, power in (("MiB", 20), ("KiB", 10)):
        if size >= 1 << power and size % (1 << power) == 0:
            return f"{size >> power}{unit}"
    return f"{size}B"
