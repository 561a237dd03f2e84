"""Open and read the files that contents lie in, noticing when one is no longer what it was.

In: `FileSlice` and the entry it belongs to. Out: descriptors and bytes. Files come directory by directory, so the
directory of the last one stays open. No part of a path below its root is followed as a link; a fifo does not block.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from lamina.errors import InputError, StorageError
from lamina.layer.errors import ContentChangedError, show_name
from lamina.rooted import open_beneath, open_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.cancel import Cancel
    from lamina.layer.entry import Entry, FileSlice

CHUNK = 1 << 20
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class SliceOpener:
    """Opens slices; to be closed at the end. Not thread-safe."""

    def __init__(self) -> None:
        self._folder: tuple[str, str] | None = None
        self._fd = -1

    def open(self, content: FileSlice, entry: Entry) -> int:
        """Return a descriptor of a regular file that has the bytes `entry` says; the caller closes it.

        Raises:
            ContentChangedError: it is gone, of another kind, or of another size. A slice that starts at offset 0 is a
                whole file and must have exactly the entry's size; others must have it at least.
            InputError: it may not be read.
            StorageError: the disk failed.
        """
        folder, _, name = content.path.rpartition("/")
        try:
            if self._folder != (content.root, folder):
                self._enter(content.root, folder)
            fd = os.open(name, _READ, dir_fd=self._fd)
        except OSError as error:
            raise unreadable(error, entry) from error
        status = os.fstat(fd)
        length = status.st_size - content.offset
        wrong = ""
        if not stat.S_ISREG(status.st_mode):
            wrong = "it is no regular file any more"
        elif length < entry.size or (length > entry.size and content.offset == 0):
            wrong = f"{length} bytes, expected {entry.size}"
        if wrong:
            os.close(fd)
            raise ContentChangedError(entry.path, wrong)
        return fd

    def close(self) -> None:
        """Close what is open. Idempotent."""
        self._folder = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _enter(self, root: str, folder: str) -> None:
        """Make a directory the current one."""
        self.close()
        root_fd = open_root(root)
        if folder:
            try:
                self._fd = open_beneath(root_fd, folder, os.O_PATH | os.O_DIRECTORY)
            finally:
                os.close(root_fd)
        else:
            self._fd = root_fd
        self._folder = (root, folder)


def read_small(fd: int, entry: Entry, offset: int) -> bytes:
    """Return the whole content of a file.

    Raises:
        ContentChangedError: it is shorter than its entry says.
        StorageError: the disk failed.
    """
    if not entry.size:
        return b""
    data = _pread(fd, entry.size, offset, entry)
    while len(data) < entry.size:
        more = _pread(fd, entry.size - len(data), offset + len(data), entry)
        if not more:
            raise ContentChangedError(entry.path, f"{len(data)} bytes, expected {entry.size}")
        data += more
    return data


def iter_chunks(fd: int, entry: Entry, offset: int, cancel: Cancel | None) -> Iterator[bytes]:
    """Yield the content of a file in chunks of at most 1 MiB; raises as `read_small`."""
    left = entry.size
    while left:
        if cancel is not None:
            cancel.check()
        chunk = _pread(fd, min(left, CHUNK), offset, entry)
        if not chunk:
            raise ContentChangedError(entry.path, f"{left} of {entry.size} bytes are missing")
        left -= len(chunk)
        offset += len(chunk)
        yield chunk


def _pread(fd: int, size: int, offset: int, entry: Entry) -> bytes:
    try:
        return os.pread(fd, size, offset)
    except OSError as error:
        raise unreadable(error, entry) from error


def unreadable(error: OSError, entry: Entry) -> Exception:
    """Return the error to raise for a file that could not be opened or read."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ContentChangedError(entry.path, "it is not there any more")
    if error.errno == errno.ELOOP:
        return ContentChangedError(entry.path, "a symbolic link took its place")
    if isinstance(error, PermissionError):
        return InputError(f"cannot read the file: {error.strerror}", where=show_name(entry.path))
    return StorageError(f"cannot read the file: {error.strerror}", where=show_name(entry.path))
