"""The far end of a tunnel: an HTTP/2 connection whose server is the client that opened the stream.

One thread reads; every caller sends in its own. Flow control holds both ways: the far side may send no more than the
windows allow, which open only as messages are taken, and a caller waits while the far side takes no more.
HTTP/2 itself is `h2`'s: well kept, strict, and without I/O of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from lamina.api.services import Method
from lamina.cancel import Cancel
from lamina.tunnel.call import CANCELLED, EXHAUSTED, UNAVAILABLE, Call, RpcError
from lamina.tunnel.streams import ByteStream

STREAM_WINDOW = 4 << 20
CONNECTION_WINDOW = 32 << 20
_MAX_HEADERS = 64 << 10
_FRAME_BYTES = 64 << 10
Metadata = Sequence[tuple[str, str]]


def _text(headers: Iterable[Any]) -> list[tuple[str, str]]:
    return [(str(name), str(value)) for name, value in headers]


class Peer:
    """Calls the services at the far end. Thread-safe.

    Args:
        stream: what the connection runs through; closed with the peer.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self.lock = threading.RLock()
        self._sending = threading.Lock()
        self._out: list[bytes] = []
        self._calls: dict[int, Call] = {}
        self._on_close: list[Callable[[], None]] = []
        self._closed = False
        self._why = "the client has gone"
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self._h2 = h2.connection.H2Connection(config)
        self._h2.initiate_connection()
        self._h2.update_settings(
            {
                h2.settings.SettingCodes.ENABLE_PUSH: 0,
                h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                h2.settings.SettingCodes.MAX_FRAME_SIZE: _FRAME_BYTES,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: _MAX_HEADERS,
            }
        )
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - 65535)
        self._flush()
        threading.Thread(target=self._read, name="tunnel", daemon=True).start()

    @property
    def closed(self) -> bool:
        """Whether the connection has ended."""
        return self._closed

    def on_close(self, callback: Callable[[], None]) -> None:
        """Have a function called when the connection ends, at once if it has."""
        with self.lock:
            if not self._closed:
                self._on_close.append(callback)
                return
        callback()

    def unary(
        self,
        method: Method,
        request: Any,
        *,
        metadata: Metadata = (),
        cancel: Cancel,
        timeout_s: float | None = None,
    ) -> Any:
        """Call with one message and return the one that comes back.

        Raises:
            RpcError: the far side says no, is gone, or does not answer in time; CancelledError.
        """
        call = self.open(method, metadata=metadata, cancel=cancel, timeout_s=timeout_s)
        try:
            call.send(request)
            call.end()
            answer = call.receive()
            if answer is None:
                raise call.failed(UNAVAILABLE, "no answer")
            return answer
        finally:
            call.close()

    def open(self, method: Method, *, metadata: Metadata = (), cancel: Cancel, timeout_s: float | None = None) -> Call:
        """Begin a call. Close it in the end.

        Raises:
            RpcError: the connection has ended; CancelledError.
        """
        cancel.check()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", method.path),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "lamina"),
        ]
        if timeout_s is not None:
            headers.append(("grpc-timeout", f"{max(1, int(timeout_s * 1000))}m"))
        headers += [(name.lower(), value) for name, value in metadata]
        deadline = time.monotonic() + timeout_s if timeout_s is not None else None
        with self.lock:
            if self._closed:
                raise RpcError(method.path, UNAVAILABLE, self._why)
            try:
                stream_id = self._h2.get_next_available_stream_id()
                self._h2.send_headers(stream_id, headers)
            except h2.exceptions.H2Error as error:
                raise RpcError(method.path, UNAVAILABLE, f"the connection takes no calls: {error}") from error
            call = self._calls[stream_id] = Call(self, method, stream_id, cancel, deadline)
        call.watch()
        self._flush()
        return call

    def close(self) -> None:
        """End the connection and all calls. Idempotent."""
        self._lost("the session was closed")
        self._stream.close()

    # ---- for calls ----

    def send_data(self, call: Call, stream_id: int, data: bytes) -> None:
        """Send bytes on a stream as its window allows."""
        view = memoryview(data)
        while view:
            with self.lock:
                while True:
                    if call.ended or self._closed:
                        call.check()
                        raise call.failed(UNAVAILABLE, self._why if self._closed else "the call is over")
                    try:
                        window = self._h2.local_flow_control_window(stream_id)
                        size = min(window, self._h2.max_outbound_frame_size, len(view))
                        if size > 0:
                            self._h2.send_data(stream_id, bytes(view[:size]))
                            break
                    except h2.exceptions.H2Error as error:
                        raise call.failed(UNAVAILABLE, f"cannot be sent: {error}") from error
                    call.wait()
            view = view[size:]
            self._flush()

    def end_stream(self, stream_id: int) -> None:
        """End our half of a stream."""
        with self.lock:
            if self._closed:
                return
            try:
                self._h2.end_stream(stream_id)
            except h2.exceptions.H2Error:
                return  # the far side has ended it altogether
        self._flush()

    def consumed(self, stream_id: int, size: int) -> None:
        """Let the far side send as many bytes more."""
        with self.lock:
            if self._closed:
                return
            try:
                self._h2.acknowledge_received_data(size, stream_id)
            except h2.exceptions.H2Error:
                return
        self._flush()

    def reset(self, call: Call, stream_id: int) -> None:
        """End a stream, whatever its state, and forget it."""
        with self.lock:
            known = self._calls.pop(stream_id, None)
            if known is None:
                return
            was_ended = call.ended
            call.finish(call.failed(CANCELLED, "the call was closed"))
            if self._closed:
                return
            unread = call.unread()
            try:
                if unread:
                    self._h2.acknowledge_received_data(unread, stream_id)
                if not was_ended or not call.is_half_closed():
                    self._h2.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
            except h2.exceptions.H2Error:
                pass  # it is closed already
        self._flush()

    # ---- the connection ----

    def _flush(self) -> None:
        """Send what HTTP/2 has to say. Who finds another thread sending leaves it to that one."""
        while True:
            with self.lock:
                data = self._h2.data_to_send()
                if data:
                    self._out.append(data)
                if not self._out:
                    return
            if not self._sending.acquire(blocking=False):
                return
            try:
                with self.lock:
                    data = b"".join(self._out)
                    self._out.clear()
                if data:
                    self._stream.send(data)
            except Exception:
                self._lost("the client has gone")
                return
            finally:
                self._sending.release()

    def _read(self) -> None:
        """Take in what comes, until the stream ends."""
        why = "the client has gone"
        try:
            while data := self._stream.receive():
                with self.lock:
                    if self._closed:
                        break
                    for event in self._h2.receive_data(data):
                        self._take(event)
                self._flush()
                if self._closed:
                    break
        except h2.exceptions.H2Error as error:
            why = f"the client does not speak HTTP/2: {error}"
            self._flush()
        except Exception as error:  # whatever a hostile peer brings about in there, it ends this connection alone
            why = f"the connection failed: {type(error).__name__}: {error}"
        self._lost(why)
        self._stream.close()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.DataReceived):
            call = self._calls.get(event.stream_id)
            size = event.flow_controlled_length
            if call is None:
                self._h2.acknowledge_received_data(size, event.stream_id)
                return
            if size > len(event.data):  # padding
                self._h2.acknowledge_received_data(size - len(event.data), event.stream_id)
            if not call.took_data(event.data):
                call.finish(call.failed(EXHAUSTED, "a message is compressed or too large"))
        elif isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            call = self._calls.get(event.stream_id)
            if call is not None:
                ended = isinstance(event, h2.events.TrailersReceived) or event.stream_ended is not None
                call.took_headers(_text(event.headers), ended=ended)
        elif isinstance(event, h2.events.StreamEnded):
            call = self._calls.get(event.stream_id)
            if call is not None:
                call.stream_ended()
        elif isinstance(event, h2.events.StreamReset):
            call = self._calls.get(event.stream_id)
            if call is not None:
                call.finish(call.failed(CANCELLED, f"the client ended the call (HTTP/2 code {event.error_code})"))
        elif isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            for call in list(self._calls.values()):
                call.changed.notify_all()
        elif isinstance(event, h2.events.ConnectionTerminated):
            self._why = "the client ended the connection"
            self._lost(self._why)

    def _lost(self, why: str) -> None:
        """End every call; nothing more will come."""
        with self.lock:
            if self._closed:
                return
            self._closed, self._why = True, why
            for call in self._calls.values():
                call.finish(call.failed(UNAVAILABLE, why))
            self._calls.clear()
            callbacks = list(self._on_close)
            self._on_close.clear()
        for callback in callbacks:
            callback()
