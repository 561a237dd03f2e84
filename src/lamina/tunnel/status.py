"""How a call ended: gRPC's status codes, and the error a caller sees.

Specification: gRPC over HTTP/2, "Responses", "HTTP2 Transport Mapping", and "HTTP to gRPC Status Code Mapping". Pure.
Invariant: text from the far side is cut to a sane length before it becomes part of a message.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from lamina.errors import NetworkError

MAX_MESSAGE = 8 << 10
"""Characters kept of what the far side says about a failure."""


class Code(IntEnum):
    """The status codes of gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Status:
    """The end of a call.

    Attributes:
        code: 0 is success; codes that gRPC does not define are kept as they came.
        message: for a person; may be empty.
        details: the serialized `google.rpc.Status` that came along, or b"".
    """

    code: int
    message: str = ""
    details: bytes = b""


class RpcError(NetworkError):
    """A call failed: the far side said so, went away, or broke the protocol.

    Attributes:
        code: gRPC status code, one of `Code` where it is a known one.
        message: what the far side (or this one) said.
        details: serialized `google.rpc.Status`, or b"".
    """

    def __init__(self, status: Status, *, path: str = "") -> None:
        where = f"the client's {path.rpartition('/')[2]}" if path else "the client's session"
        name = code_name(status.code)
        super().__init__(f"{name}: {status.message}" if status.message else name, where=where)
        self.code = status.code
        self.message = status.message
        self.details = status.details


def code_name(code: int) -> str:
    """Return a code in words as people know them, `NotFound` as `not found`."""
    try:
        return Code(code).name.lower().replace("_", " ")
    except ValueError:
        return f"status {code}"


_OF_HTTP = {
    400: Code.INTERNAL,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.UNIMPLEMENTED,
    429: Code.UNAVAILABLE,
    502: Code.UNAVAILABLE,
    503: Code.UNAVAILABLE,
    504: Code.UNAVAILABLE,
}


def of_http(status: str) -> Status:
    """Return what an answer means that is HTTP but not gRPC."""
    code = _OF_HTTP.get(int(status), Code.UNKNOWN) if status.isascii() and status.isdigit() else Code.UNKNOWN
    return Status(code, f"answered with HTTP status {status[:16]!r} where a gRPC answer was expected")


_OF_RESET = {
    0x7: Code.UNAVAILABLE,  # REFUSED_STREAM
    0x8: Code.CANCELLED,  # CANCEL
    0xB: Code.RESOURCE_EXHAUSTED,  # ENHANCE_YOUR_CALM
    0xC: Code.PERMISSION_DENIED,  # INADEQUATE_SECURITY
}


def of_reset(error_code: int) -> Status:
    """Return what it means that the far side reset a stream with an HTTP/2 error code."""
    return Status(
        _OF_RESET.get(error_code, Code.INTERNAL), f"the far side reset the stream (HTTP/2 error {error_code})"
    )
