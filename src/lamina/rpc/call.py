"""One call that is served: its requests, its answers, and what its handler may know of it.

The connection's reader thread puts in what comes; the handler's thread takes requests and sends answers. The
connection's lock guards everything. A call is over when the handler has ended it, or the far side has gone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from lamina.api.errors import EXHAUSTED, INTERNAL, INVALID, status_of
from lamina.api.services import Method
from lamina.errors import CancelledError, Error, InputError
from lamina.tunnel.framing import MAX_MESSAGE, Deframer, FramingError, TooLongError, frame
from lamina.tunnel.http2 import NO_ERROR, STREAM_WINDOW
from lamina.tunnel.metadata import Headers, received, trailer_headers

if TYPE_CHECKING:
    from google.rpc.status_pb2 import Status

_CREDIT_STEP = STREAM_WINDOW // 4
_ANSWER: Headers = [(":status", "200"), ("content-type", "application/grpc")]


class Link(Protocol):
    """What a call needs of its connection. All but `lock` is used with the lock held."""

    lock: threading.Lock

    def writable(self, call: ServedCall) -> int:
        """Return how many bytes the call may send now; when none, the call is woken once that changes."""

    def send_headers(self, call: ServedCall, headers: Headers, *, end: bool) -> None:
        """Send headers, or trailers."""

    def send_data(self, call: ServedCall, data: memoryview) -> None:
        """Send on the call's stream."""

    def give_credit(self, call: ServedCall, count: int) -> None:
        """Let the far side send `count` more bytes on the call's stream."""

    def took(self, count: int) -> None:
        """Note that `count` received bytes are no longer held."""

    def over(self, call: ServedCall, reset: int | None) -> None:
        """Forget the call; with an HTTP/2 error code, reset its stream."""


