"""K3: spans in the forms that others read, checked against OpenTelemetry's own definitions."""

from __future__ import annotations

import json

from google.protobuf.json_format import ParseDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as official
from opentelemetry.proto.trace.v1 import trace_pb2

from lamina.api.pb import otlp_pb2 as pb
from lamina.api.services import TRACE
from lamina.errors import Error
from lamina.progress import VertexEvent
from lamina.tracing.collector import BuildTrace
from lamina.tracing.messages import as_json, request_of, spans_of
from lamina.tracing.stubs import stubs_of
from lamina.tracing.tree import tree_of
from support.collector import attributes_of


def a_trace() -> pb.ExportTraceServiceRequest:
    trace = BuildTrace(is_served=True)
    trace.take(VertexEvent("a", "step a", started=1700000000.25, completed=1700000001.5, cached=True))
    trace.take(VertexEvent("b", "step b", ("a",), started=1700000002.0, completed=1700000003.0, error="exit code 1"))
    spans = trace.finish("build", Error("exit code 1"), {"n": 3, "s": "text", "b": True, "f": 0.5, "l": ("x", "y")})
    return request_of(spans, trace.context, {"service.name": "test"}, "1.0")


def test_the_wire_is_opentelemetrys():
    """Every field that we write is read by the official definitions, and nothing is left over."""
    ours = a_trace()

    theirs = official.ExportTraceServiceRequest.FromString(ours.SerializeToString())

    (resource,) = theirs.resource_spans
    build, first, second = resource.scope_spans[0].spans
    assert attributes_of(resource.resource) == {"service.name": "test"}
    assert attributes_of(build) == {"n": 3, "s": "text", "b": True, "f": 0.5, "l": ["x", "y"]}
    assert build.kind == trace_pb2.Span.SPAN_KIND_SERVER and build.events[0].name == "exception"
    assert first.start_time_unix_nano == 1700000000_250000000 and first.parent_span_id == build.span_id
    assert second.links[0].span_id == first.span_id and second.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    assert theirs.SerializeToString(deterministic=True) == ours.SerializeToString(deterministic=True)


def test_our_text_declares_what_theirs_does():
    """Numbers, types and names of all fields agree."""
    for name, ours in pb.DESCRIPTOR.message_types_by_name.items():
        for module in (official, trace_pb2):
            theirs = module.DESCRIPTOR.message_types_by_name.get(name)
            if theirs is not None:
                assert {(f.number, f.name, f.type) for f in ours.fields} == {
                    (f.number, f.name, f.type) for f in theirs.fields
                }, name
    assert TRACE.methods["Export"].path == "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def test_json_has_ids_in_hexadecimal():
    ours = a_trace()
    found = as_json(ours)

    span = found["resourceSpans"][0]["scopeSpans"][0]["spans"][1]
    message = next(one for one in spans_of(ours) if one.name == "step a")
    assert span["spanId"] == message.span_id.hex() and span["traceId"] == message.trace_id.hex()
    assert span["kind"] == 1 and span["startTimeUnixNano"] == "1700000000250000000"
    for one in found["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name in ("traceId", "spanId", "parentSpanId"):
            one.pop(name, None)
        one.pop("links", None)
    ParseDict(json.loads(json.dumps(found)), official.ExportTraceServiceRequest())


def test_stubs_are_one_object_after_the_other():
    """The form that `buildx history trace` reads: Go's names, codes as words, types of values as it spells them."""
    lines = [json.loads(line) for line in stubs_of(a_trace()).splitlines()]

    build, first, second = lines
    assert first["Name"] == "step a" and first["StartTime"] == "2023-11-14T22:13:20.250000000Z"
    assert first["Parent"]["SpanID"] == build["SpanContext"]["SpanID"] and build["Parent"]["TraceID"] == "0" * 32
    assert second["Status"] == {"Code": "Error", "Description": "exit code 1"}
    assert {"Key": "l", "Value": {"Type": "STRINGSLICE", "Value": ["x", "y"]}} in build["Attributes"]
    assert {"Key": "n", "Value": {"Type": "INT64", "Value": 3}} in build["Attributes"]
    assert build["Resource"] == [{"Key": "service.name", "Value": {"Type": "STRING", "Value": "test"}}]


def test_the_tree_is_in_order():
    trace = BuildTrace(started=1.0)
    trace.take(VertexEvent("b", "step b", started=3.0, completed=4.0, error="exit code 1"))
    trace.take(VertexEvent("a", "step a", started=2.0, completed=2.5, cached=True))

    request = request_of(trace.finish("build", None, {}), trace.context, {}, "1.0")

    assert [(line.depth, line.name, line.start_s, line.status) for line in tree_of(request)] == [
        (0, "build", 0.0, ""),
        (1, "step a", 1.0, "cached"),
        (1, "step b", 2.0, "failed"),
    ]


IDS = st.sampled_from([b"", b"1" * 8, b"2" * 8, b"3" * 8, b"short"])
VALUES = st.deferred(
    lambda: st.one_of(
        st.builds(lambda text: pb.AnyValue(string_value=text), st.text(max_size=5)),
        st.builds(lambda number: pb.AnyValue(double_value=number), st.floats()),
        st.builds(lambda number: pb.AnyValue(int_value=number), st.integers(-(2**63), 2**63 - 1)),
        st.builds(lambda data: pb.AnyValue(bytes_value=data), st.binary(max_size=5)),
        st.builds(lambda some: pb.AnyValue(array_value=pb.ArrayValue(values=some)), st.lists(VALUES, max_size=3)),
        st.just(pb.AnyValue()),
    )
)
SPANS = st.builds(
    lambda trace_id, span_id, parent, start, end, kind, value: pb.Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=parent,
        name="n",
        start_time_unix_nano=start,
        end_time_unix_nano=end,
        kind=kind,
        attributes=[pb.KeyValue(key="k", value=value)],
    ),
    st.sampled_from([b"", b"t" * 16, b"x"]),
    IDS,
    IDS,
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 1, 5, 77]),
    VALUES,
)


@given(st.lists(SPANS, max_size=8))
def test_whatever_clients_send_is_shown(spans: list[pb.Span]):
    """Spans whose parents make no tree, with any ids, times and values: valid JSON, every span once or not at all."""
    request = pb.ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.extend(spans)

    lines = [json.loads(line, parse_constant=lambda text: 1 / 0) for line in stubs_of(request).splitlines()]

    assert len(lines) == len(spans)
    assert all(len(line["SpanContext"]["TraceID"]) == 32 and len(line["EndTime"]) == 30 for line in lines)
    assert len(tree_of(request)) <= len(spans)
