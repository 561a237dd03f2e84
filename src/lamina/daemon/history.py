"""Builds that were, told as BuildKit's clients ask: `ListenBuildHistory`, `UpdateBuildHistory`, progress replayed."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.rpc.status_pb2 import Status

from lamina.api.errors import NotFoundError
from lamina.api.pb import control_pb2
from lamina.cancel import Cancel
from lamina.daemon.builds import Builds
from lamina.daemon.exports import response_of
from lamina.daemon.status import status_messages, timestamp
from lamina.engine import history
from lamina.errors import InputError
from lamina.history.records import Build, Step
from lamina.progress import Event, LogEvent, VertexEvent
from lamina.tracing.stubs import MEDIA_TYPE

_ERROR_TYPE = "application/vnd.googeapis.google.rpc.status+proto"
"""As BuildKit spells it."""


def listen(
    root: Path, builds: Builds, request: control_pb2.BuildHistoryRequest, cancel: Cancel
) -> Iterator[control_pb2.BuildHistoryEvent]:
    """Yield an event for each record, oldest first, and then what happens, unless an early end is asked for."""
    events: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    with builds.listening(events.put), cancel.closing(lambda: events.put(None)):
        for build in reversed(_chosen(root, request)):
            yield _event(build)
        if request.EarlyExit:
            return
        while (ref := events.get()) is not None:
            if request.Ref and request.Ref != ref:
                continue
            found = find(root, ref)
            if found is not None and _is_internal(found):
                continue
            if found is not None and not (request.ActiveOnly and found.completed is not None):
                yield _event(found)
            elif found is None:
                record = control_pb2.BuildHistoryRecord(Ref=ref)
                yield control_pb2.BuildHistoryEvent(type=control_pb2.DELETED, record=record)


def _chosen(root: Path, request: control_pb2.BuildHistoryRequest) -> list[Build]:
    """Return the records that are asked for, newest first."""
    wanted: dict[str, set[str]] = {}
    for text in request.Filter:
        for part in filter(None, text.split(",")):
            name, equals, value = part.partition("==") if "==" in part else part.partition("=")
            if name not in ("ref", "status") or not equals:
                raise InputError(f"history: filter {part[:80]!r} is not understood", hint="ref=ID, status=STATE")
            wanted.setdefault(name, set()).add(value)
    found = []
    for build in history.builds(root):
        if _is_internal(build) or (request.ActiveOnly and build.completed is not None):
            continue
        ref = ref_of(build)
        if (request.Ref and ref != request.Ref) or (wanted.get("ref") and ref not in wanted["ref"]):
            continue
        if wanted.get("status") and _status_name(build) not in wanted["status"]:
            continue
        found.append(build)
        if request.Limit > 0 and len(found) >= request.Limit:
            break
    return found


def _status_name(build: Build) -> str:
    return {"failed": "error", "cancelled": "canceled", "died": "error"}.get(build.status, build.status)


def _is_internal(build: Build) -> bool:
    """Tell whether a build's client wants no record of it; there is one only while it is under way."""
    client = build.record.get("client")
    return isinstance(client, dict) and bool(client.get("internal"))


def ref_of(build: Build) -> str:
    """Return how clients name a build: the reference that its client chose, or its id."""
    client = build.record.get("client")
    return str(client.get("ref") or build.id) if isinstance(client, dict) else build.id


def find(root: Path, ref: str) -> Build | None:
    """Return the newest record of that reference, None when there is none."""
    return next((build for build in history.builds(root) if ref in (ref_of(build), build.id)), None)


def replay(root: Path, ref: str) -> Iterator[control_pb2.StatusResponse]:
    """Yield the progress of a build that is over.

    Raises:
        NotFoundError: it left no record.
    """
    build = find(root, ref)
    if build is None:
        raise NotFoundError(f"no such build: {ref[:200]!r}")
    _, steps = history.show(root, build.id)
    events: list[Event] = [_vertex(step) for step in steps]
    yield from status_messages(events, "")
    for step, pieces in history.logs(root, build.id):
        for piece in pieces:
            event = LogEvent(step.vertex or step.name, 1, piece, step.completed or step.started or build.started)
            yield from status_messages([event], "")


def _vertex(step: Step) -> VertexEvent:
    return VertexEvent(
        step.vertex or step.name, step.name, (), step.started, step.completed, cached=step.cached, error=step.error
    )


def update(root: Path, builds: Builds, request: control_pb2.UpdateBuildHistoryRequest) -> None:
    """Drop a record, pin it or unpin it. Records are whole when a build ends, so there is nothing to finalize.

    Raises:
        NotFoundError: there is no such record; InputError: its build is still under way.
    """
    build = find(root, request.Ref)
    if build is None:
        raise NotFoundError(f"no such build: {request.Ref[:200]!r}")
    if request.Delete:
        history.remove(root, [build.id])
    elif not request.Finalize:
        history.pin(root, build.id, request.Pinned)
    builds.tell(request.Ref)


def _event(build: Build) -> control_pb2.BuildHistoryEvent:
    kind = control_pb2.STARTED if build.completed is None and build.status == "running" else control_pb2.COMPLETE
    return control_pb2.BuildHistoryEvent(type=kind, record=_record(build))


def _record(build: Build) -> control_pb2.BuildHistoryRecord:
    record: dict[str, Any] = dict(build.record)
    client: dict[str, Any] = record.get("client") or {}
    message = control_pb2.BuildHistoryRecord(
        Ref=ref_of(build),
        Frontend=client.get("frontend", ""),
        FrontendAttrs=client.get("attrs") or _attrs(record),
        CreatedAt=timestamp(build.started),
        CompletedAt=timestamp(build.completed),
        numCachedSteps=build.cached,
        numTotalSteps=build.steps,
        numCompletedSteps=build.steps if build.status == "completed" else build.cached,
        pinned=build.pinned,
        numWarnings=len(record.get("warnings") or ()),
        ExporterResponse=response_of(record.get("metadata") or {}),
    )
    trace = record.get("trace") or {}
    if "digest" in trace:
        message.trace.CopyFrom(
            control_pb2.Descriptor(media_type=MEDIA_TYPE, digest=trace["digest"], size=trace["size"])
        )
    image = (record.get("metadata") or {}).get("containerimage.descriptor")
    if isinstance(image, dict):
        found = message.Result.Results[0]
        found.media_type, found.digest, found.size = image["mediaType"], image["digest"], image["size"]
    for one in client.get("exporters") or ():
        message.Exporters.add(Type=one.get("type", ""), Attrs=one.get("attrs") or {})
    if build.error or build.status in ("failed", "cancelled", "died"):
        failure = record.get("failure") or {}
        code = 1 if build.status == "cancelled" else failure.get("code", 2)
        message.error.CopyFrom(Status(code=code, message=build.error or build.status))
        if "digest" in failure:
            message.externalError.CopyFrom(
                control_pb2.Descriptor(media_type=_ERROR_TYPE, digest=failure["digest"], size=failure["size"])
            )
    return message


def _attrs(record: dict[str, Any]) -> dict[str, str]:
    """Return what a build of the command line would have told a frontend."""
    options = record.get("options") or {}
    found = {f"build-arg:{name}": str(value) for name, value in (record.get("build_args") or {}).items()}
    dockerfile = (record.get("dockerfile") or {}).get("name", "")
    named = {"filename": dockerfile, "target": options.get("target", ""), "context": str(record.get("context") or "")}
    return found | {name: text for name, text in named.items() if text}