class ServedCall:
    """A call, as its handler sees it. Iterating takes the requests; from one thread at a time.

    Attributes:
        metadata: what the client sent along, pairs of key and value.
    """

    def __init__(self, link: Link, stream: int, method: Method, headers: Headers) -> None:
        self.stream, self.method = stream, method
        self.metadata = received(headers)
        self._link = link
        self._changed = threading.Condition(link.lock)
        self._inbox = Deframer(MAX_MESSAGE)
        self._owed = 0
        self._ahead = 0
        self._ended_in = False
        self._over = False
        self._answered = False
        self._callbacks: list[Callable[[], None]] = []

    # ---- for the handler ----

    def on_end(self, callback: Callable[[], None]) -> None:
        """Have `callback` run when the call is over, however that comes; at once if it is. It must not block."""
        with self._link.lock:
            if not self._over:
                self._callbacks.append(callback)
                return
        callback()

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for answers any more."""
        return self._over

    def __iter__(self) -> Iterator[Any]:
        while (body := self._take()) is not None:
            yield self._parsed(body)

    def batches(self) -> Iterator[list[Any]]:
        """Yield what requests have come, all that are there at a time."""
        while (body := self._take()) is not None:
            found = [body]
            with self._link.lock:
                while (more := self._pop()) is not None:
                    found.append(more)
            yield [self._parsed(one) for one in found]

    def only(self) -> Any:
        """Return the one request of a call that has one.

        Raises:
            InputError: there is none; CancelledError: the client has gone.
        """
        body = self._take()
        if body is None:
            raise InputError("a call without a request")
        return self._parsed(body)

    def send(self, message: Any) -> None:
        """Send an answer; blocks while the far side takes none.

        Raises:
            CancelledError: the client has gone; InputError: the answer is too large for gRPC.
        """
        data = message.SerializeToString()
        if len(data) > MAX_MESSAGE:
            raise InputError(f"an answer of {len(data)} bytes; {MAX_MESSAGE} are allowed")
        rest = memoryview(frame(data))
        with self._link.lock:
            self._answer()
            while rest:
                if self._over:
                    raise CancelledError("the client has gone")
                count = self._link.writable(self)
                if not count:
                    self._changed.wait()
                    continue
                self._link.send_data(self, rest[:count])
                rest = rest[count:]

    # ---- for the connection ----

    def finish(self, status: Status | None) -> None:
        """End the call: well, or with a status."""
        with self._link.lock:
            if self._over:
                return
            if status is None:
                self._answer()
            trailers = trailer_headers(status)
            headers = trailers if self._answered else [*_ANSWER, *trailers]
            self._link.send_headers(self, headers, end=True)
            self._end(None if self._ended_in else NO_ERROR)
        self._tell()

    def put_data(self, data: bytes, padding: int) -> None:
        """Take a piece of the requests; with the lock held."""
        self._inbox.feed(data)
        self._owed += padding
        self._changed.notify_all()

    def put_end(self) -> None:
        """Take the end of the requests; with the lock held."""
        self._ended_in = True
        self._changed.notify_all()

    def wake(self) -> None:
        """Let waiting threads look again; with the lock held."""
        self._changed.notify_all()

    def gone(self) -> Callable[[], None]:
        """Take note that the far side has gone, with the lock held; call what is returned without it."""
        if not self._over:
            self._end(None)
        return self._tell

    def _end(self, reset: int | None) -> None:
        self._over = True
        self._link.took(len(self._inbox))
        self._inbox.clear()
        self._link.over(self, reset)
        self._changed.notify_all()

    def _tell(self) -> None:
        with self._link.lock:
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def _answer(self) -> None:
        if not self._answered and not self._over:
            self._answered = True
            self._link.send_headers(self, _ANSWER, end=False)

    def _take(self) -> bytes | None:
        """Return the next request, None at the end.

        Raises:
            CancelledError: the client has gone; Error: it sent what is no message.
        """
        with self._link.lock:
            while True:
                if self._over:
                    raise CancelledError("the client has gone")
                body = self._pop()
                if body is not None:
                    return body
                if self._ended_in:
                    if len(self._inbox):
                        raise _UnreadableError("the requests ended in the middle of a message", INVALID)
                    return None
                # part of a message that is larger than a window must be let in before it is whole
                self._owe(len(self._inbox) - self._ahead)
                self._ahead = len(self._inbox)
                self._changed.wait()

    def _pop(self) -> bytes | None:
        try:
            body = self._inbox.pop()
        except FramingError as error:
            code = EXHAUSTED if isinstance(error, TooLongError) else INTERNAL
            raise _UnreadableError(f"the client sent {error}", code) from error
        if body is not None:
            count = len(body) + 5
            self._link.took(count)
            self._owe(count - self._ahead)
            self._ahead = 0
        return body

    def _owe(self, count: int) -> None:
        self._owed += count
        if self._owed >= _CREDIT_STEP and not self._ended_in:
            self._link.give_credit(self, self._owed)
            self._owed = 0

    def _parsed(self, body: bytes) -> Any:
        try:
            return self.method.request.FromString(body)
        except Exception as error:  # protobuf's implementations raise different things
            raise _UnreadableError(f"unreadable {self.method.request.__name__}", INVALID) from error


class _UnreadableError(Error):
    """A request that is none."""

    def __init__(self, what: str, code: int) -> None:
        super().__init__(what)
        self.code = code


Handler = Callable[[Any, ServedCall], Any]
"""Takes the request (or the call itself, where the client streams) and the call; returns an answer, or an iterator of
them where the server streams."""


def carry_out(call: ServedCall, handler: Handler) -> None:
    """Run a call's handler to its end, and tell the far side how it went."""
    method = call.method
    try:
        request = call if method.client_streams else call.only()
        answer = handler(request, call)
        if method.server_streams:
            for message in answer:
                call.send(message)
        else:
            call.send(answer)
    except BaseException as error:
        if isinstance(error, CancelledError) and call.is_over:
            return
        call.finish(status_of(error))
        if not isinstance(error, Exception):
            raise
    else:
        call.finish(None)
