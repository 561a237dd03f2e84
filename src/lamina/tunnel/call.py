"""One gRPC call in a tunnel: messages framed and taken apart, its status, its end.

gRPC over HTTP/2 ("PROTOCOL-HTTP2"): a message is a byte of flags, four of length, and its bytes; the status comes in
trailers. All state is guarded by the peer's lock.
"""

from __future__ import annotations

import base64
import struct
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from google.protobuf.message import DecodeError

from lamina.errors import CancelledError, NetworkError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.api.services import Method
    from lamina.cancel import Cancel
    from lamina.tunnel.peer import Peer

MAX_MESSAGE = 16 << 20
OK, CANCELLED, UNKNOWN, DEADLINE, EXHAUSTED, INTERNAL, UNAVAILABLE = 0, 1, 2, 4, 8, 13, 14
_HEAD = struct.Struct(">BI")
_MAX_WORDS = 4096


class RpcError(NetworkError):
    """A call did not end well.

    Attributes:
        code: gRPC status code; `message` what came with it, `details` the status as the far side sent it.
    """

    def __init__(self, path: str, code: int, message: str, details: bytes = b"") -> None:
        super().__init__(message[:_MAX_WORDS] or f"status {code}", where=f"the client's {path.rpartition('.')[2]}")
        self.code, self.message, self.details = code, message, details


class Call:
    """One call; `send` and `receive` may be used from two threads."""

    def __init__(self, peer: Peer, method: Method, stream_id: int, cancel: Cancel, deadline: float | None) -> None:
        self._peer, self._method, self._id = peer, method, stream_id
        self._cancel, self._deadline = cancel, deadline
        self.changed = threading.Condition(peer.lock)
        self._buffer = bytearray()
        self._headers: dict[str, str] = {}
        self._is_answered = False
        self._error: RpcError | None = None
        self._ended = False
        self._sent_end = False
        self._forget: Callable[[], None] = lambda: None

    def watch(self) -> None:
        """Have the call closed when its build is cancelled."""
        self._forget = self._cancel.on_cancel(self.close)

    # ---- for the caller ----

    def send(self, message: Any) -> None:
        """Send a message; blocks while the far side takes no more.

        Raises:
            RpcError: the call is over; CancelledError.
        """
        data = message.SerializeToString()
        self._peer.send_data(self, self._id, _HEAD.pack(0, len(data)) + data)

    def end(self) -> None:
        """Say that nothing more will be sent."""
        with self._peer.lock:
            if self._sent_end or self._ended:
                return
            self._sent_end = True
        self._peer.end_stream(self._id)

    def receive(self) -> Any:
        """Return the next message, None when the call has ended well.

        Raises:
            RpcError: it has not; CancelledError.
        """
        with self.changed:
            while True:
                size = self._frame_size()
                if size >= 0:
                    data = bytes(self._buffer[_HEAD.size : _HEAD.size + size])
                    del self._buffer[: _HEAD.size + size]
                    break
                if self._ended:
                    self._forget()
                    self.check()
                    if self._buffer:
                        raise self._failed(INTERNAL, "the answer ends in the middle of a message")
                    return None
                self.wait()
        self._peer.consumed(self._id, _HEAD.size + size)
        try:
            return self._method.response.FromString(data)
        except DecodeError as error:
            self.close()
            raise self._failed(INTERNAL, "the answer is not a message") from error

    def headers(self) -> dict[str, str]:
        """Return the answer's metadata, once they have come."""
        with self.changed:
            while not self._is_answered and not self._ended:
                self.wait()
            return dict(self._headers)

    def close(self) -> None:
        """End the call whatever state it is in. Idempotent."""
        self._forget()
        self._peer.reset(self, self._id)

    # ---- for the peer, with its lock held ----

    def wait(self) -> None:
        """Wait until something changes.

        Raises:
            RpcError: the deadline has passed; CancelledError.
        """
        self._cancel.check()
        left = None if self._deadline is None else self._deadline - time.monotonic()
        if left is not None and left <= 0:
            self.finish(self._failed(DEADLINE, "no answer in time"))
        else:
            self.changed.wait(left)
        self._cancel.check()

    def check(self) -> None:
        """Raise what ended the call, if that was not its success."""
        if self._error is not None:
            if self._error.code == CANCELLED and self._cancel.is_cancelled():
                raise CancelledError
            raise self._error

    def took_headers(self, pairs: Iterable[tuple[str, str]], *, ended: bool) -> None:
        """Take headers or trailers."""
        headers = dict(pairs)
        self._is_answered = True
        if not ended and "grpc-status" not in headers:
            status = headers.get(":status", "200")
            if status != "200":
                self.finish(self._failed(UNAVAILABLE, f"HTTP status {status}"))
            self._headers.update(headers)
            self.changed.notify_all()
            return
        text = headers.get("grpc-status", "")
        code = int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else UNKNOWN
        if code == OK:
            self.finish(None)
            return
        details = headers.get("grpc-status-details-bin", "")
        try:
            raw = base64.b64decode(details + "=" * (-len(details) % 4)) if details else b""
        except ValueError:
            raw = b""
        self.finish(RpcError(self._method.path, code, unquote(headers.get("grpc-message", "")), raw))

    def took_data(self, data: bytes) -> bool:
        """Take bytes of messages; False when one is too large."""
        self._buffer += data
        if self._frame_size() == -2:
            return False
        self.changed.notify_all()
        return True

    def stream_ended(self) -> None:
        """Take note that the far side has ended the stream."""
        if not self._ended:
            self.finish(self._failed(INTERNAL, "the answer ended without a status"))

    def finish(self, error: RpcError | None) -> None:
        """End the call; the first end counts."""
        if not self._ended:
            self._ended, self._error = True, error
        self.changed.notify_all()

    def unread(self) -> int:
        """Return how many bytes have come and were not taken; they never will be."""
        size = len(self._buffer)
        self._buffer.clear()
        return size

    def is_half_closed(self) -> bool:
        """Tell whether our half of the stream was ended."""
        return self._sent_end

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._ended

    def failed(self, code: int, message: str) -> RpcError:
        """Return an error that names this call."""
        return self._failed(code, message)

    def _failed(self, code: int, message: str) -> RpcError:
        return RpcError(self._method.path, code, message)

    def _frame_size(self) -> int:
        """Return the size of the message that has come whole, -1 for none yet, -2 for one that is too large."""
        if len(self._buffer) < _HEAD.size:
            return -1
        compressed, size = _HEAD.unpack_from(self._buffer)
        if compressed or size > MAX_MESSAGE:
            return -2
        return size if len(self._buffer) >= _HEAD.size + size else -1
