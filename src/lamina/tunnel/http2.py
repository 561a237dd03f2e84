"""One end of an HTTP/2 connection, without I/O: frames in, calls of a handler and bytes to send out.

A thin coat over h2, so that the rest of the room does not know the library: what it raises, how its events look, and
where it must be told to be careful. Every method is called with the peer's lock held.
Specification: RFC 9113. Invariant: bytes of the far side lead to handler calls or to `Http2Error`, to nothing else.
"""

from __future__ import annotations

from typing import Protocol

from h2.config import H2Configuration
from h2.connection import ConnectionInputs, ConnectionState, H2Connection, H2ConnectionStateMachine
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import H2Error, NoAvailableStreamIDError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import DataFrame, Frame, WindowUpdateFrame

from lamina.tunnel.metadata import Headers

STREAM_WINDOW = 4 << 20
CONNECTION_WINDOW = 16 << 20
MAX_FRAME = 256 << 10
MAX_HEADERS = 64 << 10
MAX_SERVED = 1000
"""Calls that the far side may have open at a time."""
_FIRST_WINDOW = 65535
_BITE = 64 << 10  # the library copies what it holds; it is fed no more than this at a time

_FRAME_HEAD = 9
_SETTINGS_HEAD = b"\x04\0\0\0\0\0"  # type, flags and stream of a frame of settings that is no acknowledgement

CANCEL = int(ErrorCodes.CANCEL)
NO_ERROR = int(ErrorCodes.NO_ERROR)


class Http2Error(Exception):
    """The far side broke HTTP/2; the connection cannot go on."""


class ExhaustedError(Exception):
    """A connection has no more stream numbers."""


class Handler(Protocol):
    """What happens on a connection. `length` of data counts what flow control counts, padding too."""

    def on_headers(self, stream: int, headers: Headers) -> None:
        """Headers or trailers of an answer came."""

    def on_data(self, stream: int, data: bytes, length: int) -> None:
        """A piece of an answer's body came."""

    def on_end(self, stream: int) -> None:
        """The far side will send no more on this stream."""

    def on_reset(self, stream: int, error_code: int) -> None:
        """The far side gave the stream up."""

    def on_window(self, stream: int) -> None:
        """There may be more room to send; on any stream when `stream` is 0."""

    def on_goaway(self, last_stream: int, error_code: int, debug: bytes) -> None:
        """The far side takes no calls beyond `last_stream`."""

    def on_pong(self, payload: bytes) -> None:
        """A ping was answered."""


class _LastingState(H2ConnectionStateMachine):
    """The library's idea of a connection, but for GOAWAY, which it takes for the end of all.

    It is the end of new calls only: those that are under way go on until they are done (RFC 9113, 6.8).
    """

    state: ConnectionState

    def process_input(self, input_: ConnectionInputs) -> list[Event]:
        """Follow an input."""
        before = self.state
        events = super().process_input(input_)
        if input_ is ConnectionInputs.RECV_GOAWAY and before in (
            ConnectionState.CLIENT_OPEN,
            ConnectionState.SERVER_OPEN,
        ):
            self.state = before
        return events


class _QuietData(DataFrame):
    __repr__ = object.__repr__


class _QuietWindowUpdate(WindowUpdateFrame):
    __repr__ = object.__repr__


_QUIET: dict[type[Frame], type[Frame]] = {DataFrame: _QuietData, WindowUpdateFrame: _QuietWindowUpdate}


class _Connection(H2Connection):
    """The library's connection that keeps what it has to say when a GOAWAY comes."""

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self.state_machine = _LastingState()
        for loud, quiet in _QUIET.items():
            self._frame_dispatch_table[quiet] = self._frame_dispatch_table[loud]

    def _receive_frame(self, frame: Frame) -> list[Event]:
        """Take a frame, without the library's description of it for a log: a quarter of all the time it takes."""
        frame.__class__ = _QUIET.get(frame.__class__, frame.__class__)
        return super()._receive_frame(frame)

    def clear_outbound_data_buffer(self) -> None:
        """Do not."""


