"""K3, K5: traces through the daemon: clients' contexts and spans, records that clients read."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from lamina.api.pb import content_pb2, control_pb2
from support.bases import BUSYBOX_STAGE, busybox_context
from support.buildkit_client import Client, Offers, details, new_ref
from support.collector import Collected, attributes_of, collecting
from support.command import Lamina
from support.daemon import Daemon, running_daemon

pytestmark = pytest.mark.e2e
TRACE_ID, SPAN_ID = bytes(range(1, 17)), bytes(range(1, 9))
TRACEPARENT = f"00-{TRACE_ID.hex()}-{SPAN_ID.hex()}-01"
EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@pytest.fixture
def collector() -> Iterator[Collected]:
    """A collector, ready."""
    with collecting() as found:
        yield found


@pytest.fixture
def daemon(tmp_path: Path, collector: Collected, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A daemon that sends its traces there."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    with running_daemon(tmp_path / "root") as found:
        yield found


@pytest.fixture
def short() -> Iterator[str]:
    """A folder whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="lamina-t-") as folder:
        yield folder


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A build context."""
    return busybox_context(tmp_path / "ctx", "FROM base\nARG WHERE\nRUN echo $WHERE > /one\nWORKDIR /$WHERE\n")


def build(client: Client, context: Path, traceparent: str = "", **attrs: str) -> str:
    """Build as a client does whose call is part of a trace; return the build's reference."""
    ref = new_ref()
    with client.session(Offers(dirs={"context": context, "dockerfile": context})) as session:
        request = control_pb2.SolveRequest(
            Ref=ref, Session=session, Frontend="dockerfile.v0", FrontendAttrs=attrs,
            Exporters=[control_pb2.Exporter(Type="image", Attrs={"name": "app"})],
        )  # fmt: skip
        metadata = [("traceparent", traceparent)] if traceparent else []
        client.control["Solve"](request, timeout=120, metadata=metadata)
    return ref


def record_of(client: Client, ref: str) -> control_pb2.BuildHistoryRecord:
    """Return what the daemon tells of a build that is over."""
    request = control_pb2.BuildHistoryRequest(Ref=ref, EarlyExit=True)
    (event,) = client.control["ListenBuildHistory"](request, timeout=60)
    return event.record


def stubs(client: Client, record: control_pb2.BuildHistoryRecord) -> list[dict[str, object]]:
    """Read the trace of a record as buildx does."""
    request = content_pb2.ReadContentRequest(digest=record.trace.digest)
    data = b"".join(piece.data for piece in client.content["Read"](request, timeout=60))
    assert len(data) == record.trace.size
    return [json.loads(line) for line in data.splitlines()]


def spans_of_a_client(*spans: Span) -> ExportTraceServiceRequest:
    """Return what a client hands over."""
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "buildctl"
    resource.scope_spans.add().spans.extend(spans)
    return request


