"""One call under way: messages out, messages in, and how it ended.

A call belongs to a `Peer`, whose lock guards everything here; the peer's reader thread puts in what comes, threads of
the caller wait on the call's own condition. Life of a call: queued (no stream yet) -> open -> over. It is over when
the far side's trailers came, when it failed (cancelled, deadline, reset, lost connection), or when it was closed.
Invariants: what was received before an orderly end can still be received; a failure is told at once and drops it. A
stream that this side has not ended is reset when the call is over, so none is left behind. Credit for more bytes is
given only for bytes that a receiver took, or that are part of the one message a receiver waits for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from lamina.cancel import Cancel
from lamina.errors import CancelledError, InputError
from lamina.tunnel.framing import MAX_MESSAGE, Deframer, FramingError, TooLongError, frame
from lamina.tunnel.http2 import CANCEL, NO_ERROR, STREAM_WINDOW
from lamina.tunnel.metadata import Headers, check_answer, final_status, received
from lamina.tunnel.status import Code, RpcError, Status

if TYPE_CHECKING:
    from lamina.api.services import Method

__all__ = ["Call", "RpcError"]

_CREDIT_STEP = STREAM_WINDOW // 4


class Link(Protocol):
    """What a call needs of its peer. All but `lock` is used with the lock held."""

    lock: threading.Lock

    def writable(self, call: Call) -> int:
        """Return how many bytes the call may send now; when none, the call is woken once that changes."""

    def send_data(self, call: Call, data: memoryview, *, end: bool) -> None:
        """Send on the call's stream."""

    def give_credit(self, call: Call, count: int) -> None:
        """Let the far side send `count` more bytes on the call's stream."""

    def took(self, count: int) -> None:
        """Note that `count` received bytes are no longer held."""

    def over(self, call: Call, reset: int | None) -> None:
        """Forget the call; with an HTTP/2 error code, reset its stream."""


