"""K3: each build's trace reaches a collector, and stays with the build's record."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from support.bases import busybox_context
from support.collector import Collected, attributes_of, collecting
from support.command import Lamina

pytestmark = pytest.mark.e2e
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BASE = "FROM scratch AS base\nCOPY rootfs /\nENV PATH=/bin\n"


@pytest.fixture
def collector():
    """A collector, ready."""
    with collecting() as found:
        yield found


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A context with busybox in it."""
    return busybox_context(tmp_path / "ctx", "FROM base\nRUN true\n")


def sending_to(collector: Collected, **more: str) -> dict[str, str]:
    """Return the environment that has traces sent."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **more}


def test_a_build_is_one_span_with_its_steps_below(lamina: Lamina, context: Path, collector: Collected):
    """K3: the build, what its frontend did, each vertex with its times, linked to what it stands on."""
    (context / "Dockerfile").write_text(f"{BASE}FROM base\nRUN echo one > /one\nRUN echo two > /two\n")

    lamina.build(context, "-t", "app", env=sending_to(collector))

    root = collector.named("build")
    told = attributes_of(root)
    first, second = collector.named("RUN echo one"), collector.named("RUN echo two")
    assert len({span.trace_id for span in collector.spans}) == 1 and len(root.trace_id) == 16
    assert root.parent_span_id == b"" and root.status.code == Status.STATUS_CODE_UNSET
    assert told["lamina.build.status"] == "completed" and told["lamina.image.names"] == ["docker.io/library/app:latest"]
    assert told["lamina.build.steps"] == 3 and told["lamina.build.cached_steps"] == 0
    assert collector.named("frontend").parent_span_id == root.span_id
    assert second.parent_span_id == root.span_id
    assert first.span_id in [link.span_id for link in second.links]
    assert attributes_of(second)["lamina.cached"] is False
    assert attributes_of(second)["code.line.number"] == 6
    assert root.start_time_unix_nano <= first.start_time_unix_nano <= first.end_time_unix_nano
    assert first.end_time_unix_nano <= second.start_time_unix_nano <= second.end_time_unix_nano
    assert second.end_time_unix_nano <= root.end_time_unix_nano
    assert collector.named("exporting to image").parent_span_id == root.span_id


def test_the_second_build_tells_what_was_cached(lamina: Lamina, context: Path, collector: Collected):
    """K3: also of a build that was answered without looking at anything."""
    (context / "Dockerfile").write_text(f"{BASE}FROM base\nRUN true\n")
    lamina.build(context, "-t", "app")

    lamina.build(context, "-t", "app", env=sending_to(collector))

    told = attributes_of(collector.named("build"))
    assert told["lamina.build.status"] == "completed" and told["lamina.build.cached_steps"] > 0
    assert attributes_of(collector.named("RUN true"))["lamina.cached"] is True


def test_the_environment_is_opentelemetrys(lamina: Lamina, context: Path, collector: Collected):
    """K3: service, resource, headers and parent as its specification names them."""
    lamina.build(
        context,
        env=sending_to(
            collector,
            OTEL_SERVICE_NAME="nightly",
            OTEL_RESOURCE_ATTRIBUTES="team=images,place=a%20b,service.name=other",
            OTEL_EXPORTER_OTLP_HEADERS="Authorization=Bearer%20xyz",
            OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
            TRACEPARENT=PARENT,
            TRACESTATE="vendor=1",
        ),
    )

    root = collector.named("build")
    assert collector.paths == ["/v1/traces"]
    assert collector.headers[0]["authorization"] == "Bearer xyz"
    assert collector.resource["service.name"] == "nightly"
    assert collector.resource["team"] == "images" and collector.resource["place"] == "a b"
    assert root.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert root.parent_span_id.hex() == "b7ad6b7169203331" and root.trace_state == "vendor=1"


def test_traces_alone_may_go_elsewhere_and_as_json(lamina: Lamina, context: Path, collector: Collected):
    """K3: the variables for traces count before the general ones."""
    lamina.build(
        context,
        env={
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/here",
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json",
        },
    )

    assert collector.paths == ["/here"]
    assert attributes_of(collector.named("build"))["lamina.build.status"] == "completed"


def test_a_failing_step_is_told_with_its_lines(lamina: Lamina, context: Path, collector: Collected):
    """K8: the kind of error, its exit code, and where in the Dockerfile it comes from."""
    (context / "Dockerfile").write_text(f"{BASE}RUN exit 7\n")

    done = lamina("build", context, env=sending_to(collector), check=False)

    root, step = collector.named("build"), collector.named("RUN exit 7")
    (event,) = root.events
    told = attributes_of(event)
    assert done.returncode == 1
    assert root.status.code == step.status.code == Status.STATUS_CODE_ERROR
    assert "7" in step.status.message
    assert event.name == "exception" and told["code.line.number"] == 4 and told["lamina.error.exit_code"] == 1
    assert told["lamina.error.vertex"] == attributes_of(step)["vertex"]


def test_what_is_secret_is_in_no_span(lamina: Lamina, context: Path, collector: Collected, tmp_path: Path):
    """K3: neither secrets nor the values of build arguments, where a step's name or error would show them."""
    (tmp_path / "key").write_text("hunter22")
    (context / "Dockerfile").write_text(
        f"{BASE}ARG WHERE\nARG TOKEN\nWORKDIR /srv/$WHERE\nENV A=$TOKEN\n"
        "RUN --mount=type=secret,id=key cat /run/secrets/key; exit 3\n"
    )

    lamina(
        "build", "--build-arg", "WHERE=marsbase", "--build-arg", "TOKEN=s3cr3tvalue",
        "--secret", f"id=key,src={tmp_path / 'key'}", context,
        env=sending_to(collector), check=False,
    )  # fmt: skip

    everything = repr(collector.requests)
    assert collector.named("WORKDIR").name.endswith("WORKDIR /srv/${WHERE}")
    for text in ("marsbase", "s3cr3tvalue", "hunter22"):
        assert text not in everything, text


