"""Archives as exporters write them: a tar stream of a few files with short names that we chose ourselves.

Plain ustar headers (POSIX.1-1988), sizes beyond 8 GiB in GNU's base-256 form, which docker, skopeo and every tar of
this century read. No path, owner or time comes from outside: the entries of layers are written by `lamina.layer`.
The same files always give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

BLOCK = 512
_RECORD = 20 * BLOCK
_MAX_OCTAL = 8**11 - 1


class ArchiveWriter:
    """Writes one archive through `write`; holds nothing open.

    Args:
        write: takes the bytes in order.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._offset = 0

    def directory(self, path: str) -> None:
        """Add a directory."""
        self._put(_header(path + "/", 0, 0o755, b"5"))

    def file(self, path: str, data: bytes) -> None:
        """Add a small file."""
        self.stream(path, len(data), [data])

    def stream(self, path: str, size: int, chunks: Iterable[bytes]) -> None:
        """Add a file of `size` bytes; `chunks` must give exactly that many, else ValueError."""
        self._put(_header(path, size, 0o644, b"0"))
        left = size
        for chunk in chunks:
            left -= len(chunk)
            if left < 0:
                break
            self._put(chunk)
        if left:
            raise ValueError(f"{path}: {abs(left)} bytes too {'few' if left > 0 else 'many'}")
        self._put(bytes(-size % BLOCK))

    def close(self) -> None:
        """Write the end mark."""
        self._put(bytes(2 * BLOCK))
        self._put(bytes(-self._offset % _RECORD))

    def _put(self, data: bytes) -> None:
        """Write, and count."""
        if data:
            self._write(data)
            self._offset += len(data)


def _header(path: str, size: int, mode: int, kind: bytes) -> bytes:
    """Return the header block of one entry."""
    name = path.encode("ascii")
    if len(name) > 100:
        raise ValueError(f"name too long for a plain header: {path}")
    length = b"%011o\0" % size if size <= _MAX_OCTAL else b"\x80" + size.to_bytes(11, "big")
    fields = [
        name.ljust(100, b"\0"), b"%07o\0" % mode, b"%07o\0" % 0, b"%07o\0" % 0, length, b"%011o\0" % 0, b" " * 8, kind,
    ]  # fmt: skip
    block = b"".join(fields).ljust(257, b"\0") + b"ustar\x0000"
    block = block.ljust(329, b"\0") + b"%07o\0" % 0 + b"%07o\0" % 0
    block = block.ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]
