"""K3: what OpenTelemetry's variables mean."""

from __future__ import annotations

import pytest

from lamina.errors import InputError
from lamina.tracing.context import TraceContext, context_of, new_trace, parse_traceparent
from lamina.tracing.settings import Sampler, parse_settings

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_SERVICE_NAME": "x", "TRACEPARENT": "y"},
        {"OTEL_TRACES_EXPORTER": "none", **ENDPOINT},
        {"OTEL_SDK_DISABLED": "true", **ENDPOINT},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
)
def test_nothing_is_sent_unless_a_place_is_named(variables: dict[str, str]):
    assert parse_settings(variables) is None


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "http://localhost:4318/v1/traces"),
        (ENDPOINT, "http://collector:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c/prefix/"}, "https://c/prefix/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:1/as/it/is", **ENDPOINT}, "http://c:1/as/it/is"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:1"}, "http://c:1/"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http://localhost:4317"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc", **ENDPOINT}, "http://collector:4318"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://jaeger:4317/"}, "http://jaeger:4317"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "unix:///dev/otel-grpc.sock"}, "unix:///dev/otel-grpc.sock"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "http://c:4317/v1/traces",
        ),
    ],
)
def test_where_to_post(variables: dict[str, str], url: str):
    """The general place is a base; the one for traces is taken as it is."""
    settings = parse_settings(variables)

    assert settings is not None and settings.url == url


def test_the_variables_for_traces_count_first():
    settings = parse_settings(
        {
            **ENDPOINT,
            "OTEL_EXPORTER_OTLP_HEADERS": "a=1",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "X-Key=b%3Dc, other = d",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "500",
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "2500",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": "/ca.pem",
        }
    )

    assert settings is not None
    assert settings.headers == {"x-key": "b=c", "other": "d"}
    assert settings.timeout_s == 2.5 and settings.timeout_given
    assert settings.gzip and settings.protocol == "http/protobuf" and settings.certificate == "/ca.pem"
    assert "b=c" not in repr(settings)


def test_the_service_has_a_name_of_its_own():
    """OTEL_SERVICE_NAME counts before OTEL_RESOURCE_ATTRIBUTES."""
    plain = parse_settings(ENDPOINT)
    named = parse_settings(
        {**ENDPOINT, "OTEL_SERVICE_NAME": "ci", "OTEL_RESOURCE_ATTRIBUTES": "service.name=x,zone=eu%2Cwest"}
    )

    assert plain is not None and plain.resource["service.name"] == "lamina"
    assert named is not None and named.resource["service.name"] == "ci" and named.resource["zone"] == "eu,west"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "jaeger"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:99999"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a b/"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "unix://relative.sock"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a/?token=s3cr3t"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "thrift"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "br"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1s"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "s3cr3t"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=s3cr3t%0d%0aB: c"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=s3cr3t"),
        ("OTEL_RESOURCE_ATTRIBUTES", "=x"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
    ],
)
def test_what_makes_no_sense_is_named_without_values_that_may_be_secret(name: str, value: str):
    sampler = {"OTEL_TRACES_SAMPLER": "traceidratio"} if name.endswith("_ARG") else {}

    with pytest.raises(InputError) as caught:
        parse_settings({**ENDPOINT, **sampler, name: value})

    assert name in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, {None: True, False: False, True: True}),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, {None: False, False: False, True: False}),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, {None: True, False: True, True: True}),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, {None: False, False: False, True: True}),
    ],
)
def test_which_traces_are_sent(variables: dict[str, str], wanted: dict[bool | None, bool]):
    """By the parent, where there is one and the sampler heeds it."""
    settings = parse_settings({**ENDPOINT, **variables})
    assert settings is not None

    for sampled, sent in wanted.items():
        parent = None if sampled is None else TraceContext(b"t" * 16, b"s" * 8, sampled)
        assert settings.sampler.wants(b"t" * 16, parent) is sent


def test_a_ratio_of_traces_by_their_ids():
    sampler = Sampler(0.25)

    sent = sum(sampler.wants(new_trace().trace_id, None) for _ in range(4000))

    assert 800 < sent < 1200


def test_a_traceparent_travels():
    context = new_trace()

    assert parse_traceparent(context.traceparent()) == context
    assert context.child().trace_id == context.trace_id and context.child().span_id != context.span_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        "01-" + "x" * 5000,
    ],
)
def test_what_is_no_traceparent_is_passed_over(text: str):
    assert parse_traceparent(text) is None


def test_a_later_version_may_say_more():
    """W3C: what is known of it counts."""
    found = parse_traceparent("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00-more", "bad\nstate")

    assert found is not None and not found.sampled and found.state == ""


def test_the_context_of_a_call_is_in_its_headers():
    headers = [("x", "y"), ("traceparent", new_trace().traceparent()), ("tracestate", "a=b")]

    found = context_of(headers)

    assert found is not None and found.state == "a=b"
    assert context_of([("x-bin", b"traceparent")]) is None
