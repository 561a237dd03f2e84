"""Sends traces to a collector, in a thread of its own that nobody waits for.

Invariants: `send` never blocks and never raises; what waits is bounded, the rest is dropped; trouble is told once until
something arrives again; closing takes no longer than it may. How one message travels is in `senders`.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from lamina.api.pb import otlp_pb2 as pb
from lamina.cancel import Cancel
from lamina.errors import CancelledError
from lamina.registry.options import Proxies
from lamina.tracing.context import TraceContext
from lamina.tracing.senders import Sender, open_sender
from lamina.tracing.settings import TraceSettings

PATIENCE_S = 3.0
"""How long the end of a program waits for a collector, unless OTEL_EXPORTER_OTLP_TIMEOUT says otherwise."""
MAX_WAITING = 256
MAX_WAITING_BYTES = 64 << 20
_WAITS_S = (1.0, 3.0)

Trouble = Callable[[str], None]
"""Is told, in one line, that traces do not arrive."""


class Tracer:
    """Where traces go. Close it to have the last ones delivered.

    Attributes:
        settings: as given.
    """

    def __init__(self, settings: TraceSettings, trouble: Trouble, proxies: Proxies | None = None) -> None:
        self.settings = settings
        self._trouble, self._proxies = trouble, proxies or Proxies()
        self._waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._count = self._bytes = self._dropped = 0
        self._thread: threading.Thread | None = None
        self._cancel = Cancel()
        self._in_trouble = self._closed = False

    def wants(self, context: TraceContext, parent: TraceContext | None) -> bool:
        """Tell whether a trace is to be sent."""
        return self.settings.sampler.wants(context.trace_id, parent)

    def send(self, request: pb.ExportTraceServiceRequest) -> None:
        """Have spans sent; at once dropped when too much waits already."""
        data = request.SerializeToString()
        with self._guard:
            if self._closed:
                return
            if self._count >= MAX_WAITING or self._bytes + len(data) > MAX_WAITING_BYTES:
                self._dropped += 1
                dropped = True
            else:
                dropped = False
                self._count, self._bytes = self._count + 1, self._bytes + len(data)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
                    self._thread.start()
                self._waiting.put(data)
        if dropped:
            self._tell("too many wait; some are dropped")

    def close(self, patience_s: float | None = None) -> None:
        """Deliver what waits, for as long as it may take, and stop.

        Args:
            patience_s: None for `PATIENCE_S`, or what the settings say.
        """
        if patience_s is None:
            patience_s = self.settings.timeout_s if self.settings.timeout_given else PATIENCE_S
        with self._guard:
            self._closed = True
            thread = self._thread
        if thread is None:
            return
        self._waiting.put(None)
        thread.join(patience_s)
        if thread.is_alive():
            self._tell(f"no answer within {patience_s:g} s")
            self._cancel.cancel()
            thread.join(1.0)  # it may hang in the resolver, which nothing interrupts; it ends with the process

    def _run(self) -> None:
        try:
            sender = open_sender(self.settings, self._proxies, self._cancel)
        except ImportError as error:
            self._tell(f"OTLP over gRPC needs {error.name}: pip install 'lamina[daemon]'")
            return
        try:
            while (data := self._waiting.get()) is not None and not self._cancel.is_cancelled():
                self._deliver(sender, data)
                with self._guard:
                    self._count, self._bytes = self._count - 1, self._bytes - len(data)
        finally:
            sender.close()

    def _deliver(self, sender: Sender, data: bytes) -> None:
        """Send one message; again after a while where the collector says so."""
        deadline = time.monotonic() + self.settings.timeout_s
        for wait_s in (*_WAITS_S, None):
            try:
                again, trouble = sender.send(data)
            except CancelledError:
                return
            if not again or wait_s is None or time.monotonic() + wait_s > deadline or self._cancel.wait(wait_s):
                break
        if trouble:
            self._tell(trouble)
        else:
            self._in_trouble = False

    def _tell(self, text: str) -> None:
        if self._in_trouble:
            return
        self._in_trouble = True
        parts = urlsplit(self.settings.url)
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._trouble(f"traces do not arrive at {place}: {text}")
