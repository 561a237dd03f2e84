"""One connection of a client: HTTP/2 taken apart, calls begun, bytes written.

The thread that runs `serve` reads; each call has a thread of its own for as long as it lasts. The far side is not
trusted: windows bound what it may make us hold, and whatever breaks HTTP/2 ends this connection alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from lamina.api.services import Method
from lamina.rpc.call import Handler, ServedCall, carry_out
from lamina.tunnel.http2 import CONNECTION_WINDOW, MAX_SERVED, Http2, Http2Error
from lamina.tunnel.metadata import Headers
from lamina.tunnel.outlet import Outlet
from lamina.tunnel.streams import ByteStream

MAX_UNSENT = 1 << 20
"""Bytes that wait to be written, above which answers wait."""
MAX_BACKLOG = MAX_UNSENT + (1 << 20)
"""Bytes that wait to be written, above which the far side only asks and never reads."""
MAX_HELD = 64 << 20
"""Received bytes held for all calls together, above which the connection's window is not opened further."""
_CREDIT_STEP = CONNECTION_WINDOW // 4
_REFUSED = 0x7
_log = logging.getLogger(__name__)

Serving = Mapping[str, tuple[Method, Handler]]
"""By path, `/package.Service/Method`."""
Start = Callable[[Callable[[], None]], bool]
"""Runs a function in a thread; False when there is none for it."""


class Connection:
    """One client's connection.

    Args:
        stream: closed when the connection ends.
        serving: what can be called.
        start: gives each call its thread.
    """

    def __init__(self, stream: ByteStream, serving: Serving, start: Start) -> None:
        self.lock = threading.Lock()
        self._stream, self._serving, self._start = stream, serving, start
        self._calls: dict[int, ServedCall] = {}
        self._blocked: set[ServedCall] = set()
        self._held = 0
        self._owed = 0
        self._closed = False
        self._draining = False
        self._gone: list[Callable[[], None]] = []
        self._outlet = Outlet(stream, self.lock, "rpc-write", self._has_room, self._broken)
        self._http2 = Http2(self, client=False)

    def serve(self) -> None:
        """Read until the connection ends."""
        with self.lock:
            self._flush()
        try:
            while data := self._stream.receive():
                with self.lock:
                    if self._closed:
                        break
                    self._http2.receive(data)
                    self._flush()
                    if self._outlet.pending > MAX_BACKLOG:
                        raise Http2Error("the client asks and asks and does not read the answers")
                    gone, self._gone = self._gone, []
                for tell in gone:
                    tell()
        except Http2Error as error:
            _log.debug("a client broke the protocol: %s", error)
            with self.lock:
                self._flush()
        except OSError as error:
            _log.debug("a connection broke: %s", error)
        finally:
            self.close()

    def drain(self) -> None:
        """Take no new calls."""
        with self.lock:
            self._draining = True

    @property
    def calls(self) -> int:
        """How many calls are under way."""
        return len(self._calls)

    def close(self) -> None:
        """End the connection and all its calls. Idempotent."""
        with self.lock:
            if self._closed:
                return
            self._closed = True
            self._http2.goaway()
            gone = [*self._gone, *(call.gone() for call in list(self._calls.values()))]
            self._gone = []
            self._calls.clear()
            self._outlet.close(self._http2.take())
        self._stream.close()
        for tell in gone:
            tell()

    # ---- what calls ask, with the lock held ----

    def writable(self, call: ServedCall) -> int:
        """See `Link`."""
        room = MAX_UNSENT - self._outlet.pending
        count = min(self._http2.window(call.stream), room)
        if count > 0:
            return count
        self._blocked.add(call)
        return 0

    def send_headers(self, call: ServedCall, headers: Headers, *, end: bool) -> None:
        """See `Link`."""
        self._http2.answer(call.stream, headers, end=end)
        self._flush()

    def send_data(self, call: ServedCall, data: memoryview) -> None:
        """See `Link`."""
        self._http2.data(call.stream, data, end=False)
        self._flush()

    def give_credit(self, call: ServedCall, count: int) -> None:
        """See `Link`."""
        self._http2.credit(call.stream, count)
        self._flush()

    def took(self, count: int) -> None:
        """See `Link`."""
        self._held -= count
        self._credit_connection()

    def over(self, call: ServedCall, reset: int | None) -> None:
        """See `Link`."""
        self._blocked.discard(call)
        if self._calls.pop(call.stream, None) is not None and reset is not None and not self._closed:
            self._http2.reset(call.stream, reset)
            self._flush()

    # ---- what the connection brings, with the lock held ----

    def on_headers(self, stream: int, headers: Headers) -> None:
        """See `Handler`."""
        if stream in self._calls:
            return  # trailers of a client mean nothing in gRPC
        if self._draining or len(self._calls) >= MAX_SERVED:
            self._http2.reset(stream, _REFUSED)
            return
        said = dict(headers)
        if said.get(":method") != "POST" or not said.get("content-type", "").startswith("application/grpc"):
            self._http2.answer(stream, [(":status", "415"), ("content-length", "0")], end=True)
            return
        found = self._serving.get(said.get(":path", ""))
        if found is None:
            words = [("grpc-status", "12"), ("grpc-message", "unknown method")]
            kind = [(":status", "200"), ("content-type", "application/grpc")]
            self._http2.answer(stream, [*kind, *words], end=True)
            return
        method, handler = found
        call = self._calls[stream] = ServedCall(self, stream, method, headers)
        if not self._start(lambda: carry_out(call, handler)):
            call.gone()
            self._http2.reset(stream, _REFUSED)

    def on_data(self, stream: int, data: bytes, length: int) -> None:
        """See `Handler`."""
        self._owed += length
        call = self._calls.get(stream)
        if call is not None:
            self._held += len(data)
            call.put_data(data, length - len(data))
        self._credit_connection()

    def on_end(self, stream: int) -> None:
        """See `Handler`."""
        call = self._calls.get(stream)
        if call is not None:
            call.put_end()

    def on_reset(self, stream: int, error_code: int) -> None:
        """See `Handler`."""
        call = self._calls.get(stream)
        if call is not None:
            self._gone.append(call.gone())

    def on_window(self, stream: int) -> None:
        """See `Handler`."""
        call = self._calls.get(stream)
        if call is not None:
            self._blocked.discard(call)
            call.wake()
        elif not stream:
            self._has_room()

    def on_goaway(self, last_stream: int, error_code: int, debug: bytes) -> None:
        """See `Handler`: the client will begin no more calls; those under way go on."""

    def on_pong(self, payload: bytes) -> None:
        """See `Handler`."""

    def _flush(self) -> None:
        self._outlet.push(self._http2.take())

    def _has_room(self) -> None:
        blocked, self._blocked = self._blocked, set()
        for call in blocked:
            call.wake()

    def _credit_connection(self) -> None:
        if self._owed >= _CREDIT_STEP and self._held <= MAX_HELD and not self._closed:
            self._http2.credit(0, self._owed)
            self._owed = 0
            self._flush()

    def _broken(self, _error: BaseException) -> None:
        self.close()
