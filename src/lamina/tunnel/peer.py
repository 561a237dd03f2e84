"""The far side of a byte stream, as something that can be called: a gRPC client without a listening server.

    with Peer(SocketStream(connected)) as peer:
        answer = peer.unary(SECRETS.GetSecret, GetSecretRequest(ID="token"), cancel=cancel)
        with peer.open(FILE_SYNC.DiffCopy, metadata=[("dir-name", "context")], cancel=cancel) as call:
            call.send(packet)
            for packet in call: ...

Any number of threads may call at the same time. One thread reads the connection and hands out what comes; it ends with
the connection. A second one writes, and is started only when the stream does not take all at once.
The far side is not trusted: what it may make us hold is bounded (windows, `MAX_HELD`, one message per waiting receiver,
`MAX_BACKLOG` of answers it does not read), and whatever breaks HTTP/2 closes the connection and fails every call.
Must not: do anything slow while it holds its lock; wait without a bound that `Cancel`, deadline or `close` can end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lamina.cancel import Cancel
from lamina.tunnel.call import Call
from lamina.tunnel.http2 import CONNECTION_WINDOW, ExhaustedError, Http2, Http2Error
from lamina.tunnel.metadata import Headers, Metadata, request_headers
from lamina.tunnel.outlet import Outlet
from lamina.tunnel.status import MAX_MESSAGE, Code, RpcError, Status, of_reset
from lamina.tunnel.streams import ByteStream

if TYPE_CHECKING:
    from lamina.api.services import Method

MAX_STREAMS = 1000
"""Calls open at a time, whatever the far side allows."""

MAX_UNSENT = 1 << 20
"""Bytes that wait to be written, above which senders wait."""

MAX_BACKLOG = MAX_UNSENT + (1 << 20)
"""Bytes that wait to be written, above which the far side only asks and never reads."""

MAX_HELD = 128 << 20
"""Received bytes held for all calls together, above which the connection's window is not opened further."""

_CREDIT_STEP = CONNECTION_WINDOW // 4


