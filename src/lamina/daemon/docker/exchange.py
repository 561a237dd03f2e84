"""One HTTP/1.1 connection of a client: requests in, with their bodies as streams; replies and streams out.

The protocol itself is h11's, which is strict; here are the socket, the limits, and the ways a reply may go: as one
JSON document, as a stream, or by handing the connection over (`Connection: Upgrade`). Blocking, one thread for each
connection. RFC 9110, RFC 9112.

Limits: a head of at most `MAX_HEAD` bytes that comes within `HEAD_S`; whoever neither sends nor takes a byte for
`IDLE_S` is left. A body has no limit of its own, since archives of images have none: `body` reads with one.
"""

from __future__ import annotations

import json
import os
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import h11

from lamina.cancel import Cancel
from lamina.daemon.docker.failures import ApiError

MAX_HEAD = 256 << 10
"""Most bytes of a request line with its headers: options of a build stand in the request line."""
HEAD_S = 30.0
IDLE_S = 600.0
_BETWEEN_S = 120.0
_LINGER_S = 3.0
_CHUNK_BYTES = 256 << 10

Headers = Sequence[tuple[str, str]]


class GoneError(Exception):
    """The client went away, or does not speak HTTP any more; nothing can be told to it."""


class Exchange:
    """One request and what is answered to it.

    Attributes:
        method, target: as they came.
        headers: names in lower case.
    """

    def __init__(self, connection: Connection, request: h11.Request) -> None:
        self._connection = connection
        self.method = request.method.decode("ascii")
        self.target = request.target.decode("ascii")
        self.headers: list[tuple[str, str]] = [
            (name.decode("ascii").lower(), value.decode("latin-1")) for name, value in request.headers
        ]
        self.reply_headers: list[tuple[str, str]] = []
        self._left = memoryview(b"")
        self.started = False
        """Whether a reply has begun, so that an error can only be told inside of it."""

    @property
    def family(self) -> int:
        """How the client is connected: `socket.AF_UNIX`, `AF_INET`, ..."""
        return self._connection.socket.family

    def header(self, name: str) -> str:
        """Return a header's (first) value, "" when it is not there."""
        return next((value for key, value in self.headers if key == name), "")

    def read(self, size: int = -1) -> bytes:
        """Return what comes next of the body, at most `size` bytes where that is given; b"" at its end.

        Raises:
            GoneError: the client stopped sending.
        """
        data = self._left or memoryview(self._connection.read_body())
        end = len(data) if size < 0 else min(size, len(data))
        self._left = data[end:]
        return bytes(data[:end])

    def body(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            ApiError: it is larger than `limit` bytes.
        """
        found = bytearray()
        while data := self.read():
            found += data
            if len(found) > limit:
                raise ApiError(413, f"a body of more than {limit} bytes")
        return bytes(found)

    def reply(self, status: int, payload: Any = None) -> None:
        """Answer with a JSON document, or with nothing."""
        data = b"" if payload is None else json.dumps(payload, ensure_ascii=False).encode() + b"\n"
        self.reply_bytes(status, data, "application/json" if data else "")

    def reply_bytes(self, status: int, data: bytes, content_type: str) -> None:
        """Answer with bytes; to HEAD with their length alone."""
        length = [] if status == 204 else [("Content-Length", str(len(data)))]
        self._begin(status, content_type, length)
        if data and self.method != "HEAD":
            self._connection.send(h11.Data(data=data))
        self._connection.send(h11.EndOfMessage())

    @contextmanager
    def stream(self, content_type: str) -> Iterator[Stream]:
        """Answer with a stream, which ends with the block; an error that leaves the block cuts the connection."""
        self._begin(200, content_type, [])
        yield Stream(self._connection)
        self._connection.send(h11.EndOfMessage())

    def hijack(self, protocol: str) -> tuple[socket.socket, bytes]:
        """Hand the connection over to another protocol; return it with the first bytes of what the client says.

        Raises:
            ApiError: the client did not ask for it.
        """
        wanted = {word.strip().lower() for word in self.header("upgrade").split(",")}
        if protocol not in wanted or "upgrade" not in self.header("connection").lower():
            raise ApiError(400, f"expected Connection: Upgrade and Upgrade: {protocol}")
        self.started = True
        return self._connection.hijack(protocol, self.reply_headers)

    @contextmanager
    def gone(self) -> Iterator[Cancel]:
        """Give a token that is cancelled when the client closes the connection before the block ends."""
        cancel = Cancel()
        stop = os.eventfd(0, os.EFD_CLOEXEC)
        watching = threading.Thread(
            target=_watch, args=(self._connection.socket, stop, cancel), name="docker-gone", daemon=True
        )
        watching.start()
        try:
            yield cancel
        finally:
            os.eventfd_write(stop, 1)
            watching.join()
            os.close(stop)

    def _begin(self, status: int, content_type: str, extra: Headers) -> None:
        headers = [*self.reply_headers, *extra]
        if content_type:
            headers.append(("Content-Type", content_type))
        self.started = True
        self._connection.send(h11.Response(status_code=status, headers=_encoded(headers)))


class Stream:
    """The body of a reply, as a file that is written to. Thread-safe; nothing is kept back."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def write(self, data: bytes) -> int:
        """Send bytes."""
        if data:
            self._connection.send(h11.Data(data=data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: what was written is on its way."""


class Connection:
    """A client's connection. To be closed by who opened the socket.

    Args:
        connected: a connected stream socket.
        first: what was read of it already.
        head_s: how long the head of a request may take once it has begun.
        idle_s: how long the other end may do nothing in the middle of a request or a reply.
    """

    def __init__(
        self, connected: socket.socket, *, first: bytes = b"", head_s: float = HEAD_S, idle_s: float = IDLE_S
    ) -> None:
        self.socket = connected
        self._head_s, self._idle_s = head_s, idle_s
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        if first:
            self._h11.receive_data(first)
        self._sending = threading.Lock()
        self.hijacked = False

    def next(self) -> Exchange | None:
        """Return the next request; None when the client wants nothing more.

        Raises:
            GoneError: what came is no request, or did not come in time; what could be said of it has been said.
        """
        deadline = time.monotonic() + _BETWEEN_S
        begun = False
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                self._refuse(error.error_status_hint or 400, str(error))
                raise GoneError(str(error)) from error
            if isinstance(event, h11.Request):
                if event.http_version not in (b"1.0", b"1.1"):
                    self._refuse(505, "this server speaks HTTP/1.1")
                    raise GoneError("another version of HTTP")
                self.socket.settimeout(self._idle_s)
                return Exchange(self, event)
            if isinstance(event, h11.ConnectionClosed):
                return None
            if event is h11.PAUSED:
                raise GoneError("the protocol was changed")
            if not begun and self._h11.trailing_data[0]:
                begun, deadline = True, time.monotonic() + self._head_s
            self._receive(deadline)

    def read_body(self) -> bytes:
        """Return the next piece of the request's body, b"" at its end."""
        if self._h11.their_state is not h11.SEND_BODY:
            return b""
        if self._h11.they_are_waiting_for_100_continue:
            self.send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        while True:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                raise GoneError(str(error)) from error
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if isinstance(event, h11.EndOfMessage):
                return b""
            if event is not h11.NEED_DATA:
                raise GoneError("the body ended before its end")
            self._receive(None)

    def _receive(self, deadline: float | None) -> None:
        """Take in what comes."""
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise GoneError("no request in time")
            self.socket.settimeout(left)
        try:
            data = self.socket.recv(_CHUNK_BYTES)
        except OSError as error:
            raise GoneError(str(error)) from error
        try:
            self._h11.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise GoneError(str(error)) from error

    def send(self, event: h11.Event) -> None:
        """Send a part of a reply.

        Raises:
            GoneError: the client does not take it.
        """
        with self._sending:
            try:
                pieces = self._h11.send_with_data_passthrough(event)
                self.socket.settimeout(self._idle_s)
                if pieces:
                    self.socket.sendall(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            except (OSError, h11.LocalProtocolError) as error:
                self._h11.send_failed()
                raise GoneError(str(error)) from error

    def hijack(self, protocol: str, headers: Headers) -> tuple[socket.socket, bytes]:
        """Change the protocol; the socket is then somebody else's to read and write."""
        while self.read_body():
            pass
        self._h11.next_event()
        both = [("Connection", "Upgrade"), ("Upgrade", protocol), *headers]
        self.send(h11.InformationalResponse(status_code=101, headers=_encoded(both), reason=b"UPGRADED"))
        self.hijacked = True
        self.socket.settimeout(None)
        return self.socket, self._h11.trailing_data[0]

    def finish(self) -> bool:
        """Make ready for another request; tell whether there may be one."""
        try:
            while self._h11.their_state is h11.SEND_BODY:
                if isinstance(self._h11.next_event(), type(h11.NEED_DATA)):
                    return False  # who did not want the body does not take it in
        except h11.RemoteProtocolError:
            return False
        if self.hijacked or self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    def linger(self) -> None:
        """Take what the client still sends, for a moment, so that it gets to read the answer it was given."""
        if self.hijacked:
            return
        deadline = time.monotonic() + _LINGER_S
        try:
            self.socket.shutdown(socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                self.socket.settimeout(left)
                if not self.socket.recv(_CHUNK_BYTES):
                    return
        except OSError:
            return

    def _refuse(self, status: int, text: str) -> None:
        """Answer to what is no request."""
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        data = json.dumps({"message": text}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(data))), ("Connection", "close")]
        try:
            self.send(h11.Response(status_code=status, headers=_encoded(headers)))
            self.send(h11.Data(data=data))
            self.send(h11.EndOfMessage())
        except GoneError:
            pass


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers]


def _watch(connected: socket.socket, stop: int, cancel: Cancel) -> None:
    """Cancel when the other end closes its side."""
    poll = select.poll()
    poll.register(connected.fileno(), select.POLLRDHUP)
    poll.register(stop, select.POLLIN)
    if not any(fd == stop for fd, _ in poll.poll()):
        cancel.cancel()
