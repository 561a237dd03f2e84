"""Sparse files in tar archives: where their data goes, and a reader that gives the holes as zeros.

Formats: GNU tar, "Storing Sparse Files" (old GNU, PAX 0.0, 0.1 and 1.0). Invariants: the pieces are in order, do not
overlap, lie inside the file and take up exactly the data that is there. The map's size is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lamina.layer.errors import TarError
from lamina.layer.tar_header import BLOCK, MAX_SIZE, parse_decimal, parse_number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_MAP = 1 << 20
"""Most bytes that the map of a sparse file may take in the archive."""
_ZEROS = bytes(1 << 20)

Pieces = list[tuple[int, int]]
"""Offset and length of the data, in order."""


class _Body(Protocol):
    def read(self, size: int) -> bytes: ...
    def skip(self) -> None: ...


class SparseBody:
    """The content of a sparse file.

    Args:
        body: the data in the archive, its map already read.
        size: length of the whole file.
        pieces: where the data goes.
        stored: bytes of data left in `body`.
        entry: the entry's name, for messages.

    Raises:
        TarError: the map breaks an invariant.
    """

    def __init__(self, body: _Body, size: int, pieces: Pieces, stored: int, entry: str) -> None:
        end = total = 0
        for offset, length in pieces:
            if offset < end or offset + length > size:
                raise TarError("a sparse file whose pieces overlap or lie outside it", entry)
            end, total = offset + length, total + length
        if total != stored:
            raise TarError(f"a sparse file with {stored} bytes of data, its map says {total}", entry)
        self.size = size
        self._body = body
        # Pieces in reverse, to be popped; the last one stands for the hole at the end.
        self._pieces = [(size, 0), *reversed([piece for piece in pieces if piece[1]])]
        self._at = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, b"" at the end."""
        while self._pieces:
            offset, length = self._pieces[-1]
            if self._at < offset:
                data = _ZEROS[: min(size, offset - self._at)]
                self._at += len(data)
                return data
            left = offset + length - self._at
            if left:
                data = self._body.read(min(size, left))
                self._at += len(data)
                return data
            self._pieces.pop()
        return b""

    def skip(self) -> None:
        """Pass over what was not read."""
        self._pieces.clear()
        self._body.skip()


def old_sparse_map(block: bytes, next_block: Callable[[str], bytes], entry: str) -> tuple[int, Pieces]:
    """Return the length and the pieces of an old GNU sparse file, from its header and the blocks that continue it.

    Raises:
        TarError: it is malformed or too long.
    """
    try:
        real = parse_number(block[483:495])
        fields, more = block[386:482], block[482]
        pieces = _old_pieces(fields)
        used = 0
        while more:
            used += BLOCK
            if used > MAX_MAP:
                raise TarError(f"a sparse file with a map of more than {MAX_MAP} bytes", entry)
            block = next_block(entry)
            pieces += _old_pieces(block[:504])
            more = block[504]
    except ValueError as error:
        raise TarError(f"a number in a sparse map is not valid: {error}", entry) from None
    if not 0 <= real <= MAX_SIZE or any(offset < 0 or length < 0 for offset, length in pieces):
        raise TarError("a number in a sparse map is out of range", entry)
    return real, pieces


def _old_pieces(fields: bytes) -> Pieces:
    pieces = []
    for at in range(0, len(fields) - 23, 24):
        field = fields[at : at + 24]
        if not field[0]:
            break
        pieces.append((parse_number(field[:12]), parse_number(field[12:])))
    return pieces


def is_sparse_pax(records: Sequence[tuple[bytes, bytes]]) -> bool:
    """Tell whether `GNU.sparse.` records make the file a sparse one."""
    keys = {key for key, _ in records}
    return bool(keys & {b"GNU.sparse.major", b"GNU.sparse.map", b"GNU.sparse.size", b"GNU.sparse.realsize"})


def pax_sparse_map(
    records: Sequence[tuple[bytes, bytes]], read: Callable[[int], bytes], entry: str
) -> tuple[bytes, int, Pieces, int]:
    """Return name (b"" for the header's), length, pieces, and how many bytes of the data the map itself took.

    Raises:
        TarError: it is malformed, too long, or of an unknown version.
    """
    last = dict(records)
    name = last.get(b"GNU.sparse.name", b"")
    version = (last.get(b"GNU.sparse.major", b"0"), last.get(b"GNU.sparse.minor", b"0"))
    size = last.get(b"GNU.sparse.realsize", last.get(b"GNU.sparse.size"))
    if size is None:
        raise TarError("a sparse file without a size", entry)
    real = parse_decimal(size, "GNU.sparse.realsize", entry)
    used = 0
    if version == (b"1", b"0"):
        numbers, used = _read_map(read, entry)
    elif version[0] == b"0" and b"GNU.sparse.map" in last:
        text = last[b"GNU.sparse.map"]
        numbers = [parse_decimal(number, "GNU.sparse.map", entry) for number in text.split(b",")] if text else []
    elif version[0] == b"0":
        numbers = [
            parse_decimal(value, key.decode(), entry)
            for key, value in records
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
        ]
    else:
        raise TarError(f"a sparse file of the unknown version {version!r}", entry)
    if len(numbers) % 2:
        raise TarError("a sparse map with an odd number of numbers", entry)
    return name, real, list(zip(numbers[::2], numbers[1::2], strict=True)), used


def _read_map(read: Callable[[int], bytes], entry: str) -> tuple[list[int], int]:
    """Read the map of version 1.0, which lies before the data as lines of decimal numbers, padded to blocks."""
    lines: list[bytes] = []
    rest = b""
    wanted, used = -1, 0
    while wanted < 0 or len(lines) < wanted:
        block = _read_block(read, entry)
        used += BLOCK
        if used > MAX_MAP:
            raise TarError(f"a sparse file with a map of more than {MAX_MAP} bytes", entry)
        *whole, rest = (rest + block).split(b"\n")
        if len(rest) > BLOCK:
            raise TarError("a sparse map without numbers", entry)
        lines += whole
        if wanted < 0 and lines:
            wanted = 2 * parse_decimal(lines.pop(0), "number of sparse pieces", entry, MAX_MAP)
    return [parse_decimal(line, "sparse map", entry) for line in lines[:wanted]], used


def _read_block(read: Callable[[int], bytes], entry: str) -> bytes:
    data = b""
    while len(data) < BLOCK:
        more = read(BLOCK - len(data))
        if not more:
            raise TarError("a sparse map that is cut short", entry)
        data += more
    return data
