"""A trace as people read it: which span lies below which, when it began and how long it took. Pure.

Spans may come from clients: parents that are not there, or that are their own, make no difference but to the order.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from lamina.api.pb import otlp_pb2 as pb
from lamina.tracing.messages import spans_of


@dataclass(frozen=True, slots=True)
class Line:
    """One span: `depth` below the first, `start_s` since the first of all began."""

    depth: int
    name: str
    start_s: float
    seconds: float
    status: str


def tree_of(request: pb.ExportTraceServiceRequest) -> list[Line]:
    """Return the spans of a message, each before those below it, in the order they began."""
    spans = sorted(spans_of(request), key=lambda span: (span.start_time_unix_nano, -span.end_time_unix_nano))
    known = {span.span_id for span in spans}
    below: dict[bytes, list[pb.Span]] = defaultdict(list)
    tops = []
    for span in spans:
        if span.parent_span_id in known and span.parent_span_id != span.span_id:
            below[span.parent_span_id].append(span)
        else:
            tops.append(span)
    first = spans[0].start_time_unix_nano if spans else 0
    lines = []
    todo = [(0, span) for span in reversed(tops)]
    while todo:
        depth, span = todo.pop()
        took = max(0, span.end_time_unix_nano - span.start_time_unix_nano)
        lines.append(
            Line(depth, span.name, (span.start_time_unix_nano - first) / 1e9, took / 1e9, _status(span)),
        )
        todo += [(depth + 1, one) for one in reversed(below.pop(span.span_id, []))]
    return lines


def _status(span: pb.Span) -> str:
    if span.status.code == pb.Status.STATUS_CODE_ERROR:
        return "cancelled" if span.status.message == "cancelled" else "failed"
    cached = any(one.key == "lamina.cached" and one.value.bool_value for one in span.attributes)
    return "cached" if cached else ""
