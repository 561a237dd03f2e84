"""Progress events as the messages of `Control.Status`. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from lamina.api.pb import control_pb2
from lamina.errors import SourceRange
from lamina.llb.pb import ops_pb2 as pb
from lamina.progress import Event, LogEvent, StatusEvent, VertexEvent, WarningEvent

MAX_MESSAGE = 1 << 20
"""Most bytes of logs in one message, so that it stays far below what gRPC takes."""


def status_messages(events: Iterable[Event], first_vertex: str) -> list[control_pb2.StatusResponse]:
    """Return the messages that tell of events, in order; of a thing that moved on several times only the last.

    Args:
        first_vertex: digest of a vertex that the client has heard of, for what belongs to none.
    """
    messages = [control_pb2.StatusResponse()]
    statuses: dict[tuple[str, str], StatusEvent] = {}
    size = 0
    for event in events:
        message = messages[-1]
        if isinstance(event, VertexEvent):
            _add_vertex(message, event)
        elif isinstance(event, StatusEvent):
            statuses[event.vertex, event.id] = event
        elif isinstance(event, LogEvent):
            if size + len(event.data) > MAX_MESSAGE:
                messages.append(control_pb2.StatusResponse())
                message, size = messages[-1], 0
            size += len(event.data)
            message.logs.add(
                vertex=digest_of(event.vertex or first_vertex),
                timestamp=timestamp(event.timestamp),
                stream=event.stream,
                msg=event.data,
            )
        else:
            _add_warning(message, event, first_vertex)
    for event in statuses.values():
        _add_status(messages[-1], event, first_vertex)
    return [message for message in messages if message.ByteSize()]


def digest_of(name: str) -> str:
    """Return a vertex's digest; what is no op has one made of its name."""
    if name.startswith("sha256:") and len(name) == 71:
        return name
    return "sha256:" + hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def timestamp(seconds: float | None) -> Any:
    """Return a time, None for none."""
    if seconds is None:
        return None
    whole = int(seconds // 1)
    return Timestamp(seconds=whole, nanos=int((seconds - whole) * 1e9))


def _add_vertex(message: control_pb2.StatusResponse, event: VertexEvent) -> None:
    message.vertexes.add(
        digest=digest_of(event.digest),
        inputs=map(digest_of, event.inputs),
        name=event.name,
        cached=event.cached,
        started=timestamp(event.started),
        completed=timestamp(event.completed),
        error=event.error,
    )


def _add_status(message: control_pb2.StatusResponse, event: StatusEvent, first_vertex: str) -> None:
    message.statuses.add(
        ID=event.id,
        vertex=digest_of(event.vertex or first_vertex),
        name=event.id,
        current=event.current,
        total=event.total,
        timestamp=timestamp(event.completed or event.started),
        started=timestamp(event.started),
        completed=timestamp(event.completed),
    )


def _add_warning(message: control_pb2.StatusResponse, event: WarningEvent, first_vertex: str) -> None:
    added = message.warnings.add(
        vertex=digest_of(event.vertex or first_vertex),
        level=event.level,
        short=event.short.encode("utf-8", "replace"),
        detail=[line.encode("utf-8", "replace") for line in event.detail],
        url=event.url,
    )
    if event.source is not None:
        added.info.CopyFrom(source_info(event.source))
        added.ranges.append(
            pb.Range(start=pb.Position(line=event.source.start), end=pb.Position(line=event.source.end))
        )


def source_info(source: SourceRange) -> pb.SourceInfo:
    """Return a source text as clients show it."""
    data = source.text.encode("utf-8", "surrogateescape")
    return pb.SourceInfo(filename=source.file, data=data, language="Dockerfile")