class Http2:
    """One end of a connection.

    Args:
        client: whether this is the end that calls.
    """

    def __init__(self, handler: Handler, *, client: bool = True) -> None:
        self._handler = handler
        self._h2 = _Connection(H2Configuration(client_side=client, header_encoding=None))
        self._h2.local_settings = Settings(
            client=client,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                SettingCodes.MAX_FRAME_SIZE: MAX_FRAME,
                SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADERS,
                SettingCodes.MAX_CONCURRENT_STREAMS: MAX_SERVED,
            },
        )
        self._h2.max_inbound_frame_size = MAX_FRAME
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW - _FIRST_WINDOW)
        self._greeting: bytearray | None = bytearray() if client else None  # a client's the library checks itself

    @property
    def max_streams(self) -> int:
        """How many calls the far side takes at a time."""
        return self._h2.remote_settings.max_concurrent_streams

    def take(self) -> bytes:
        """Return what is to be sent now."""
        return self._h2.data_to_send()

    def open(self, headers: Headers) -> int:
        """Begin a stream and return its number.

        Raises:
            ExhaustedError: this connection has had too many.
        """
        try:
            stream = self._h2.get_next_available_stream_id()
        except NoAvailableStreamIDError as error:
            raise ExhaustedError from error
        self._h2.send_headers(stream, headers)
        return stream

    def answer(self, stream: int, headers: Headers, *, end: bool) -> None:
        """Send headers of an answer, or its trailers, which `end` it; on a stream that is over nothing happens."""
        try:
            self._h2.send_headers(stream, headers, end_stream=end)
        except H2Error:
            pass

    def window(self, stream: int) -> int:
        """Return how many bytes may be sent on `stream` now."""
        return max(0, self._h2.local_flow_control_window(stream))

    def data(self, stream: int, data: memoryview, *, end: bool) -> None:
        """Send bytes, at most `window` many; `end` says that they are the last."""
        step = self._h2.max_outbound_frame_size
        for start in range(0, len(data), step):
            last = end and start + step >= len(data)
            self._h2.send_data(stream, bytes(data[start : start + step]), end_stream=last)
        if end and not data:
            self._h2.end_stream(stream)

    def reset(self, stream: int, error_code: int) -> None:
        """Give a stream up; one that is over is left alone."""
        try:
            self._h2.reset_stream(stream, error_code)
        except H2Error:
            pass

    def credit(self, stream: int, count: int) -> None:
        """Let the far side send `count` more bytes on a stream, or on the connection as a whole when it is 0."""
        try:
            self._h2.increment_flow_control_window(count, stream or None)
        except H2Error:
            pass  # the stream ended meanwhile

    def ping(self, payload: bytes) -> None:
        """Ask for a sign of life; `payload` has 8 bytes."""
        self._h2.ping(payload)

    def goaway(self) -> None:
        """Say goodbye."""
        try:
            self._h2.close_connection()
        except H2Error:
            pass

    def receive(self, data: bytes) -> None:
        """Take bytes of the far side and tell the handler what they mean.

        Raises:
            Http2Error: they are not HTTP/2, or not what was agreed. `take` has a last frame for the far side.
        """
        if self._greeting is not None:
            self._check_greeting(data)
        for start in range(0, len(data), _BITE):
            try:
                events = self._h2.receive_data(data[start : start + _BITE])
            except H2Error as error:
                raise Http2Error(str(error) or type(error).__name__) from error
            except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
                # Not documented, but what parsers do at their edges; the far side caused it, so it is contained here.
                raise Http2Error(f"unreadable frame ({type(error).__name__})") from error
            for event in events:
                self._tell(event)

    def _check_greeting(self, data: bytes) -> None:
        """See that the first frame is one of settings (RFC 9113, 3.4), before a wrong one's length is believed."""
        assert self._greeting is not None
        self._greeting += data[:_FRAME_HEAD]
        if len(self._greeting) >= _FRAME_HEAD:
            if self._greeting[3:_FRAME_HEAD] != _SETTINGS_HEAD:
                raise Http2Error("it does not speak HTTP/2")
            self._greeting = None

    def _tell(self, event: Event) -> None:
        handler = self._handler
        if isinstance(event, DataReceived):
            handler.on_data(event.stream_id, event.data, event.flow_controlled_length)
        elif isinstance(event, StreamEnded):
            handler.on_end(event.stream_id)
        elif isinstance(event, WindowUpdated):
            handler.on_window(event.stream_id)
        elif isinstance(event, (RequestReceived, ResponseReceived, TrailersReceived)):
            handler.on_headers(event.stream_id, [(_text(key), _text(value)) for key, value in event.headers])
        elif isinstance(event, StreamReset):
            handler.on_reset(event.stream_id, int(event.error_code))
        elif isinstance(event, RemoteSettingsChanged):
            handler.on_window(0)
        elif isinstance(event, PingAckReceived):
            handler.on_pong(event.ping_data)
        elif isinstance(event, ConnectionTerminated):
            handler.on_goaway(event.last_stream_id or 0, int(event.error_code or 0), event.additional_data or b"")


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
