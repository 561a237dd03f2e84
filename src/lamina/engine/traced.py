"""The trace of a build when it ends: kept with its record, and sent where traces go; and what a client hears of errors.

In: what `tracing.collector` gathered, how the build ended. Out: two files in the record's folder (OTLP's protobuf, and
BuildKit's form for clients that ask the daemon), what the record says of them, a message for the `Tracer` if there is
one. Whatever goes wrong here costs the trace, never the build.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lamina import __version__
from lamina.errors import CancelledError, Error
from lamina.history.recorder import folder_of
from lamina.tracing.collector import BuildTrace, Value
from lamina.tracing.context import SERVICE

if TYPE_CHECKING:
    from lamina.api.pb import otlp_pb2 as pb
    from lamina.engine.job import Job

FILE, STUBS_FILE, FAILURE_FILE = "trace.otlp.z", "trace.json.z", "failure.pb.z"
MAX_BYTES = 32 << 20
"""Largest trace, not compressed; of one that is larger only what was sent remains."""
NAME = "build"
"""Of the span of each build."""


class Traced:
    """Stands between a job's record and what else it holds; leaving it ends the trace."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def __enter__(self) -> Traced:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._end(error)
            if isinstance(error, Error) and self._job.is_served:
                folder = folder_of(self._job.place.root, self._job.recording.id)
                self._job.recording.beside("failure", keep_failure(folder, error))
        except Exception:  # told to nobody: the build is what counts
            logging.getLogger(__name__).debug("no trace of the build", exc_info=True)

    def _end(self, error: BaseException | None) -> None:
        from lamina.tracing.messages import request_of

        job, tracer = self._job, self._job.environment.tracer
        trace = job.trace
        spans = trace.finish(NAME, error, self._attributes(error), job.options.build_args)
        resource = tracer.settings.resource if tracer is not None else default_resource()
        request = request_of(spans, trace.context, resource, __version__)
        kept = keep_trace(folder_of(job.place.root, job.recording.id), request)
        job.recording.beside("trace", {"id": trace.context.trace_id.hex(), **kept})
        if tracer is not None and tracer.wants(trace.context, trace.parent):
            tracer.send(request)

    def _attributes(self, error: BaseException | None) -> dict[str, Value]:
        job = self._job
        cancelled = isinstance(error, (CancelledError, KeyboardInterrupt))
        figures = job.recording.figures
        return {
            "lamina.build.id": job.recording.id,
            "lamina.build.status": "completed" if error is None else "cancelled" if cancelled else "failed",
            "lamina.build.steps": figures.steps,
            "lamina.build.cached_steps": figures.cached,
            "lamina.build.target": job.options.target,
            "lamina.build.platforms": tuple(job.options.platforms),
            **job.recording.described,
        }


def default_resource() -> dict[str, str]:
    """Return what is said of this program where nobody said anything else."""
    return {"service.name": SERVICE, "service.version": __version__}


def keep_trace(folder: Path, request: pb.ExportTraceServiceRequest) -> dict[str, Any]:
    """Write a trace down; return what the record is to say of it.

    Raises:
        OSError: it cannot be written.
    """
    from lamina.tracing.messages import spans_of
    from lamina.tracing.stubs import stubs_of

    count = sum(1 for _ in spans_of(request))
    data = request.SerializeToString()
    stubs = stubs_of(request)
    if len(data) > MAX_BYTES or len(stubs) > 4 * MAX_BYTES:
        return {"spans": count}
    folder.mkdir(parents=True, exist_ok=True)
    size = _write(folder / FILE, data) + _write(folder / STUBS_FILE, stubs)
    digest = f"sha256:{hashlib.sha256(stubs).hexdigest()}"
    return {"spans": count, "digest": digest, "size": len(stubs), "kept_bytes": size}


