"""The few ways in which the store touches files: replace atomically, open safely, sync, lock.

Every `OSError` that concerns disk space or the medium comes out as `StorageError`. Imports nothing heavy: it is
on the fully cached path.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from lamina.store.errors import CorruptError, MissingBlobError, storage_error


def random_name() -> str:
    """Return a name that nobody can guess."""
    return os.urandom(16).hex()


def open_regular(path: str) -> int:
    """Open a regular file for reading and return its descriptor, which the caller closes.

    A symbolic link, directory, fifo or device in its place is an error and never blocks.

    Raises:
        MissingBlobError: nothing is there.
        CorruptError: something else than a regular file is there.
        StorageError: the file cannot be opened.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MissingBlobError("no such blob in the store", where=path) from None
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.ENXIO, errno.ENOTDIR):
            raise CorruptError("not a regular file", where=path) from None
        raise storage_error(exc, path) from exc
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise CorruptError("not a regular file", where=path)
    return fd


def read_capped(path: str, max_bytes: int) -> bytes:
    """Return the content of a regular file of at most `max_bytes`. Raises as `open_regular`."""
    fd = open_regular(path)
    try:
        size = os.fstat(fd).st_size
        if size > max_bytes:
            raise CorruptError(f"{size} bytes, more than the {max_bytes} allowed here", where=path)
        parts: list[bytes] = []
        left = max_bytes + 1
        while left > 0 and (part := os.read(fd, min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
    except OSError as exc:
        raise storage_error(exc, path) from exc
    finally:
        os.close(fd)
    data = b"".join(parts)
    if len(data) > max_bytes:
        raise CorruptError(f"more than the {max_bytes} bytes allowed here", where=path)
    return data


def replace_file(path: str, data: bytes, *, durable: bool, spool: str) -> None:
    """Replace `path` by `data` so that a reader sees the old or the new content, whole.

    Args:
        path: the file.
        data: its new content.
        durable: whether it must survive a power cut once this returns.
        spool: directory on the same file system for the temporary file.

    Raises:
        StorageError: it could not be written; the old content is untouched and no temporary file is left.
    """
    temporary = os.path.join(spool, random_name())
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            # locked like every partial write, so that a sweep of leftovers lets it live
            fcntl.flock(fd, fcntl.LOCK_EX)
            write_all(fd, data)
            os.fchmod(fd, 0o644)
            if durable:
                os.fsync(fd)
            os.rename(temporary, path)
        finally:
            os.close(fd)
        if durable:
            sync_directory(os.path.dirname(path))
    except OSError as exc:
        unlink_quietly(temporary)
        raise storage_error(exc, path, len(data)) from exc


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data`; `os.write` may take less."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(path: str) -> None:
    """Make the names in a directory survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def unlink_quietly(path: str) -> None:
    """Remove a file if it is there and can be removed."""
    try:
        os.unlink(path)
    except OSError:
        pass
