"""Spans as OTLP's messages, as OTLP's JSON, and back to what people read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lamina.api.pb import otlp_pb2 as pb
from lamina.tracing.collector import Span, Value
from lamina.tracing.context import TraceContext

SCOPE = "lamina"
_IDS = ("traceId", "spanId", "parentSpanId")
_HAS_PARENT_FLAGS = 0x100  # whether the parent is of another process is known


def request_of(
    spans: Sequence[Span], context: TraceContext, resource: Mapping[str, str], version: str
) -> pb.ExportTraceServiceRequest:
    """Return spans of one trace as a message.

    Args:
        context: of the first of them.
        resource: attributes of the program they come from.
    """
    request = pb.ExportTraceServiceRequest()
    of_program = request.resource_spans.add()
    of_program.resource.attributes.extend(_attributes(resource))
    scoped = of_program.scope_spans.add(scope=pb.InstrumentationScope(name=SCOPE, version=version))
    for span in spans:
        _add(scoped, span, context)
    return request


def _add(scoped: pb.ScopeSpans, span: Span, context: TraceContext) -> None:
    status = pb.Status(code=pb.Status.STATUS_CODE_ERROR, message=span.error) if span.error else None
    message = scoped.spans.add(
        trace_id=context.trace_id,
        span_id=span.span_id,
        trace_state=context.state,
        parent_span_id=span.parent_id,
        name=span.name,
        kind=pb.Span.SPAN_KIND_SERVER if span.is_entry else pb.Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=_nanoseconds(span.start),
        end_time_unix_nano=_nanoseconds(span.end),
        attributes=_attributes(span.attributes),
        status=status,
        flags=_HAS_PARENT_FLAGS | int(context.sampled),
    )
    for link in span.links:
        message.links.add(trace_id=context.trace_id, span_id=link)
    for moment, name, attributes in span.events:
        message.events.add(time_unix_nano=_nanoseconds(moment), name=name, attributes=_attributes(attributes))


def _nanoseconds(seconds: float) -> int:
    return max(0, round(seconds * 1e6)) * 1000  # a float holds today's time to a quarter of a microsecond


def _attributes(values: Mapping[str, Value] | Mapping[str, str]) -> list[pb.KeyValue]:
    return [pb.KeyValue(key=name, value=_value(value)) for name, value in values.items()]


def _value(value: Value) -> pb.AnyValue:
    if isinstance(value, bool):
        return pb.AnyValue(bool_value=value)
    if isinstance(value, int):
        return pb.AnyValue(int_value=value)
    if isinstance(value, float):
        return pb.AnyValue(double_value=value)
    if isinstance(value, tuple):
        return pb.AnyValue(array_value=pb.ArrayValue(values=map(_value, value)))
    return pb.AnyValue(string_value=value)


def spans_of(request: pb.ExportTraceServiceRequest) -> Iterable[pb.Span]:
    """Iterate over the spans of a message."""
    for of_program in request.resource_spans:
        for scoped in of_program.scope_spans:
            yield from scoped.spans


def as_json(request: pb.ExportTraceServiceRequest) -> dict[str, Any]:
    """Return a message as OTLP's JSON: ids in hexadecimal, kinds and codes as numbers."""
    from google.protobuf.json_format import MessageToDict

    found: dict[str, Any] = MessageToDict(request, use_integers_for_enums=True)
    for of_program in found.get("resourceSpans", ()):
        for scoped in of_program.get("scopeSpans", ()):
            for span in scoped.get("spans", ()):
                for one in (span, *span.get("links", ())):
                    _hexadecimal(one)
    return found


def _hexadecimal(values: dict[str, Any]) -> None:
    import base64

    for name in _IDS:
        if name in values:
            values[name] = base64.b64decode(values[name]).hex()