def export(address: str, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse:
    """Hand spans over as OpenTelemetry's own client does."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            EXPORT, ExportTraceServiceRequest.SerializeToString, ExportTraceServiceResponse.FromString
        )
        return call(request, timeout=60)


def test_the_clients_span_is_the_parent(daemon: Daemon, context: Path, collector: Collected):
    """K3: gRPC's metadata carries the trace on; values of build arguments do not show."""
    with Client(daemon.address) as client:
        ref = build(client, context, TRACEPARENT, **{"build-arg:WHERE": "marsbase"})
    collector.wait(5)

    root = collector.named("build")
    assert root.trace_id == TRACE_ID and root.parent_span_id == SPAN_ID and root.kind == Span.SPAN_KIND_SERVER
    told = attributes_of(root)
    assert told["lamina.build.ref"] == ref and told["lamina.build.frontend"] == "dockerfile.v0"
    assert collector.named("frontend dockerfile.v0").parent_span_id == root.span_id
    assert collector.named("RUN echo").name and "marsbase" not in repr(collector.requests)


def test_a_build_that_nobody_traces_has_a_trace_of_its_own(daemon: Daemon, context: Path, collector: Collected):
    """K3."""
    with Client(daemon.address) as client:
        build(client, context, "garbage")
    collector.wait(5)

    assert collector.named("build").parent_span_id == b""


def test_spans_of_clients_go_on_and_stay_with_the_build(daemon: Daemon, context: Path, collector: Collected):
    """K3: buildctl and buildx hand their spans to the daemon, the last of them when the build is over."""
    own = Span(trace_id=TRACE_ID, span_id=SPAN_ID, name="client's own", start_time_unix_nano=1, end_time_unix_nano=2)
    own.attributes.add(key="command").value.string_value = "buildctl build --opt build-arg:WHERE=marsbase"
    own.attributes.add(key="other").value.string_value = "stays"
    other = Span(trace_id=b"o" * 16, span_id=SPAN_ID, name="of another build")
    with Client(daemon.address) as client:
        ref = build(client, context, TRACEPARENT)
        before = stubs(client, record_of(client, ref))
        answer = export(daemon.address, spans_of_a_client(own, other))
        after = stubs(client, record_of(client, ref))
    collector.wait(len(before) + 2)

    assert answer.partial_success.rejected_spans == 0
    assert attributes_of(collector.named("client's own")) == {"other": "stays"}
    assert {span.name for span in collector.spans} >= {"build", "client's own", "of another build"}
    assert [one["Name"] for one in after] == [*(one["Name"] for one in before), "client's own"]
    assert after[-1]["Resource"][0]["Value"]["Value"] == "buildctl"


def test_spans_that_are_none_are_refused(daemon: Daemon, collector: Collected):
    """K3: what has no ids, or is too much, is counted in the answer; the rest is taken."""
    good = [Span(trace_id=TRACE_ID, span_id=number.to_bytes(8, "big"), name="good") for number in range(1, 5002)]
    bad = [Span(name="no ids"), Span(trace_id=b"short", span_id=SPAN_ID), Span(trace_id=bytes(16), span_id=SPAN_ID)]

    answer = export(daemon.address, spans_of_a_client(*bad, *good))
    collector.wait(5000)

    assert answer.partial_success.rejected_spans == 4
    assert {span.name for span in collector.spans} == {"good"}


def test_what_is_no_request_is_refused(daemon: Daemon):
    """Every call is hostile until it is parsed."""
    with grpc.insecure_channel(daemon.address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(EXPORT)(b"\xff\xff\xff", timeout=60)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_collector_that_is_down_keeps_nobody_waiting(tmp_path: Path, context: Path, monkeypatch: pytest.MonkeyPatch):
    """K3: builds go on, the log says it once, and the daemon still stops in good order."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with running_daemon(tmp_path / "root") as daemon, Client(daemon.address) as client:
        build(client, context)
        ref = build(client, context)
        record = record_of(client, ref)
        code = daemon.stop()

    assert code == 0 and record.trace.media_type == "application/vnd.buildkit.otlp.json.v0"
    assert daemon.log.read_text().count("traces do not arrive at http://127.0.0.1:9/v1/traces") == 1


def test_a_socket_takes_spans_and_nothing_else(
    tmp_path: Path, short: str, context: Path, collector: Collected, monkeypatch: pytest.MonkeyPatch
):
    """H8: `[otel] socketPath` of buildkitd.toml."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    path = f"{short}/otel"
    (tmp_path / "b.toml").write_text(f"[otel]\nsocketPath = '{path}'\n")
    with running_daemon(tmp_path / "root", "--config", str(tmp_path / "b.toml")):
        export(f"unix:{path}", spans_of_a_client(Span(trace_id=TRACE_ID, span_id=SPAN_ID, name="beside")))
        own = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"unix://{path}"}
        Lamina(tmp_path / "other").build(context, env=own)
        with Client(f"unix:{path}") as client, pytest.raises(grpc.RpcError) as caught:
            client.control["Info"](control_pb2.InfoRequest(), timeout=60)
    assert not Path(path).exists()
    collector.wait(3)

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert collector.named("beside") and collector.named("build")


def test_clients_read_what_records_point_at(daemon: Daemon, context: Path):
    """K5: containerd's content service, as far as it reads: sizes, parts, and what is not there."""
    with Client(daemon.address) as client:
        record = record_of(client, build(client, context))
        image = record.Result.Results[0]
        info = client.content["Info"](content_pb2.InfoRequest(digest=image.digest)).info
        part = content_pb2.ReadContentRequest(digest=image.digest, offset=1, size=5)
        data = b"".join(piece.data for piece in client.content["Read"](part))
        whole = b"".join(
            piece.data for piece in client.content["Read"](content_pb2.ReadContentRequest(digest=image.digest))
        )
        codes = []
        for digest, offset in (("sha256:" + "0" * 64, 0), ("sha256:../../x", 0), (image.digest, 10**9)):
            with pytest.raises(grpc.RpcError) as caught:
                list(client.content["Read"](content_pb2.ReadContentRequest(digest=digest, offset=offset)))
            codes.append(caught.value.code())

    assert info.size == image.size == len(whole) and data == whole[1:6]
    assert json.loads(whole)["mediaType"] == image.media_type
    assert codes == [
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.INVALID_ARGUMENT,
    ]


def test_the_record_of_a_failure_tells_what_the_client_was_told(daemon: Daemon, context: Path):
    """K8: its code, the lines of the Dockerfile, and the step, of which clients show the last lines."""
    (context / "Dockerfile").write_text(f"{BUSYBOX_STAGE}RUN echo almost; exit 7\n")
    ref = new_ref()
    with (
        Client(daemon.address) as client,
        client.session(Offers(dirs={"context": context, "dockerfile": context})) as s,
    ):
        with pytest.raises(grpc.RpcError) as caught:
            client.dockerfile(s, ref)
        record = record_of(client, ref)
        request = content_pb2.ReadContentRequest(digest=record.externalError.digest)
        kept = Status.FromString(b"".join(piece.data for piece in client.content["Read"](request)))

    assert kept == details(caught.value) and record.error.code == kept.code
    assert [one.type_url.rpartition("/")[2] for one in kept.details] == ["errdefs.Vertex+json", "errdefs.Source+json"]


def test_a_request_of_dockers_carries_the_trace_on(
    tmp_path: Path, short: str, collector: Collected, monkeypatch: pytest.MonkeyPatch
):
    """K3: the header of `POST /build`."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    subprocess.run(["tar", "-cf", "ctx.tar", "Dockerfile"], cwd=tmp_path, check=True)
    address = f"{short}/docker"
    with running_daemon(tmp_path / "root", "--docker-addr", f"unix://{address}"):
        connection = http.client.HTTPConnection("docker")
        connection.sock = socket.socket(socket.AF_UNIX)
        with connection.sock:
            connection.sock.connect(address)
            headers = {"Content-Type": "application/x-tar", "traceparent": TRACEPARENT}
            connection.request("POST", "/build?version=1", (tmp_path / "ctx.tar").read_bytes(), headers)
            told = connection.getresponse().read().decode()
    collector.wait(3)

    assert "Successfully built" in told
    assert collector.named("build").trace_id == TRACE_ID and collector.named("build").parent_span_id == SPAN_ID
