"""A stream cut where its content says, so that an insertion moves only the cuts around it.

A cut is made after a position where three bytes in a row end in chosen four bits and the checksum of the 64 bytes
before it is divisible by 256. The first test is a regular expression and runs at C's speed over the whole stream; the
second runs for one position in 4,096 of random bytes. So chunks are about 1 MiB beyond the smallest, and never larger
than the largest, whatever the content. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from zlib import crc32

SMALLEST = 256 << 10
LARGEST = 8 << 20
_WINDOW = 64
_ONE_IN = 256
_NIBBLE = b"[" + b"".join(b"\\x%x5" % high for high in range(16)) + b"]"
_CANDIDATE = re.compile(_NIBBLE + b"(?=" + _NIBBLE + b"{2})")


def cut(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the stream that `pieces` make in chunks; joined they are the stream. Holds two chunks at most."""
    held = bytearray()
    searched = SMALLEST
    for piece in pieces:
        held += piece
        while len(held) > searched:
            end, searched = _find(held, searched)
            if end:
                yield bytes(held[:end])
                del held[:end]
                searched = SMALLEST
    if held:
        yield bytes(held)


def _find(held: bytearray, start: int) -> tuple[int, int]:
    """Return where the first chunk ends, 0 when that cannot be told yet, and up to where was looked."""
    most = min(len(held), LARGEST)
    for match in _CANDIDATE.finditer(held, start - 3, most):
        end = match.start() + 3
        if end >= SMALLEST and crc32(held[end - _WINDOW : end]) % _ONE_IN == 0:
            return end, 0
    return (LARGEST, 0) if len(held) >= LARGEST else (0, most)
