"""A collector of traces for tests: OTLP over HTTP on loopback, parsed by OpenTelemetry's own definitions."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collected:
    """What came.

    Attributes:
        requests: as parsed; `headers` of each of them, names in lower case.
        url: for OTEL_EXPORTER_OTLP_ENDPOINT.
        answers: what the next requests are answered: a status, or what refuses spans; 200 when there is none left.
        hold: while it is not set, nothing is answered.
    """

    url: str = ""
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    answers: list[int | ExportTraceServiceResponse] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)
    came: threading.Condition = field(default_factory=threading.Condition)

    @property
    def spans(self) -> list[Span]:
        """All spans."""
        return [
            span for request in self.requests for one in request.resource_spans for scoped in one.scope_spans
            for span in scoped.spans
        ]  # fmt: skip

    @property
    def resource(self) -> dict[str, Any]:
        """Attributes of the first program that sent something."""
        return attributes_of(self.requests[0].resource_spans[0].resource)

    def named(self, part: str) -> Span:
        """Return the span of that name, else the only one with this in it."""
        spans = self.spans
        found = [one for one in spans if one.name == part] or [one for one in spans if part in one.name]
        assert len(found) == 1, f"{part}: {[span.name for span in self.spans]}"
        return found[0]

    def wait(self, count: int, timeout_s: float = 60) -> None:
        """Wait until that many spans are here."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.spans) >= count, timeout_s), [s.name for s in self.spans]


def attributes_of(message: Any) -> dict[str, Any]:
    """Return attributes as plain values."""
    found = {}
    for one in message.attributes:
        kind = one.value.WhichOneof("value")
        value = getattr(one.value, kind)
        found[one.key] = [item.string_value for item in value.values] if kind == "array_value" else value
    return found


@contextmanager
def collecting() -> Iterator[Collected]:
    """Run a collector for as long as the block lasts."""
    found = Collected()
    found.hold.set()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(found))
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(found: Collected) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.headers["Content-Type"] == "application/json":
                request = _from_json(json.loads(body))
            else:
                assert self.headers["Content-Type"] == "application/x-protobuf"
                request = ExportTraceServiceRequest.FromString(body)
            assert found.hold.wait(60)
            answer = found.answers.pop(0) if found.answers else 200
            with found.came:
                found.paths.append(self.path)
                found.headers.append({name.lower(): value for name, value in self.headers.items()})
                if answer == 200:
                    found.requests.append(request)
                found.came.notify_all()
            data = answer.SerializeToString() if isinstance(answer, ExportTraceServiceResponse) else b""
            try:
                self.send_response(answer if isinstance(answer, int) else 200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                pass  # who sent it did not wait

        def log_message(self, *words: Any) -> None:
            pass

    return Handler


def _from_json(body: dict[str, Any]) -> ExportTraceServiceRequest:
    """Parse OTLP's JSON, in which ids are in hexadecimal (protobuf's own JSON has base64)."""
    import base64

    def turned(value: Any) -> Any:
        if isinstance(value, list):
            return [turned(one) for one in value]
        if not isinstance(value, dict):
            return value
        return {
            name: base64.b64encode(bytes.fromhex(one)).decode()
            if name in ("traceId", "spanId", "parentSpanId")
            else turned(one)
            for name, one in value.items()
        }

    return ParseDict(turned(body), ExportTraceServiceRequest())


@contextmanager
def collecting_grpc(certificate: tuple[bytes, bytes] | None = None) -> Iterator[Collected]:
    """Run a collector that takes OTLP over gRPC.

    Args:
        certificate: key and chain as PEM, for TLS.
    """
    import grpc

    found = Collected()
    found.hold.set()

    def export(request: ExportTraceServiceRequest, context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        assert found.hold.wait(60)
        answer = found.answers.pop(0) if found.answers else 200
        with found.came:
            found.headers.append({str(key): str(value) for key, value in context.invocation_metadata()})
            if answer == 200:
                found.requests.append(request)
            found.came.notify_all()
        if isinstance(answer, ExportTraceServiceResponse):
            return answer
        if answer != 200:
            context.abort(grpc.StatusCode.UNAVAILABLE if answer == 503 else grpc.StatusCode.PERMISSION_DENIED, "no")
        return ExportTraceServiceResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        export, ExportTraceServiceRequest.FromString, ExportTraceServiceResponse.SerializeToString
    )
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
    if certificate is None:
        found.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    else:
        credentials = grpc.ssl_server_credentials([certificate])
        found.url = f"https://localhost:{server.add_secure_port('127.0.0.1:0', credentials)}"
    server.start()
    try:
        yield found
    finally:
        found.hold.set()
        server.stop(None).wait()
