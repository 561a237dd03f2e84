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

from lamina.daemon.builds import Builds
from lamina.daemon.sessions import Sessions
from lamina.engine.options import BuildResult
from lamina.errors import CancelledError, InputError, MachineError

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
_PATIENCE_S = 10.0


class Metrics:
    """What is counted. Thread-safe."""

    def __init__(self, builds: Builds, sessions: Sessions) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        running = Gauge("lamina_builds_running", "Builds under way", registry=self.registry)
        running.set_function(lambda: len(builds.running()))
        held = Gauge("lamina_sessions", "Sessions of clients that are open", registry=self.registry)
        held.set_function(sessions.count)
        self._builds = Counter("lamina_builds", "Builds that have ended", ["status"], registry=self.registry)
        self._steps = Counter(
            "lamina_build_steps", "Steps of builds that succeeded", ["result"], registry=self.registry
        )
        self._seconds = Histogram(
            "lamina_build_duration_seconds", "How long builds took", buckets=_BUCKETS, registry=self.registry
        )

    def ended(self, seconds: float, result: BuildResult | None, error: BaseException | None) -> None:
        """Count a build."""
        status = "completed" if error is None else "cancelled" if isinstance(error, CancelledError) else "failed"
        self._builds.labels(status).inc()
        self._seconds.observe(seconds)
        if result is not None:
            self._steps.labels("cached").inc(result.cached)
            self._steps.labels("run").inc(len(result.timings) - result.cached)


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