class Call:
    """A call that was opened. At most one thread receives; several may send, message by message.

    Use as a context manager to have it closed, and iterate to receive until the end.
    """

    def __init__(self, link: Link, method: Method, cancel: Cancel, timeout_s: float | None) -> None:
        self.method = method
        self.stream = 0
        """Number of the HTTP/2 stream; 0 before it is open."""
        self._link = link
        self._changed = threading.Condition(link.lock)
        self._sending = threading.Lock()
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._inbox = Deframer(MAX_MESSAGE)
        self._owed = 0  # bytes for which credit is due
        self._ahead = 0  # bytes of the message at the head for which credit was given before it was whole
        self._answered = False
        self._headers: Headers = []
        self._trailers: Headers = []
        self._status: Status | None = None  # the far side's last word
        self._failure: Status | None = None  # ours, or that of the connection
        self._cancelled = False
        self._sent_end = False
        self._forget = cancel.on_cancel(self._on_cancel)

    def __enter__(self) -> Call:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        while (message := self.receive()) is not None:
            yield message

    def send(self, message: Any) -> None:
        """Send one message; blocks while the far side takes none.

        Raises:
            RpcError: the call is over, with its status; the message is too long; the peer is gone.
            CancelledError: the call's token was cancelled.
        """
        if not self._push(message.SerializeToString(), end=False):
            raise RpcError(
                Status(Code.ABORTED, "the far side ended the call without reading all"), path=self.method.path
            )

    def send_last(self, message: Any) -> None:
        """Send one message and end: `send` and `end` in one go; an early good end of the far side is no error."""
        self._push(message.SerializeToString(), end=True)

    def end(self) -> None:
        """Say that nothing more will be sent; idempotent.

        Raises:
            RpcError: the call failed.
            CancelledError: the call's token was cancelled.
        """
        with self._sending, self._link.lock:
            self.check()
            if self._status is None and not self._sent_end:
                self._sent_end = True
                self._link.send_data(self, memoryview(b""), end=True)

    def receive(self) -> Any | None:
        """Return the next message, or None at a good end.

        Raises:
            RpcError: the call ended with another status than OK, or failed.
            CancelledError: the call's token was cancelled.
        """
        with self._link.lock:
            body = self._next()
        if body is None:
            return None
        try:
            return self.method.response.FromString(body)
        except Exception as error:  # protobuf's implementations raise different things
            self.fail(Status(Code.INTERNAL, "the far side sent a message that cannot be read"))
            raise RpcError(
                Status(Code.INTERNAL, f"unreadable {self.method.response.__name__}"), path=self.method.path
            ) from error

    def headers(self) -> tuple[tuple[str, str | bytes], ...]:
        """Wait for the answer's first headers and return the metadata in them.

        Raises:
            RpcError, CancelledError: as `receive`, where the call failed before they came.
        """
        with self._link.lock:
            while not self._answered:
                self.check()
                if self._status is not None:
                    break
                self._wait()
            return received(self._headers)

    def trailers(self) -> tuple[tuple[str, str | bytes], ...]:
        """Return the metadata of the end, once the call has ended; nothing before."""
        with self._link.lock:
            return received(self._trailers)

    def close(self) -> None:
        """Give the call up, unless it is over; idempotent, never blocks. Wakes whoever sends or receives."""
        self.fail(Status(Code.CANCELLED, "the call was closed"))

    def fail(self, status: Status) -> None:
        """Let the call end with `status`, unless it is over."""
        with self._link.lock:
            self.failed(status, reset=CANCEL)
        self._forget()

    # --- with the lock held, by this object or the peer

    def failed(self, status: Status, *, reset: int | None) -> None:
        """End the call as failed; the first failure stays."""
        if self._failure is not None:
            return
        ended = self._status is not None
        self._failure = status
        self._drop()
        if not ended:
            self._link.over(self, reset)
        self._changed.notify_all()

    def wake(self) -> None:
        """Let waiting threads look again."""
        self._changed.notify_all()

    def await_stream(self) -> None:
        """Wait while there is no stream for the call."""
        self.check()
        self._wait()

    def put_headers(self, headers: Headers) -> None:
        """Take headers or trailers of the answer."""
        if not self._answered:
            self._answered = True
            self._headers = headers
            wrong = check_answer(headers)
            if wrong is not None:
                self._finish(wrong, headers)
            elif "grpc-status" in dict(headers):
                self._trailers = headers  # an answer of trailers only
        else:
            self._trailers = headers
        self._changed.notify_all()

    def put_data(self, data: bytes, padding: int) -> None:
        """Take a piece of the answer's body."""
        self._inbox.feed(data)
        self._owed += padding
        if not self._answered:
            self.failed(Status(Code.INTERNAL, "the far side sent data before headers"), reset=CANCEL)
        elif self._inbox.is_ready() or len(self._inbox) - self._ahead >= _CREDIT_STEP:
            self._changed.notify_all()  # not for every piece: waking a thread costs more than the piece

    def put_end(self) -> None:
        """Take the end of the answer."""
        if self._status is None and self._failure is None:
            self._finish(final_status(self._trailers), self._trailers)

    def _finish(self, status: Status, trailers: Headers) -> None:
        self._status = status
        self._trailers = trailers
        self._link.over(self, None if self._sent_end else NO_ERROR)
        self._changed.notify_all()

    def _push(self, message: bytes, *, end: bool) -> bool:
        """Send a message with its prefix; return False when the far side has ended well before it was sent."""
        if len(message) > MAX_MESSAGE:
            raise RpcError(
                Status(Code.RESOURCE_EXHAUSTED, f"a message of {len(message)} bytes; {MAX_MESSAGE} are allowed"),
                path=self.method.path,
            )
        rest = memoryview(frame(message))
        with self._sending, self._link.lock:
            while True:
                self.check()
                if self._status is not None:
                    if self._status.code != Code.OK:
                        raise RpcError(self._status, path=self.method.path)
                    return False
                if self._sent_end:
                    raise InputError("a message was sent after the end of the call", where=self.method.path)
                count = self._link.writable(self)
                if not count:
                    self._wait()
                    continue
                last = count >= len(rest)
                self._sent_end = end and last
                self._link.send_data(self, rest[:count], end=self._sent_end)
                if last:
                    return True
                rest = rest[count:]

    def _next(self) -> bytes | None:
        while True:
            self.check()
            try:
                body = self._inbox.pop()
            except FramingError as error:
                code = Code.RESOURCE_EXHAUSTED if isinstance(error, TooLongError) else Code.INTERNAL
                self._refuse(Status(code, f"the far side sent {error}"))
                continue
            if body is not None:
                count = len(body) + 5
                self._link.took(count)
                self._owe(count - self._ahead)
                self._ahead = 0
                return body
            if self._status is not None:
                if self._status.code == Code.OK and len(self._inbox):
                    self._refuse(Status(Code.INTERNAL, "the answer ended in the middle of a message"))
                    continue
                if self._status.code != Code.OK:
                    raise RpcError(self._status, path=self.method.path)
                return None
            self._owe(len(self._inbox) - self._ahead)
            self._ahead = len(self._inbox)
            self._wait()

    def _refuse(self, status: Status) -> None:
        if self._status is None:
            self.failed(status, reset=CANCEL)
        else:
            self._failure = status
            self._drop()

    def _owe(self, count: int) -> None:
        self._owed += count
        if self._owed >= _CREDIT_STEP and self._status is None:
            self._link.give_credit(self, self._owed)
            self._owed = 0

    def _drop(self) -> None:
        self._link.took(len(self._inbox))
        self._inbox.clear()
        self._ahead = 0

    def check(self) -> None:
        """Raise what ended the call by force."""
        if self._cancelled:
            raise CancelledError
        if self._failure is not None:
            raise RpcError(self._failure, path=self.method.path)

    def _wait(self) -> None:
        """Wait for a change, no longer than the deadline."""
        if self._deadline is None:
            self._changed.wait()
            return
        left = self._deadline - time.monotonic()
        if left > 0:
            self._changed.wait(left)
        else:
            self.failed(Status(Code.DEADLINE_EXCEEDED, "no answer within the time given"), reset=CANCEL)

    def _on_cancel(self) -> None:
        with self._link.lock:
            if self._failure is None and self._status is None:
                self._cancelled = True
                self.failed(Status(Code.CANCELLED, "cancelled"), reset=CANCEL)
