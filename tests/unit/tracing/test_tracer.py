"""K3: how traces are sent, and what happens when they cannot be."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from lamina.api.pb import otlp_pb2 as pb
from lamina.tracing import tracer as module
from lamina.tracing.settings import TraceSettings, parse_settings
from lamina.tracing.tracer import Tracer
from support.collector import Collected, collecting, collecting_grpc

CERTIFICATES = Path(__file__).parents[1] / "registry" / "assets"


@pytest.fixture
def collector() -> Iterator[Collected]:
    """A collector, ready."""
    with collecting() as found:
        yield found


def settings(collector: Collected, **more: str) -> TraceSettings:
    found = parse_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **more})
    assert found is not None
    return found


def a_request(name: str = "x") -> pb.ExportTraceServiceRequest:
    request = pb.ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name=name)
    return request


def test_closing_delivers_what_waits(collector: Collected):
    troubles: list[str] = []
    tracer = Tracer(settings(collector), troubles.append)

    for number in range(5):
        tracer.send(a_request(str(number)))
    tracer.close(60)
    tracer.send(a_request("too late"))

    assert [span.name for span in collector.spans] == ["0", "1", "2", "3", "4"] and troubles == []


def test_nothing_runs_until_something_is_sent(collector: Collected):
    """A daemon that nobody uses has no thread for it; closing is immediate."""
    tracer = Tracer(settings(collector), pytest.fail)

    tracer.close()

    assert tracer._thread is None


def test_a_collector_that_is_busy_is_asked_again(collector: Collected, monkeypatch: pytest.MonkeyPatch):
    """429, 502, 503 and 504 mean: later."""
    monkeypatch.setattr(module, "_WAITS_S", (0.0, 0.0))
    collector.answers = [503, 429]
    troubles: list[str] = []
    tracer = Tracer(settings(collector), troubles.append)

    tracer.send(a_request())
    tracer.close(60)

    assert len(collector.spans) == 1 and troubles == []


def test_trouble_is_told_once_until_something_arrives(collector: Collected):
    collector.answers = [400, 400, 200, 400]
    troubles: list[str] = []
    tracer = Tracer(settings(collector), troubles.append)

    for _ in range(4):
        tracer.send(a_request())
    tracer.close(60)

    assert troubles == [f"traces do not arrive at {collector.url}/v1/traces: HTTP 400"] * 2


def test_what_waits_is_bounded(collector: Collected, monkeypatch: pytest.MonkeyPatch):
    """Sending never blocks, whatever the collector does."""
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    collector.hold.clear()
    troubles: list[str] = []
    tracer = Tracer(settings(collector), troubles.append)

    for number in range(10):
        tracer.send(a_request(str(number)))
    collector.hold.set()
    tracer.close(60)

    assert [span.name for span in collector.spans] == ["0", "1", "2"]
    assert len(troubles) == 1 and "too many wait" in troubles[0]


def test_closing_takes_no_longer_than_it_may(collector: Collected):
    """The connection is shut, and its thread has ended."""
    collector.hold.clear()
    troubles: list[str] = []
    tracer = Tracer(settings(collector), troubles.append)

    tracer.send(a_request())
    tracer.close(0.05)

    assert len(troubles) == 1 and "no answer within 0.05 s" in troubles[0]
    assert tracer._thread is not None and not tracer._thread.is_alive()


def test_credentials_of_the_place_are_not_told():
    found = parse_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:s3cr3t@127.0.0.1:1"})
    assert found is not None
    troubles: list[str] = []
    tracer = Tracer(found, troubles.append)

    tracer.send(a_request())
    tracer.close(60)

    assert len(troubles) == 1 and "s3cr3t" not in troubles[0]


def over_grpc(collector: Collected, **more: str) -> TraceSettings:
    return settings(collector, OTEL_EXPORTER_OTLP_PROTOCOL="grpc", **more)


def test_spans_travel_over_grpc_as_well():
    """With headers as metadata, over one connection; what is refused is told."""
    troubles: list[str] = []
    with collecting_grpc() as collector:
        answer = ExportTraceServiceResponse()
        answer.partial_success.rejected_spans, answer.partial_success.error_message = 2, "too old"
        collector.answers = [200, answer]
        tracer = Tracer(over_grpc(collector, OTEL_EXPORTER_OTLP_HEADERS="x-key=abc"), troubles.append)
        tracer.send(a_request("one"))
        tracer.send(a_request("two"))
        tracer.close(60)

    assert [span.name for span in collector.spans] == ["one"]
    assert [headers["x-key"] for headers in collector.headers] == ["abc", "abc"]
    assert troubles == [f"traces do not arrive at {collector.url}: 2 spans were refused: too old"]


def test_a_grpc_collector_that_is_busy_is_asked_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_WAITS_S", (0.0, 0.0))
    troubles: list[str] = []
    with collecting_grpc() as collector:
        collector.answers = [503]
        tracer = Tracer(over_grpc(collector), troubles.append)
        tracer.send(a_request())
        tracer.close(60)

    assert len(collector.spans) == 1 and troubles == []


def test_closing_does_not_wait_for_a_grpc_collector_either():
    troubles: list[str] = []
    with collecting_grpc() as collector:
        collector.hold.clear()
        tracer = Tracer(over_grpc(collector), troubles.append)
        tracer.send(a_request())
        tracer.close(0.05)

        assert len(troubles) == 1 and "no answer within 0.05 s" in troubles[0]
        assert tracer._thread is not None and not tracer._thread.is_alive()


def test_grpc_over_tls_with_a_certificate_that_is_checked():
    """OTEL_EXPORTER_OTLP_CERTIFICATE says what is trusted; without it, the collector is nobody's."""
    key, chain = CERTIFICATES / "localhost.key", CERTIFICATES / "localhost.crt"
    troubles: list[str] = []
    with collecting_grpc((key.read_bytes(), chain.read_bytes())) as collector:
        trusting = Tracer(over_grpc(collector, OTEL_EXPORTER_OTLP_CERTIFICATE=str(chain)), troubles.append)
        trusting.send(a_request())
        trusting.close(60)
        before = list(troubles)
        doubting = Tracer(over_grpc(collector), troubles.append)
        doubting.send(a_request())
        doubting.close(60)

    assert len(collector.spans) == 1 and before == []
    assert len(troubles) == 1 and "certificate" in troubles[0].lower()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 100])
def test_a_port_that_speaks_something_else_costs_the_traces_only(answer: bytes):
    """A wrong port is told, and waited for no longer than it may be."""
    troubles: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            accepted, _ = server.accept()
            with accepted:
                accepted.recv(10)
                accepted.sendall(answer)

        thread = threading.Thread(target=speak)
        thread.start()
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.getsockname()[1]}"}
        found = parse_settings({**variables, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
        assert found is not None
        tracer = Tracer(found, troubles.append)
        tracer.send(a_request())
        thread.join()
        tracer.close(60)

    assert len(troubles) == 1
