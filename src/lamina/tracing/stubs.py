"""Spans as BuildKit's history holds them: one JSON object after the other, in the words of OpenTelemetry's Go library.

That is what `BuildHistoryRecord.trace` points at and `buildx history trace` reads (it makes Jaeger's JSON of it).
Pure. Clients' spans come in here, too: whatever they hold becomes valid JSON that such a reader takes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from lamina.api.pb import otlp_pb2 as pb

MEDIA_TYPE = "application/vnd.buildkit.otlp.json.v0"
_CODES = {pb.Status.STATUS_CODE_OK: "Ok", pb.Status.STATUS_CODE_ERROR: "Error"}
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_MAX_TIME_NS = 253_402_300_799 * 10**9


def stubs_of(request: pb.ExportTraceServiceRequest) -> bytes:
    """Return the spans of a message."""
    found = bytearray()
    for of_program in request.resource_spans:
        resource = _attributes(of_program.resource.attributes)
        for scoped in of_program.scope_spans:
            scope = {"Name": scoped.scope.name, "Version": scoped.scope.version, "SchemaURL": scoped.schema_url}
            for span in scoped.spans:
                stub = {**_stub(span), "Resource": resource, "InstrumentationLibrary": scope}
                found += json.dumps(stub, separators=(",", ":")).encode() + b"\n"
    return bytes(found)


def _stub(span: pb.Span) -> dict[str, Any]:
    return {
        "Name": span.name,
        "SpanContext": _context(span.trace_id, span.span_id, span.flags),
        "Parent": _context(span.trace_id if span.parent_span_id else b"", span.parent_span_id, span.flags),
        "SpanKind": int(span.kind) if 0 < span.kind <= pb.Span.SPAN_KIND_CONSUMER else pb.Span.SPAN_KIND_INTERNAL,
        "StartTime": _time(span.start_time_unix_nano),
        "EndTime": _time(span.end_time_unix_nano),
        "Attributes": _attributes(span.attributes),
        "Events": [
            {
                "Name": event.name,
                "Attributes": _attributes(event.attributes),
                "DroppedAttributeCount": event.dropped_attributes_count,
                "Time": _time(event.time_unix_nano),
            }
            for event in span.events
        ],
        "Links": [
            {
                "SpanContext": _context(link.trace_id, link.span_id, span.flags),
                "Attributes": _attributes(link.attributes),
                "DroppedAttributeCount": link.dropped_attributes_count,
            }
            for link in span.links
        ],
        "Status": {"Code": _CODES.get(span.status.code, "Unset"), "Description": span.status.message},
        "DroppedAttributes": span.dropped_attributes_count,
        "DroppedEvents": span.dropped_events_count,
        "DroppedLinks": span.dropped_links_count,
        "ChildSpanCount": 0,
    }


def _context(trace_id: bytes, span_id: bytes, flags: int) -> dict[str, Any]:
    return {
        "TraceID": trace_id.hex() if len(trace_id) == 16 else _NO_TRACE,
        "SpanID": span_id.hex() if len(span_id) == 8 else _NO_SPAN,
        "TraceFlags": f"{flags & 1:02x}",
        "TraceState": "",
        "Remote": False,
    }


def _time(nanoseconds: int) -> str:
    """Return a time as RFC 3339 has it, to the nanosecond."""
    from datetime import UTC, datetime

    seconds, rest = divmod(min(nanoseconds, _MAX_TIME_NS), 10**9)
    moment = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
    return f"{moment.isoformat()}.{rest:09d}Z"


def _attributes(values: Iterable[pb.KeyValue]) -> list[dict[str, Any]]:
    found = []
    for one in values:
        value = _value(one.value)
        if value is not None:
            found.append({"Key": one.key, "Value": value})
    return found


def _value(value: pb.AnyValue) -> dict[str, Any] | None:
    """Return a value with its type; None for one that the format has no words for."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return {"Type": "STRING", "Value": value.string_value}
    if kind == "bool_value":
        return {"Type": "BOOL", "Value": value.bool_value}
    if kind == "int_value":
        return {"Type": "INT64", "Value": value.int_value}
    if kind == "double_value" and math.isfinite(value.double_value):
        return {"Type": "FLOAT64", "Value": value.double_value}
    if kind == "array_value":
        texts = (_plain(one) for one in value.array_value.values)
        return {"Type": "STRINGSLICE", "Value": [text for text in texts if text is not None]}
    return None


def _plain(value: pb.AnyValue) -> str | None:
    """Return an element of a list as text: readers take lists of texts only."""
    found = _value(value) if value.WhichOneof("value") != "array_value" else None
    return None if found is None else str(found["Value"])