def add_spans(root: Path, build: str, spans: Sequence[pb.ResourceSpans]) -> None:
    """Add spans that came from elsewhere to the trace in a record, as long as there is room.

    Args:
        build: id of a build that has ended; nothing happens when its record is gone.

    Raises:
        StorageError, OSError: it cannot be written.
    """
    from lamina.api.pb import otlp_pb2 as pb
    from lamina.state.db import State

    state = State(root)
    try:
        row = state.execute("SELECT json_extract(record, '$.trace') FROM build WHERE id = ?", (build,)).fetchone()
        if row is None:
            return
        folder = folder_of(root, build)
        request = kept_trace(folder) or pb.ExportTraceServiceRequest()
        request.resource_spans.extend(spans)
        known = json.loads(row[0]) if row[0] else {}
        told = keep_trace(folder, request)
        if "digest" not in told:
            return  # no room: what was kept stays
        grown = told["kept_bytes"] - known.get("kept_bytes", 0)
        state.execute(
            """UPDATE build SET record = json_set(record, '$.trace', json(?)), log_bytes = log_bytes + ?
            WHERE id = ?""",
            (json.dumps({**known, **told}), grown, build),
        )
    finally:
        state.close()


def _write(path: Path, data: bytes) -> int:
    packed = zlib.compress(data, 3)
    making = path.with_suffix(".tmp")
    making.touch(0o600)
    making.write_bytes(packed)
    os.replace(making, path)
    return len(packed)


def kept_trace(folder: Path) -> pb.ExportTraceServiceRequest | None:
    """Return the trace of a build; None where there is none that can be read."""
    from lamina.api.pb import otlp_pb2 as pb

    data = _read(folder / FILE, MAX_BYTES)
    try:
        return pb.ExportTraceServiceRequest.FromString(data) if data is not None else None
    except Exception:  # protobuf's implementations raise different things
        return None


def kept_stubs(folder: Path) -> bytes | None:
    """Return the trace of a build in BuildKit's form; None where there is none that can be read."""
    return _read(folder / STUBS_FILE, 4 * MAX_BYTES)


def keep_failure(folder: Path, error: BaseException) -> dict[str, Any]:
    """Write down what a client is told of an error, with its lines and its vertex; return what the record is to say.

    Raises:
        OSError: it cannot be written.
    """
    from lamina.api.errors import status_of

    status = status_of(error)
    data = status.SerializeToString()
    if len(data) > MAX_BYTES:
        return {"code": status.code}
    folder.mkdir(parents=True, exist_ok=True)
    kept = _write(folder / FAILURE_FILE, data)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"code": status.code, "digest": digest, "size": len(data), "kept_bytes": kept}


def kept_failure(folder: Path) -> bytes | None:
    """Return what a client was told of a build's error, a `google.rpc.Status`; None where there is none."""
    return _read(folder / FAILURE_FILE, MAX_BYTES)


def _read(path: Path, most: int) -> bytes | None:
    try:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(path.read_bytes(), most + 1)
    except (OSError, zlib.error):
        return None
    return data if unpacker.eof and len(data) <= most else None


def send_cached(
    tracer: Any, started: float, steps: Sequence[str], attributes: Mapping[str, str | tuple[str, ...]]
) -> None:
    """Send the trace of a build that was found whole: a span for it, and one for each step.

    Args:
        tracer: a `tracing.tracer.Tracer`.
        started: seconds since the epoch.
    """
    from lamina.progress import VertexEvent
    from lamina.tracing.messages import request_of

    trace = BuildTrace(tracer.settings.parent, started=started)
    for number, name in enumerate(steps):
        trace.take(VertexEvent(f"step:{number + 1}", name, started=started, completed=started, cached=True))
    if tracer.wants(trace.context, trace.parent):
        counted: dict[str, Value] = {"lamina.build.steps": len(steps), "lamina.build.cached_steps": len(steps)}
        told = {"lamina.build.status": "completed", **counted, **attributes}
        spans = trace.finish(NAME, None, told)
        tracer.send(request_of(spans, trace.context, tracer.settings.resource, __version__))
