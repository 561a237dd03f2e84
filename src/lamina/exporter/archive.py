"""Archives as exporters write them: a tar stream of a few files with short names that we chose ourselves.

Headers are those of `lamina.layer.tar_write`; owner and time are 0, so that the same files always give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lamina.layer.entry import Entry
from lamina.layer.tar_header import BLOCK
from lamina.layer.tar_write import make_header

_RECORD = 20 * BLOCK


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
        self._put(make_header(Entry(path, "d", 0o755), 0))

    def file(self, path: str, data: bytes) -> None:
        """Add a small file."""
        self.stream(path, len(data), [data])

    def stream(self, path: str, size: int, chunks: Iterable[bytes]) -> None:
        """Add a file of `size` bytes; `chunks` must give exactly that many, else ValueError."""
        self._put(make_header(Entry(path, "f", 0o644, size=size), 0))
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
