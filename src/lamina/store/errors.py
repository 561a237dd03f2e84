"""What goes wrong with a store: its errors, and `OSError` told as one of them. Imports nothing heavy."""

from __future__ import annotations

import errno
import os

from lamina.errors import StorageError


class MissingBlobError(StorageError):
    """A blob is not in the store."""


class CorruptError(StorageError):
    """Bytes do not have the digest or size they must have, or a file of the store has the wrong type."""


class VerificationError(CorruptError):
    """Bytes that came in do not have the promised digest or size; nothing of them was kept."""


class DiskFullError(StorageError):
    """No space, no inodes or no quota left."""


_FULL = {errno.ENOSPC: "no space left", errno.EDQUOT: "disk quota exceeded"}


def storage_error(exc: OSError, path: str | os.PathLike[str], needed_bytes: int = 0) -> StorageError:
    """Return the error that tells a person what `exc` means for `path`.

    Args:
        exc: what the system said.
        path: file or directory concerned.
        needed_bytes: how much was still to be written, 0 when unknown.
    """
    where = os.fspath(path)
    if exc.errno in _FULL:
        needed = f", {size_text(needed_bytes)} more needed" if needed_bytes else ""
        return DiskFullError(
            f"{_FULL[exc.errno]}{needed}, {_free_text(where)}",
            where=where,
            hint="free some space (lamina prune) or move the state directory (LAMINA_ROOT)",
        )
    if exc.errno == errno.EROFS:
        return StorageError("the file system is read-only", where=where)
    return StorageError(os.strerror(exc.errno) if exc.errno else str(exc), where=where)


def size_text(size_bytes: int) -> str:
    """Return a size for people: `512 B`, `1.5 MiB`."""
    if size_bytes < 1024:
        return f"{size_bytes} B"
    size, unit = float(size_bytes), "B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):  # noqa: B007 - the last unit reached is the result
        size /= 1024
        if size < 1024:
            break
    return f"{size:.1f} {unit}"


def _free_text(path: str) -> str:
    """Return what is free on the file system of the nearest existing parent of `path`."""
    while path and not os.path.isdir(path):
        path = os.path.dirname(path)
    try:
        stat = os.statvfs(path or ".")
    except OSError:
        return "free space unknown"
    inodes = "" if stat.f_favail or not stat.f_files else " and no inodes"
    return f"{size_text(stat.f_bavail * stat.f_frsize)}{inodes} free"
