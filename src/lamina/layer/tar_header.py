"""The 512 bytes of a tar header and the records of a PAX header, as values.

Formats: POSIX ustar and pax (IEEE 1003.1, "pax Interchange Format"), GNU tar ("Basic Tar Format"). Pure: bytes in,
values out. Numbers are parsed strictly: octal digits or base-256, never a sign, prefix or underscore.
"""

from __future__ import annotations

import struct
from typing import NamedTuple
from zlib import adler32

from lamina.layer.errors import TarError

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)
OPAQUE_MARK = ".wh..wh..opq"  # image-spec layer.md, "Opaque Whiteout": two dots before "opq"
MAX_ID = 0xFFFFFFFE  # 2**32-1 means "leave it" to chown(2)
MAX_SIZE = (1 << 63) - 1
_MAX_NS = (1 << 63) - 1
_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_USTAR = b"ustar\x0000"
_GNU = b"ustar  \0"
_octal_cache: dict[bytes, int] = {}


class Header(NamedTuple):
    """A header block; numbers parsed, names still bytes.

    Attributes:
        name: path, the ustar prefix joined in.
        mode: as stored, more than permission bits in old archives.
        uid: owner; gid: group; any number that fits the field.
        size: bytes of data that follow, padded to blocks.
        mtime: seconds since the epoch.
        typeflag: one byte.
        linkname: target of links.
        dev: major and minor number.
        block: the whole block, for old sparse maps.
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    typeflag: bytes
    linkname: bytes
    dev: tuple[int, int]
    block: bytes


def parse_header(block: bytes) -> Header:
    """Return the values of a header block.

    Raises:
        TarError: wrong checksum, or a number that is none.
    """
    fields = _FIELDS.unpack(block)
    name = fields[0].partition(b"\0")[0]
    try:
        stored = parse_number(fields[6])
    except ValueError:
        stored = -1
    if stored != checksum(block, fields[6]) and stored != _signed_checksum(block):
        raise TarError("wrong checksum in a tar header: this is no tar archive, or it is damaged", _text(name))
    try:
        magic = fields[9]
        if magic == _USTAR and fields[14][0]:
            name = fields[14].partition(b"\0")[0] + b"/" + name
        dev = (0, 0)
        if fields[7] in b"34" and magic in (_USTAR, _GNU):
            dev = (parse_number(fields[12]), parse_number(fields[13]))
        size = parse_number(fields[4])
        if not 0 <= size <= MAX_SIZE:
            raise ValueError(f"size {size}")
        return Header(
            name,
            parse_number(fields[1]),
            parse_number(fields[2]),
            parse_number(fields[3]),
            size,
            parse_number(fields[5]),
            fields[7],
            fields[8].partition(b"\0")[0],
            dev,
            block,
        )
    except ValueError as error:
        raise TarError(f"a number in the tar header is not valid: {error}", _text(name)) from None


def checksum(block: bytes, stored: bytes) -> int:
    """Return the sum of a header's bytes with the checksum field counted as spaces.

    The lower half of adler32 is one plus the sum of the bytes modulo 65521, which 256 bytes cannot reach: two of
    them are the exact sum, many times faster than `sum`.
    """
    return (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2 - sum(stored) + 256


def _signed_checksum(block: bytes) -> int:
    """Return the sum as some old programs made it, with signed bytes."""
    rest = block[:148] + block[156:]
    return sum(byte - 256 if byte > 127 else byte for byte in rest) + 256


def parse_number(field: bytes) -> int:
    """Return the value of a numeric field, octal or base-256 (which may be negative).

    Raises:
        ValueError: it is neither.
    """
    known = _octal_cache.get(field)
    if known is not None:
        return known
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        # The first bit only marks the form; the next one is the sign.
        return value - (1 << bits) if field[0] & 0x40 else value - (1 << (bits - 1))
    text = field.partition(b"\0")[0].strip(b" ")
    if text and not text.isdigit():
        raise ValueError(repr(field))
    value = int(text, 8) if text else 0
    if len(_octal_cache) < 4096:
        _octal_cache[field] = value
    return value


def parse_records(data: bytes, entry: str) -> list[tuple[bytes, bytes]]:
    """Return the records of a PAX header in order.

    Raises:
        TarError: the records are malformed.
    """
    records = []
    position, end = 0, len(data)
    while position < end:
        space = data.find(b" ", position, position + 10)
        digits = data[position:space] if space > 0 else b""
        if not digits.isdigit():
            if not data[position:].strip(b"\0"):
                break  # some writers count the padding in
            raise TarError("malformed PAX header: a record without a length", entry)
        stop = position + int(digits)
        equals = data.find(b"=", space, min(stop, end))
        if stop > end or equals <= space + 1 or data[stop - 1] != 0x0A:
            raise TarError("malformed PAX header: a record of a wrong length", entry)
        records.append((data[space + 1 : equals], data[equals + 1 : stop - 1]))
        position = stop
    return records


def parse_decimal(value: bytes, what: str, entry: str, limit: int = MAX_SIZE) -> int:
    """Return a decimal number of a PAX record, 0..`limit`.

    Raises:
        TarError: it is not one.
    """
    if not value.isdigit() or len(value) > 20 or int(value) > limit:
        raise TarError(f"PAX header: {what} {_text(value[:40])!r} is not a number from 0 to {limit}", entry)
    return int(value)


def parse_time(value: bytes, entry: str) -> int:
    """Return the nanoseconds of a PAX time such as `-1.5`.

    Raises:
        TarError: it is not a time, or further away than a 64-bit number of nanoseconds reaches.
    """
    seconds, point, fraction = value.lstrip(b" ").partition(b".")
    negative = seconds.startswith(b"-")
    digits = seconds[1:] if negative else seconds
    if not (digits.isdigit() or (not digits and fraction)) or not (fraction.isdigit() or not fraction):
        raise TarError(f"PAX header: {_text(value[:40])!r} is not a time", entry)
    if len(digits) > 20 or len(fraction) > 1000:
        raise TarError("PAX header: a time out of range", entry)
    ns = int(digits or b"0") * 1_000_000_000 + int(fraction[:9].ljust(9, b"0") if point else b"0")
    return check_time(-ns if negative else ns, entry)


def check_time(ns: int, entry: str) -> int:
    """Return `ns` if it fits a 64-bit number.

    Raises:
        TarError: it does not.
    """
    if not -_MAX_NS <= ns <= _MAX_NS:
        raise TarError("the modification time is out of range (it must lie between 1678 and 2262)", entry)
    return ns


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
