"""Compression of layers and archives: by name when writing, by the first bytes when reading.

Writing: gzip (level 1 unless asked otherwise) and zstd (level 3); the same library versions and level give the same
bytes (no time, no name in the header). Levels 0 to 3 of gzip are isal's, whose level 1 is ten times as fast as zlib's
6 at nearly its ratio; 4 to 9 are zlib's. Reading: gzip, zstd, bzip2, xz or nothing of these, several members or frames
in a row, in constant memory however much the input grows; limits can be set on how far it does.

Formats: RFC 1952, RFC 8878. Invariant: input that is cut short is an error, never a short output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lamina.errors import InputError
from lamina.layer.errors import CompressionError
from lamina.oci.media_types import COMPRESSIONS, layer_media_type

if TYPE_CHECKING:
    from bz2 import BZ2Decompressor
    from collections.abc import Callable, Iterator
    from lzma import LZMADecompressor

    Read = Callable[[int], bytes]

CHUNK = 1 << 20
_ISAL_MAX_LEVEL = 3
_DEFAULT_LEVEL = {"gzip": 1, "zstd": 3}
_LEVELS = {"uncompressed": (0, 0), "gzip": (0, 9), "zstd": (1, 22)}
_RATIO_FROM = 64 << 20  # a ratio says nothing about small inputs
_XZ_MEMORY = 128 << 20


@dataclass(frozen=True, slots=True)
class Compression:
    """How a layer is to be compressed.

    Attributes:
        kind: "gzip", "zstd" or "uncompressed".
        level: 0..9 for gzip, 1..22 for zstd, None for the default.

    Raises:
        InputError: there is no such kind or level.
    """

    kind: str = "gzip"
    level: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in COMPRESSIONS:
            raise InputError(f"unknown compression {self.kind!r}", hint=f"one of {', '.join(COMPRESSIONS)}")
        low, high = _LEVELS[self.kind]
        if self.level is not None and not low <= self.level <= high:
            raise InputError(f"{self.kind} has no compression level {self.level}", hint=f"levels are {low} to {high}")

    def media_type(self, *, docker: bool = False) -> str:
        """Return the media type of a layer that is compressed like this."""
        return layer_media_type(self.kind, docker=docker)


class Compressor(Protocol):
    """Takes bytes and gives back what is ready; `flush` ends the stream and is called once."""

    def compress(self, data: bytes, /) -> bytes:
        """Return compressed bytes, maybe none yet."""

    def flush(self) -> bytes:
        """Return the rest."""


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def compressor(compression: Compression) -> Compressor:
    """Return a new compressor."""
    if compression.kind == "uncompressed":
        return _Plain()
    level = compression.level if compression.level is not None else _DEFAULT_LEVEL[compression.kind]
    if compression.kind == "zstd":
        import zstandard

        return zstandard.ZstdCompressor(level=level).compressobj()
    if level <= _ISAL_MAX_LEVEL:
        from isal import isal_zlib

        packer: Compressor = isal_zlib.compressobj(level, isal_zlib.DEFLATED, 31)
        return packer
    import zlib

    return zlib.compressobj(level, zlib.DEFLATED, 31)


def sniff(head: bytes) -> str:
    """Return the compression that the first bytes show: gzip, zstd, bzip2, xz, or "uncompressed"."""
    if head.startswith(b"\x1f\x8b\x08"):
        return "gzip"
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return "zstd"
    if head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90"):
        return "bzip2"
    return "xz" if head.startswith(b"\xfd7zXZ\0") else "uncompressed"


def decompressed(
    read: Read, *, max_bytes: int | None = None, max_ratio: int | None = None, where: str = ""
) -> Iterator[bytes]:
    """Yield the content of a stream in chunks of at most 1 MiB, decompressed by what its first bytes show.

    Args:
        read: returns up to that many bytes of the stream, b"" at its end.
        max_bytes: the most the content may have.
        max_ratio: how many times the size of the input it may have, looked at from 64 MiB of content on.
        where: what the stream is, for messages.

    Raises:
        CompressionError: the input is damaged or cut short, or a limit is passed.
    """
    source = _Source(read)
    kind = sniff(source.peek(10))
    total = 0
    for chunk in _guarded(kind, source, where):
        total += len(chunk)
        if max_bytes is not None and total > max_bytes:
            raise CompressionError(f"has more than the {max_bytes} bytes allowed when decompressed", where=where)
        if max_ratio is not None and total > _RATIO_FROM and total > source.taken * max_ratio:
            raise CompressionError(f"grows to more than {max_ratio} times its size when decompressed", where=where)
        yield chunk


def open_stream(
    read: Read, *, max_bytes: int | None = None, max_ratio: int | None = None, where: str = ""
) -> Callable[[int], bytes]:
    """Return a function that reads the content of a stream as `decompressed` gives it, up to n bytes a call."""
    chunks = decompressed(read, max_bytes=max_bytes, max_ratio=max_ratio, where=where)
    rest = memoryview(b"")

    def read_content(size: int) -> bytes:
        nonlocal rest
        if not rest:
            chunk = next(chunks, b"")
            if len(chunk) <= size:
                return chunk
            rest = memoryview(chunk)
        data = bytes(rest[:size])
        rest = rest[size:]
        return data

    return read_content


class _Source:
    """The compressed input as a file that can be looked ahead into.

    Attributes:
        taken: bytes read from the stream so far.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._head = b""
        self.taken = 0

    def peek(self, size: int) -> bytes:
        while len(self._head) < size and (more := self._take(size - len(self._head))):
            self._head += more
        return self._head

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes."""
        wanted = size if size >= 0 else CHUNK
        if self._head:
            data, self._head = self._head[:wanted], self._head[wanted:]
            return data
        return self._take(wanted)

    def readinto(self, buffer: memoryview) -> int:
        """Read into `buffer` and return how much."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def exactly(self, size: int) -> bytes:
        """Return `size` bytes.

        Raises:
            EOFError: there are fewer.
        """
        data = self.read(size)
        while len(data) < size:
            more = self.read(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def _take(self, size: int) -> bytes:
        data = self._read(size)
        self.taken += len(data)
        return data


def _guarded(kind: str, source: _Source, where: str) -> Iterator[bytes]:
    """Turn what the libraries raise into the documented error."""
    if kind == "uncompressed":
        yield from iter(lambda: source.read(CHUNK), b"")
        return
    chunks = {"gzip": _gunzip, "zstd": _unzstd, "bzip2": _bunzip, "xz": _unxz}[kind](source)
    while True:
        try:
            chunk = next(chunks, None)
        except CompressionError as error:
            raise CompressionError(error.what, where=where) from error
        except EOFError:
            raise CompressionError(f"the {kind} data is cut short", where=where) from None
        except _library_errors(kind) as error:
            raise CompressionError(f"the {kind} data is damaged: {error}", where=where) from error
        if chunk is None:
            return
        yield chunk


def _library_errors(kind: str) -> tuple[type[Exception], ...]:
    if kind == "gzip":
        import gzip
        import zlib

        from isal import isal_zlib

        isal_error: type[Exception] = isal_zlib.error  # type: ignore[assignment]  # its stub has an instance
        return (isal_error, zlib.error, gzip.BadGzipFile, ValueError)
    if kind == "zstd":
        import zstandard

        return (zstandard.ZstdError,)
    if kind == "xz":
        import lzma

        return (lzma.LZMAError,)
    return (OSError, ValueError)


def _gunzip(source: _Source) -> Iterator[bytes]:
    from isal import igzip

    with igzip.IGzipFile(fileobj=source, mode="rb") as file:  # type: ignore[no-untyped-call]
        while chunk := file.read(CHUNK):
            yield chunk


def _unzstd(source: _Source) -> Iterator[bytes]:
    """Feed one block at a time: a block gives at most 128 KiB, so neither few bytes nor many can fill the memory."""
    from lamina.layer.zstd_frames import iter_frames

    for frame in iter_frames(source.exactly, source.peek):
        yield from frame


def _bunzip(source: _Source) -> Iterator[bytes]:
    import bz2

    return _members(source, bz2.BZ2Decompressor)


def _unxz(source: _Source) -> Iterator[bytes]:
    import lzma

    return _members(source, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))


def _members(source: _Source, make: Callable[[], BZ2Decompressor | LZMADecompressor]) -> Iterator[bytes]:
    """Decompress members that follow one another, maybe with zeros between them."""
    data = source.read(1 << 16)
    while data:
        member = make()
        while not member.eof:
            chunk = member.decompress(data, CHUNK)
            if chunk:
                yield chunk
            data = b""
            if member.needs_input and not member.eof:
                data = source.read(1 << 16)
                if not data:
                    raise EOFError
        data = member.unused_data.lstrip(b"\0") or source.read(1 << 16).lstrip(b"\0")
