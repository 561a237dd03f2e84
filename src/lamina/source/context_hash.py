"""Reading the files of a live directory: descriptors of its directories, and digests of its files.

In: a root, relative paths without links, the stat each file had when it was listed. Out: sha256 of the content and
the time before it was read. A file that is not what was listed, before or after reading, is a `ContextChangedError`.
Must not: follow a link, block on a fifo, hold more than one descriptor for each part of one path.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat

from lamina.errors import InputError
from lamina.source.statcache import file_clock_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.source.statcache import StatKey

    Job = tuple[str, StatKey]
    Hashed = tuple[str, int]
    """sha256 in hex, and the clock (ns) before the file was read."""

_CHUNK = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_THREADS = 4
_WORTH_THREADS = 16 << 20
_LARGE_FILES = 128 << 10  # mean size; below it, threads spend more time handing over the interpreter than they win


class ContextChangedError(InputError):
    """A file or directory of the context changed while the build read it; looking again may succeed."""

    def __init__(self, what: str, *, where: str = "") -> None:
        super().__init__(what, where=where, hint="leave the files alone while they are read, and build again")


class DirectoryChain:
    """Open directories from a root down to one path. Walks in order open each directory once. Not thread-safe.

    Args:
        root: absolute path, trusted.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, root: str) -> None:
        self._open = [("", os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))]

    def open(self, path: str) -> int:
        """Return a descriptor of a directory, good until the next call.

        Raises:
            OSError: as open(2); ELOOP or ENOTDIR when a part is not a directory.
        """
        chain = self._open
        while (last := chain[-1][0]) and last != path and not path.startswith(last + "/"):
            os.close(chain.pop()[1])
        done, fd = chain[-1]
        if done == path:
            return fd
        for part in path[len(done) + 1 if done else 0 :].split("/"):
            done = f"{done}/{part}" if done else part
            fd = os.open(part, _DIRECTORY, dir_fd=fd)
            chain.append((done, fd))
        return fd

    def close(self) -> None:
        """Close all descriptors; again is harmless."""
        while self._open:
            os.close(self._open.pop()[1])


def hash_file(chain: DirectoryChain, path: str, key: StatKey) -> Hashed:
    """Return the digest of a regular file that still has the stat `key`.

    Raises:
        InputError: it cannot be read.
        ContextChangedError: it is not what was listed.
    """
    parent, _, name = path.rpartition("/")
    now_ns = file_clock_ns()
    try:
        fd = os.open(name, _FILE, dir_fd=chain.open(parent))
        try:
            _check_same(fd, path, key)
            state = hashlib.sha256()
            while chunk := os.read(fd, _CHUNK):
                state.update(chunk)
            _check_same(fd, path, key)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENXIO):
            raise ContextChangedError(
                f"/{path} went away or was replaced during the build", where=f"/{path}"
            ) from error
        hint = "give it the permission, or exclude it in .dockerignore" if error.errno == errno.EACCES else ""
        raise InputError(
            f"cannot read /{path} of the context: {error.strerror}", where=f"/{path}", hint=hint
        ) from error
    return state.hexdigest(), now_ns


def _check_same(fd: int, path: str, key: StatKey) -> None:
    found = os.fstat(fd)
    if (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino) != key or not stat.S_ISREG(found.st_mode):
        raise ContextChangedError(f"/{path} changed while the build read it", where=f"/{path}")


def hash_files(root: str, jobs: Sequence[Job]) -> list[Hashed]:
    """Return the digests of many files, in their order; by threads when they are large.

    Raises:
        InputError: one cannot be read.
        ContextChangedError: one is not what was listed.
    """
    total = sum(key[0] for _, key in jobs)
    threads = min(_THREADS, os.cpu_count() or 1, len(jobs))
    if threads <= 1 or total < _WORTH_THREADS or total < _LARGE_FILES * len(jobs):
        return _hash_slice(root, jobs)
    from concurrent.futures import ThreadPoolExecutor

    # Slices of neighbours: each thread walks its own directories. Some more slices than threads even out the sizes.
    step = -(-len(jobs) // (threads * 4))
    slices = [jobs[at : at + step] for at in range(0, len(jobs), step)]
    with ThreadPoolExecutor(threads) as pool:
        return [hashed for part in pool.map(lambda part: _hash_slice(root, part), slices) for hashed in part]


def _hash_slice(root: str, jobs: Sequence[Job]) -> list[Hashed]:
    try:
        chain = DirectoryChain(root)
    except OSError as error:
        raise InputError(f"cannot open the context: {error.strerror}", where=root) from error
    try:
        return [hash_file(chain, path, key) for path, key in jobs]
    finally:
        chain.close()
