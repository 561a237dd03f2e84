"""Spans that clients hand to the daemon: OpenTelemetry's TraceService, as buildctl and buildx call it.

They go where the daemon's own traces go, unchanged, and into the records of the builds whose traces they belong to:
builds under way, and those that ended a moment ago, since clients send their last spans when they leave.

Command lines are left out: they hold the values of build arguments.

Invariants: of one call, and for one build, only so much is taken; what is refused is counted in the answer; nothing
here makes a build wait or fail.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamina.api.pb import otlp_pb2 as pb
from lamina.engine.job import Job
from lamina.engine.traced import add_spans
from lamina.errors import Error
from lamina.rpc.call import ServedCall
from lamina.tracing.context import TraceContext
from lamina.tracing.messages import spans_of
from lamina.tracing.tracer import Tracer

MAX_SPANS_CALL = 5_000
MAX_SPANS_BUILD = 5_000
MAX_BYTES_BUILD = 8 << 20
_KEPT_S = 60.0
_MAX_ENDED = 200
_COMMANDS = ("command", "process.command", "process.command_args", "process.command_line")
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Watched:
    """A build whose clients may have spans for it."""

    trace_id: bytes
    build: str
    waiting: list[pb.ResourceSpans] = field(default_factory=list)
    count: int = 0
    size: int = 0
    ended: float | None = None


class Traces:
    """Takes spans in. Thread-safe.

    Args:
        root: the state directory, with the records.
        tracer: where spans go, None for nowhere but the records.
    """

    def __init__(self, root: Path, tracer: Tracer | None) -> None:
        self._root, self._tracer = root, tracer
        self._watched: list[_Watched] = []
        self._guard = threading.Lock()
        self._writing = threading.Lock()

    @contextmanager
    def of(self, job: Job) -> Iterator[None]:
        """Keep what clients send for a build's trace with its record, while the block lasts and a little longer.

        The job ends within the block, so that its own spans are written by then.
        """
        watched: list[_Watched] = []
        try:
            with job:
                watched.append(_Watched(job.trace.context.trace_id, job.recording.id))
                with self._guard:
                    self._forget()
                    self._watched += watched
                yield
        finally:
            for one in watched:
                with self._guard:
                    one.ended = time.monotonic()
                self._write(one)

    def export(self, request: pb.ExportTraceServiceRequest, _call: ServedCall | None) -> pb.ExportTraceServiceResponse:
        """Take spans from a client; answer how many were refused."""
        refused = _drop_bad(request)
        if self._tracer is not None:
            self._forward(self._tracer, request)
        with self._guard:
            self._forget()
            concerned = {span.trace_id for span in spans_of(request)}
            watched = [one for one in self._watched if one.trace_id in concerned]
            for one in watched:
                _take(one, request)
            ended = [one for one in watched if one.ended is not None]
        for one in ended:
            self._write(one)
        response = pb.ExportTraceServiceResponse()
        if refused:
            response.partial_success.rejected_spans = refused
            response.partial_success.error_message = f"spans without ids, or more than {MAX_SPANS_CALL} at once"
        return response

    def _forward(self, tracer: Tracer, request: pb.ExportTraceServiceRequest) -> None:
        """Send on what the sampler lets pass; clients send sampled spans only."""
        first = next(iter(spans_of(request)), None)
        if first is None:
            return
        context = TraceContext(first.trace_id, first.span_id)
        if tracer.wants(context, context):
            tracer.send(request)

    def _write(self, one: _Watched) -> None:
        """Add what waits for a build to its record."""
        with self._writing:
            with self._guard:
                waiting, one.waiting = one.waiting, []
            if not waiting:
                return
            try:
                add_spans(self._root, one.build, waiting)
            except (Error, OSError, ValueError):
                _log.debug("spans of a client are not in the record of build %s", one.build, exc_info=True)

    def _forget(self) -> None:
        """Forget builds that ended a while ago; called with the guard held."""
        now = time.monotonic()
        ended = [one for one in self._watched if one.ended is not None]
        for number, one in enumerate(ended):
            if now - (one.ended or now) > _KEPT_S or number < len(ended) - _MAX_ENDED:
                self._watched.remove(one)


def _drop_bad(request: pb.ExportTraceServiceRequest) -> int:
    """Drop spans that are none, and those beyond the cap; return how many."""
    refused = taken = 0
    for of_program in request.resource_spans:
        _without_commands(of_program.resource.attributes)
        for scoped in of_program.scope_spans:
            good = []
            for span in scoped.spans:
                if taken < MAX_SPANS_CALL and _is_good(span):
                    _without_commands(span.attributes)
                    good.append(span)
                    taken += 1
                else:
                    refused += 1
            if len(good) < len(scoped.spans):
                kept = list(good)
                del scoped.spans[:]
                scoped.spans.extend(kept)
    return refused


def _without_commands(attributes: Any) -> None:
    """Leave out what holds a command line."""
    for number in reversed(range(len(attributes))):
        if attributes[number].key in _COMMANDS:
            del attributes[number]


def _is_good(span: pb.Span) -> bool:
    return len(span.trace_id) == 16 and any(span.trace_id) and len(span.span_id) == 8 and any(span.span_id)


def _take(one: _Watched, request: pb.ExportTraceServiceRequest) -> None:
    """Let what belongs to a build's trace wait for its record, up to the caps."""
    for of_program in request.resource_spans:
        found = pb.ResourceSpans(resource=of_program.resource, schema_url=of_program.schema_url)
        for scoped in of_program.scope_spans:
            spans = [span for span in scoped.spans if span.trace_id == one.trace_id]
            if spans:
                found.scope_spans.add(scope=scoped.scope, schema_url=scoped.schema_url, spans=spans)
        count = sum(len(scoped.spans) for scoped in found.scope_spans)
        size = found.ByteSize()
        if count and one.count + count <= MAX_SPANS_BUILD and one.size + size <= MAX_BYTES_BUILD:
            one.waiting.append(found)
            one.count, one.size = one.count + count, one.size + size
