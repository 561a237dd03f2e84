"""gRPC's messages in a stream of bytes: a flag, a length of four bytes, the message.

Pure. Invariant: a length is judged before a byte of the message is awaited; what lies here is bytes, not objects, so
that a stream of tiny messages costs no more memory than its bytes.
"""

from __future__ import annotations

from struct import Struct

PREFIX = Struct(">BI")
MAX_MESSAGE = 16 << 20
"""Bytes of one message, each way; the limit BuildKit's own ends keep."""


class FramingError(Exception):
    """The far side sent what is no gRPC message, or too long a one."""


class TooLongError(FramingError):
    """A message is longer than the limit."""


def frame(message: bytes) -> bytes:
    """Return a serialized message with its prefix."""
    return PREFIX.pack(0, len(message)) + message


class Deframer:
    """Takes pieces as they come and gives whole messages.

    Args:
        limit: the longest message, in bytes.
    """

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._limit = limit
        self._held = bytearray()

    def __len__(self) -> int:
        return len(self._held)

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        self._held += data

    def is_ready(self) -> bool:
        """Tell whether `pop` would return a message or raise."""
        held = self._held
        if len(held) < PREFIX.size:
            return False
        flag, length = PREFIX.unpack_from(held)
        return bool(flag) or bool(length > self._limit) or len(held) >= PREFIX.size + int(length)

    def pop(self) -> bytes | None:
        """Return the next message, or None while it is not all here.

        Raises:
            FramingError: what is next cannot be a message.
        """
        held = self._held
        if len(held) < PREFIX.size:
            return None
        flag, length = PREFIX.unpack_from(held)
        if flag:
            raise FramingError(f"a message is marked {flag}: compressed ones were not offered")
        if length > self._limit:
            raise TooLongError(f"a message of {length} bytes; {self._limit} are allowed")
        end = PREFIX.size + length
        if len(held) < end:
            return None
        with memoryview(held) as view:
            message = bytes(view[PREFIX.size : end])
        del held[:end]
        return message

    def clear(self) -> None:
        """Forget what is held."""
        self._held = bytearray()
