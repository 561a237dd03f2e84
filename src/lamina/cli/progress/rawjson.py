"""The `rawjson` display: one JSON object per event, in the shape of BuildKit's `SolveStatus`, as buildx prints it.

Bytes are base64, times RFC 3339 with nanoseconds, absent values left out. For programs.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import time
from typing import Any, TextIO

from lamina.errors import SourceRange
from lamina.progress import Event, LogEvent, StatusEvent, VertexEvent


class RawJson:
    """Writes one line per event to `stream`.

    Args:
        stream: where to; a stream that breaks is not written to again.
        clock: seconds since the epoch, for events that carry no time of their own.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time) -> None:
        self._stream = stream
        self._clock = clock
        self._lock = threading.Lock()
        self._broken = False

    def sink(self, event: Event) -> None:
        """Write one event."""
        line = json.dumps(status_object(event, self._clock()), separators=(",", ":"))
        with self._lock:
            if self._broken:
                return
            try:
                self._stream.write(line + "\n")
                self._stream.flush()
            except (OSError, ValueError):
                self._broken = True

    def close(self, error: BaseException | None, names: Sequence[str] = ()) -> bool:
        """Write nothing more: the last vertex event tells how it ended."""
        return False


def status_object(event: Event, now: float) -> dict[str, Any]:
    """Return `event` as a `SolveStatus` object with one element."""
    if isinstance(event, VertexEvent):
        vertex = {
            "digest": event.digest,
            "inputs": [*event.inputs],
            "name": _text(event.name),
            "started": _time(event.started),
            "completed": _time(event.completed),
            "cached": event.cached,
            "error": _text(event.error),
            "reason": _text(event.reason),
        }
        return {"vertexes": [_without_empty(vertex, keep=("digest", "name"))]}
    if isinstance(event, StatusEvent):
        status = {
            "id": _text(event.id),
            "vertex": event.vertex,
            "total": event.total,
            "current": event.current,
            "timestamp": _time(event.completed if event.completed is not None else now),
            "started": _time(event.started),
            "completed": _time(event.completed),
        }
        return {"statuses": [_without_empty(status, keep=("id", "vertex", "current", "timestamp"))]}
    if isinstance(event, LogEvent):
        log = {
            "vertex": event.vertex,
            "stream": event.stream,
            "data": _base64(event.data),
            "timestamp": _time(event.timestamp),
        }
        return {"logs": [log]}
    warning = {
        "vertex": event.vertex,
        "level": event.level,
        "short": _base64(_encode(event.short)),
        "detail": [_base64(_encode(line)) for line in event.detail],
        "url": event.url,
        **_source(event.source),
    }
    return {"warnings": [_without_empty(warning, keep=("vertex", "level", "short"))]}


def _source(source: SourceRange | None) -> dict[str, Any]:
    """Return where in the Dockerfile a warning points, in BuildKit's shape."""
    if source is None:
        return {}
    info = {"filename": source.file, "data": _base64(_encode(source.text))}
    return {"sourceInfo": info, "range": [{"start": {"line": source.start}, "end": {"line": source.end}}]}


def _without_empty(values: dict[str, Any], keep: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value or key in keep}


def _time(seconds: float | None) -> str:
    """Return RFC 3339 with nanoseconds, "" for None."""
    if seconds is None:
        return ""
    whole = int(seconds // 1)
    moment = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{int((seconds - whole) * 1_000_000):06d}000Z"


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(text: str) -> str:
    """Return `text` as valid Unicode: bytes that are not UTF-8 become replacement characters."""
    return _encode(text).decode("utf-8", "replace")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