@pytest.mark.parametrize("kind", ["down", "refusing", "partial", "slow"])
def test_a_collector_that_does_not_work_fails_no_build(kind: str, lamina: Lamina, context: Path, collector: Collected):
    """K3: one warning, a bounded wait, and the build's own result."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    env = sending_to(collector, OTEL_EXPORTER_OTLP_TIMEOUT="1000")
    if kind == "down":
        env["OTEL_EXPORTER_OTLP_ENDPOINT"] = nobody
    elif kind == "refusing":
        collector.answers = [400]
    elif kind == "partial":
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans, answer.partial_success.error_message = 3, "too old"
        collector.answers = [answer]
    else:
        collector.hold.clear()
    (context / "Dockerfile").write_text(BASE)

    done = lamina("build", "-q", context, env=env)

    expected = {"down": "refused", "refusing": "HTTP 400", "partial": "3 spans were refused: too old", "slow": "1 s"}
    warnings = [line for line in done.stderr.splitlines() if "traces do not arrive" in line]
    assert done.returncode == 0 and done.stdout.startswith("sha256:")
    assert len(warnings) == 1 and expected[kind] in warnings[0], done.stderr


def test_a_variable_that_makes_no_sense_costs_the_traces_only(lamina: Lamina, context: Path):
    """K3: such variables are set for all programs of a pipeline."""
    (context / "Dockerfile").write_text(BASE)

    done = lamina("build", "-q", context, env={"OTEL_TRACES_EXPORTER": "zipkin"})

    assert done.returncode == 0
    assert "no traces are sent: OTEL_TRACES_EXPORTER='zipkin'" in done.stderr


def test_a_trace_that_is_not_sampled_is_not_sent(lamina: Lamina, context: Path, collector: Collected):
    """K3: whoever began the trace decides."""
    (context / "Dockerfile").write_text(BASE)

    lamina.build(context, env=sending_to(collector, TRACEPARENT=f"{PARENT[:-2]}00"))

    assert collector.requests == []


def test_the_record_keeps_the_trace(lamina: Lamina, context: Path):
    """K3: `history show --trace` for people, `history export --trace` as OTLP's JSON; without any collector."""
    (context / "Dockerfile").write_text(f"{BASE}RUN echo one > /one\n")
    lamina.build(context, "-t", "app")

    shown = lamina("history", "show", "--trace").stdout
    exported = json.loads(lamina("history", "export", "--trace").stdout)

    spans = exported["resourceSpans"][0]["scopeSpans"][0]["spans"]
    root = next(span for span in spans if "parentSpanId" not in span)
    assert root["name"] == "build" and len(root["traceId"]) == 32
    assert any("RUN echo one" in span["name"] for span in spans)
    assert all(span["kind"] == Span.SPAN_KIND_INTERNAL for span in spans)
    assert "RUN echo one" in shown and shown.splitlines()[0].split()[-1] == root["traceId"]


def test_a_build_that_found_everything_shows_its_origins_trace(lamina: Lamina, context: Path):
    """K3: of a repeated build nothing new is kept."""
    (context / "Dockerfile").write_text(f"{BASE}RUN true\n")
    lamina.build(context, "-t", "app")
    lamina.build(context, "-t", "app")

    shown = lamina("history", "show", "--trace")

    assert shown.returncode == 0 and "RUN true" in shown.stdout


def test_what_goes_over_the_network_has_spans(lamina: Lamina, context: Path, collector: Collected, registry: str):
    """K3: pushes and pulls of layers, exports and imports of caches, below what they are for."""
    (context / "Dockerfile").write_text(f"{BASE}RUN echo one > /one\n")
    cache = f"type=registry,ref={registry}/cache"
    env = sending_to(collector, LAMINA_INSECURE_REGISTRIES=registry)
    lamina.build(context, "-t", f"{registry}/app", "--push", "--cache-to", cache, env=env)
    pushed = {span.name: span for span in collector.spans}
    exporting = next(span for name, span in pushed.items() if name.startswith("exporting cache"))
    layers = [span for name, span in pushed.items() if name.startswith("pushing sha256:")]

    collector.requests.clear()
    (context / "Dockerfile").write_text(f"FROM {registry}/app\nRUN cat /one\n")
    elsewhere = {**env, "LAMINA_ROOT": f"{lamina.root}-2"}
    lamina("build", context, "--cache-from", cache, env=elsewhere)

    pulled = [span for span in collector.spans if span.name.startswith("pulling sha256:")]
    moved = [attributes_of(span)["lamina.progress.current"] for span in layers]
    metadata = collector.named("[internal] load metadata")
    assert exporting.end_time_unix_nano > exporting.start_time_unix_nano
    assert layers and max(moved) > 100_000
    assert pulled and collector.named("importing cache")
    assert metadata.parent_span_id == collector.named("frontend").span_id
