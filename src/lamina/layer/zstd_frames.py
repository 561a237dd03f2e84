"""Zstandard frames, decompressed block by block (RFC 8878, section 3.1).

The library's streaming interfaces either do not bound what one call returns, or do not tell a stream that was cut
short from one that ended. So the frames are cut into their blocks here, and each block is fed alone: it yields
128 KiB at most, and the end of the input is allowed only between frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamina.layer.errors import CompressionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_WINDOW = 128 << 20
_MAX_BLOCK = 128 << 10
_MAGIC = b"\x28\xb5\x2f\xfd"
_RLE, _RESERVED = 1, 3
_SIZE_BYTES = (0, 2, 4, 8)
_DICTIONARY_BYTES = (0, 1, 2, 4)


def iter_frames(exactly: Callable[[int], bytes], peek: Callable[[int], bytes]) -> Iterator[Iterator[bytes]]:
    """Yield for each frame an iterator over its content, to be used up before the next one is asked for.

    Args:
        exactly: reads that many bytes or raises EOFError.
        peek: returns up to that many bytes without taking them, fewer only at the end.

    Raises:
        CompressionError: not a frame, or one that needs too large a window or a dictionary.
        EOFError: the input ends within a frame.
    """
    while peek(1):
        magic = exactly(4)
        if magic[1:] == b"\x2a\x4d\x18" and magic[0] & 0xF0 == 0x50:
            _skip(exactly, int.from_bytes(exactly(4), "little"))
        elif magic == _MAGIC:
            yield _iter_frame(exactly)
        else:
            raise CompressionError("bytes after a zstd frame that are no frame")


def _skip(exactly: Callable[[int], bytes], size: int) -> None:
    while size:
        size -= len(exactly(min(size, 1 << 20)))


def _iter_frame(exactly: Callable[[int], bytes]) -> Iterator[bytes]:
    import zstandard

    header, has_checksum = _read_header(exactly)
    # A frame of one segment may state its size as its window: the limit holds for both.
    worker = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).decompressobj()
    worker.decompress(header)
    last = False
    while not last:
        head = exactly(3)
        number = int.from_bytes(head, "little")
        last, kind, size = bool(number & 1), number >> 1 & 3, number >> 3
        if kind == _RESERVED or size > _MAX_BLOCK:
            raise CompressionError("damaged zstd frame: a block of an unknown kind or size")
        body = exactly(1 if kind == _RLE else size)
        if last and has_checksum:
            body += exactly(4)
        content = worker.decompress(head + body)
        if content:
            yield content
    if not worker.eof:
        raise CompressionError("damaged zstd frame: it does not end where it should")


def _read_header(exactly: Callable[[int], bytes]) -> tuple[bytes, bool]:
    """Return the frame's header with its magic, and whether a checksum follows the blocks."""
    descriptor = exactly(1)
    flags = descriptor[0]
    single = flags >> 5 & 1
    size_bytes = 1 if single and not flags >> 6 else _SIZE_BYTES[flags >> 6]
    rest = exactly((1 - single) + _DICTIONARY_BYTES[flags & 3] + size_bytes)
    if single:
        window = int.from_bytes(rest[len(rest) - size_bytes :], "little") + (256 if size_bytes == 2 else 0)
    else:
        exponent, mantissa = rest[0] >> 3, rest[0] & 7
        window = (1 << (10 + exponent)) * (8 + mantissa) // 8
    if window > MAX_WINDOW:
        raise CompressionError(f"the zstd frame needs a window of {window} bytes, more than {MAX_WINDOW}")
    return _MAGIC + descriptor + rest, bool(flags & 4)
