"""Figures about the daemon for Prometheus, at `/metrics` of an address of their own.

The format and the counting are prometheus-client's, which everybody's dashboards were tried with.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from lamina.api.errors import status_of
from lamina.daemon.builds import Builds
from lamina.daemon.sessions import Sessions
from lamina.daemon.tally import Ended
from lamina.errors import CancelledError, Error, InputError, MachineError
from lamina.progress import PULLED, PUSHED, RECEIVED

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
_PATIENCE_S = 10.0
_STATUSES = ("completed", "failed", "cancelled")
_CODES = (
    *("OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists"),
    *("PermissionDenied", "ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented"),
    *("Internal", "Unavailable", "DataLoss", "Unauthenticated"),
)
_UNKNOWN, _INTERNAL = 2, 13


class Metrics:
    """What is counted. Thread-safe."""

    def __init__(self, builds: Builds, sessions: Sessions) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        running = Gauge("lamina_builds_running", "Builds under way", registry=self.registry)
        running.set_function(lambda: len(builds.running()))
        held = Gauge("lamina_sessions", "Sessions of clients that are open", registry=self.registry)
        held.set_function(sessions.count)
        self._builds = self._counter("lamina_builds", "Builds that have ended", "status")
        self._steps = self._counter("lamina_build_steps", "Steps of builds that have ended", "result")
        self._bytes = self._counter("lamina_transferred_bytes", "What builds moved", "direction")
        self._seconds = self._histogram("lamina_build_duration_seconds", "How long builds took")
        # what buildkitd tells of its builds, under its names: for dashboards that are there
        self._kit_builds = self._counter("buildkit_builds", "Builds that have ended", "status", "error_code")
        self._kit_steps = self._counter("buildkit_builds_steps", "Steps of builds that have ended", "kind")
        self._kit_seconds = self._histogram("buildkit_build_duration_seconds", "How long builds took", "status")
        for status in _STATUSES:
            self._builds.labels(status)
        for result in ("cached", "run", "failed"):
            self._steps.labels(result)
        for direction in (PULLED, PUSHED, RECEIVED):
            self._bytes.labels(direction)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(name, text, labels, buckets=_BUCKETS, registry=self.registry)

    def ended(self, ended: Ended) -> None:
        """Count a build."""
        error, figures = ended.error, ended.figures
        status = "completed" if error is None else "cancelled" if isinstance(error, CancelledError) else "failed"
        self._builds.labels(status).inc()
        self._seconds.observe(ended.seconds)
        for result, count in (("cached", figures.cached), ("run", figures.ran), ("failed", figures.failed)):
            self._steps.labels(result).inc(count)
        for direction, count in ended.moved.items():
            self._bytes.labels(direction).inc(count)
        success = "success" if error is None else "failure"
        self._kit_builds.labels(success, _code(error)).inc()
        self._kit_seconds.labels(success).observe(ended.seconds)
        kinds = {"completed": figures.cached + figures.ran, "cached": figures.cached, "total": figures.steps}
        for kind, count in {**kinds, "warnings": figures.warnings}.items():
            self._kit_steps.labels(kind).inc(count)


def _code(error: BaseException | None) -> str:
    """Return gRPC's name for what a client is told of an error, "" for none."""
    if error is None:
        return ""
    code = status_of(error).code if isinstance(error, Error) else _INTERNAL
    return _CODES[code] if 0 <= code < len(_CODES) else _CODES[_UNKNOWN]


@contextmanager
def serving_metrics(metrics: Metrics, address: str) -> Iterator[None]:
    """Serve the figures on `host:port` for as long as the block lasts.

    Raises:
        InputError: not an address; MachineError: it cannot be listened on.
    """
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InputError(f"not an address: {address!r}", hint="host:port, such as 127.0.0.1:9090")
    try:
        server = ThreadingHTTPServer((host.strip("[]"), int(port)), _handler(metrics))
    except OSError as error:
        raise MachineError(f"cannot listen on {address}: {error.strerror}") from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(metrics: Metrics) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers GET /metrics."""

        timeout = _PATIENCE_S

        def do_GET(self) -> None:
            """Answer."""
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404)
                return
            body = generate_latest(metrics.registry)
            self.send_response(200)
            self.send_header("Content-Type", _CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            """Say nothing."""

    return Handler