class Peer:
    """A connection to the far side, which serves the calls.

    Args:
        stream: the connection; closed with the peer.
        name: for the names of threads.
        authority: whom calls are addressed to, `host:port`; `scheme` is https where the stream is TLS.
    """

    def __init__(
        self, stream: ByteStream, *, name: str = "peer", authority: str = "localhost", scheme: str = "http"
    ) -> None:
        self._authority, self._scheme = authority, scheme
        self.lock = threading.Lock()
        self._stream = stream
        self._name = name
        self._calls: dict[int, Call] = {}
        self._queued: dict[Call, None] = {}  # calls without a stream yet, in order
        self._blocked: set[Call] = set()  # calls that wait to send
        self._failure: Status | None = None
        self._refusing: Status | None = None
        self._held = 0
        self._owed = 0
        self._pings: dict[bytes, threading.Event] = {}
        self._ping_number = 0
        self._on_close: list[Callable[[], None]] = []
        self._outlet = Outlet(stream, self.lock, f"tunnel-write-{name}", self._has_room, self._broken)
        self._http2 = Http2(self)
        with self.lock:
            self._flush()
        self._reader = threading.Thread(target=self._read, name=f"tunnel-read-{name}", daemon=True)
        self._reader.start()

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Peer {self._name} {'closed' if self.closed else 'open'}, {len(self._calls)} calls>"

    @property
    def closed(self) -> bool:
        """Whether the connection is over: no call will ever succeed."""
        return self._failure is not None

    @property
    def reason(self) -> str:
        """Why the connection is over; "" while it is not."""
        return self._failure.message if self._failure is not None else ""

    def unary(
        self, method: Method, request: Any, *, metadata: Metadata = (), cancel: Cancel, timeout_s: float | None = None
    ) -> Any:
        """Send one request and return the one response.

        Args:
            timeout_s: seconds for the whole call; told to the far side and kept here.

        Raises:
            RpcError: the call failed, `code` says how.
            CancelledError: `cancel` was cancelled.
            InputError: metadata that cannot be sent.
        """
        with self._open(method, metadata, cancel, timeout_s, hold=True) as call:
            call.send_last(request)
            response = call.receive()
            if response is None:
                raise RpcError(Status(Code.INTERNAL, "the far side answered with no message"), path=method.path)
            if call.receive() is not None:
                raise RpcError(Status(Code.INTERNAL, "the far side answered with several messages"), path=method.path)
            return response

    def open(self, method: Method, *, metadata: Metadata = (), cancel: Cancel, timeout_s: float | None = None) -> Call:
        """Begin a call; waits while the far side takes no more calls at a time. Close what is returned.

        Raises:
            RpcError: the connection is over, or was before there was room for the call.
            CancelledError: `cancel` was cancelled.
            InputError: metadata that cannot be sent.
        """
        return self._open(method, metadata, cancel, timeout_s, hold=False)

    def ping(self, *, cancel: Cancel, timeout_s: float = 10.0) -> float:
        """Ask the far side's HTTP/2 end for a sign of life and return how long that took, in seconds.

        Raises:
            RpcError: nothing came within `timeout_s`, or the connection is over.
            CancelledError: `cancel` was cancelled.
        """
        answered = threading.Event()
        began = time.monotonic()
        with self.lock:
            self._check_open()
            self._ping_number += 1
            payload = self._ping_number.to_bytes(8, "big")
            self._pings[payload] = answered
            self._http2.ping(payload)
            self._flush()
        try:
            with cancel.closing(answered.set):
                came = answered.wait(timeout_s)
        finally:
            with self.lock:
                waiting = self._pings.pop(payload, None) is not None
        cancel.check()
        with self.lock:
            self._check_open()
        if waiting or not came:
            raise RpcError(Status(Code.DEADLINE_EXCEEDED, f"no answer to a ping within {timeout_s} s"))
        return time.monotonic() - began

    def on_close(self, callback: Callable[[], None]) -> None:
        """Have `callback` run once when the connection is over, in the thread that finds out; at once if it is.

        It must neither block nor raise.
        """
        with self.lock:
            if self._failure is None:
                self._on_close.append(callback)
                return
        callback()

    def close(self) -> None:
        """End the connection, fail what is under way; idempotent, never blocks."""
        self._lose(Status(Code.UNAVAILABLE, "the connection was closed on this side"))

    def join(self, timeout_s: float = 10.0) -> bool:
        """Wait for the threads of a connection that is over; tell whether they have ended.

        Apart from `close`, because a stream within somebody's call ends only when that call does.
        """
        here = threading.current_thread()
        if self._reader is not here:
            self._reader.join(timeout_s)
        writer = self._outlet.thread  # looked up only now: the reader may have started it
        if writer is not None and writer is not here:
            writer.join(timeout_s)
        return not self._reader.is_alive() and not (writer is not None and writer.is_alive())

    # --- what calls ask, with the lock held

    def writable(self, call: Call) -> int:
        """See `Link`."""
        room = MAX_UNSENT - self._outlet.pending
        count = min(self._http2.window(call.stream), room)
        if count > 0:
            return count
        self._blocked.add(call)
        self._flush()  # a call whose headers were held back must be known before its window can open
        return 0

    def send_data(self, call: Call, data: memoryview, *, end: bool) -> None:
        """See `Link`."""
        self._http2.data(call.stream, data, end=end)
        self._flush()

    def give_credit(self, call: Call, count: int) -> None:
        """See `Link`."""
        self._http2.credit(call.stream, count)
        self._flush()

    def took(self, count: int) -> None:
        """See `Link`."""
        self._held -= count
        self._credit_connection()

    def over(self, call: Call, reset: int | None) -> None:
        """See `Link`."""
        self._blocked.discard(call)
        self._queued.pop(call, None)
        if self._calls.pop(call.stream, None) is None:
            return
        if reset is not None and self._failure is None:
            self._http2.reset(call.stream, reset)
            self._flush()
        self._wake_queued()

    def _open(self, method: Method, metadata: Metadata, cancel: Cancel, timeout_s: float | None, *, hold: bool) -> Call:
        """Open a call; with `hold` its headers go out together with the first message, which must follow at once."""
        headers = request_headers(method.path, metadata, timeout_s, authority=self._authority, scheme=self._scheme)
        call = Call(self, method, cancel, timeout_s)
        try:
            with self.lock:
                self._begin(call, headers)
                if not hold:
                    self._flush()
        except BaseException:
            call.close()
            raise
        return call

    def _begin(self, call: Call, headers: Headers) -> None:
        self._queued[call] = None
        try:
            while not self._has_stream_for(call):
                call.await_stream()
            call.check()
            call.stream = self._http2.open(headers)
        except ExhaustedError as error:
            raise RpcError(Status(Code.UNAVAILABLE, "this connection has had its last call")) from error
        finally:
            self._queued.pop(call, None)
            self._wake_queued()
        self._calls[call.stream] = call

    def _has_stream_for(self, call: Call) -> bool:
        self._check_open()
        if self._refusing is not None:
            raise RpcError(self._refusing, path=call.method.path)
        call.check()
        return len(self._calls) < min(MAX_STREAMS, self._http2.max_streams) and next(iter(self._queued)) is call

    def _wake_queued(self) -> None:
        for call in self._queued:
            call.wake()
            break

    def _check_open(self) -> None:
        if self._failure is not None:
            raise RpcError(self._failure)

    def _flush(self) -> None:
        self._outlet.push(self._http2.take())

    def _has_room(self) -> None:
        blocked, self._blocked = self._blocked, set()
        for call in blocked:
            call.wake()

    def _credit_connection(self) -> None:
        if self._owed >= _CREDIT_STEP and self._held <= MAX_HELD and self._failure is None:
            self._http2.credit(0, self._owed)
            self._owed = 0
            self._flush()

    # --- what the connection brings, with the lock held

    def on_headers(self, stream: int, headers: Headers) -> None:
        """See `Handler`."""
        call = self._calls.get(stream)
        if call is not None:
            call.put_headers(headers)

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
            call.failed(of_reset(error_code), reset=None)

    def on_window(self, stream: int) -> None:
        """See `Handler`."""
        call = self._calls.get(stream)
        if call is not None:
            self._blocked.discard(call)
            call.wake()
        elif not stream:
            self._has_room()
            self._wake_queued()

    def on_goaway(self, last_stream: int, error_code: int, debug: bytes) -> None:
        """See `Handler`."""
        said = debug[:MAX_MESSAGE].decode("utf-8", "replace")
        gone = Status(Code.UNAVAILABLE, f"the far side takes no more calls{': ' if said else ''}{said}")
        self._refusing = gone
        for call in [call for stream, call in self._calls.items() if error_code or stream > last_stream]:
            call.failed(gone, reset=None)
        for call in list(self._queued):
            call.failed(gone, reset=None)

    def on_pong(self, payload: bytes) -> None:
        """See `Handler`."""
        answered = self._pings.pop(payload, None)
        if answered is not None:
            answered.set()

    # --- the reader thread, and the end

    def _read(self) -> None:
        why = "the far side closed the connection"
        try:
            while data := self._stream.receive():
                with self.lock:
                    if self._failure is None:
                        self._take(data)
                    if self._failure is not None:
                        break
        except Exception as error:  # whatever the stream raises
            why = f"the connection broke: {error or type(error).__name__}"
        finally:
            self._lose(Status(Code.UNAVAILABLE, why[:MAX_MESSAGE]))

    def _take(self, data: bytes) -> None:
        """Act on what came, with the lock held."""
        try:
            self._http2.receive(data)
        except Http2Error as error:
            self._fail(Status(Code.UNAVAILABLE, f"the far side broke the protocol: {error}"[:MAX_MESSAGE]))
            return
        self._flush()
        if self._outlet.pending > MAX_BACKLOG:
            self._fail(Status(Code.UNAVAILABLE, "the far side asks and asks and does not read the answers"))

    def _broken(self, error: BaseException) -> None:
        self._lose(Status(Code.UNAVAILABLE, f"the connection broke: {error or type(error).__name__}"[:MAX_MESSAGE]))

    def _lose(self, status: Status) -> None:
        """Fail everything with `status`, close the stream and tell who wants to know; the first reason stays."""
        with self.lock:
            self._fail(status)
            callbacks, self._on_close = self._on_close, []
        self._stream.close()
        for callback in callbacks:
            callback()

    def _fail(self, status: Status) -> None:
        """Fail everything, with the lock held; whoever does must see to it that `_lose` follows."""
        if self._failure is not None:
            return
        self._failure = status
        for call in [*self._calls.values(), *self._queued]:
            call.failed(status, reset=None)
        for answered in self._pings.values():
            answered.set()
        self._http2.goaway()
        self._outlet.close(self._http2.take())
