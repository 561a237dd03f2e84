"""A lease per running build: its work directory, and the promise that nothing it relies on is pruned.

A lease is a directory `<root>/work/<id>/` whose file `lock` is held by flock(2) while the build lives. Its
start time is what pruning compares with: everything a live build relied on has `used` at or after the start
of the oldest live lease, and such things are kept. What a dead build left is swept by the next one.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path


class Lease:
    """One running build's claim. Release it (or die) to give it up.

    Attributes:
        id: random, names the directory.
        started: seconds since the epoch, stamped before anything was looked up.
        directory: for transient files of this build; removed on release by the caller's `remove`.
    """

    def __init__(self, work: Path) -> None:
        self.id = secrets.token_hex(6)
        self.directory = work / self.id
        self._fd = -1
        while self._fd < 0:
            self.directory.mkdir(parents=True, mode=0o711, exist_ok=True)
            try:
                self._fd = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # somebody's sweep took the directory while it was empty
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        self.started = time.time()
        os.write(self._fd, f"{self.started!r}\n".encode())

    def release(self, remove: Callable[[Path], None]) -> None:
        """Remove the directory by `remove` and give up the claim. Idempotent."""
        if self._fd < 0:
            return
        remove(self.directory)
        os.close(self._fd)
        self._fd = -1


def oldest_live(work: Path) -> float:
    """Return when the oldest live lease began, or now when there is none."""
    starts = [start for _path, start in live(work)]
    return min(starts, default=time.time())


def sweep(work: Path, remove: Callable[[Path], None]) -> int:
    """Remove what dead builds left and return how many there were. Safe beside live ones."""
    count = 0
    for name in _names(work):
        directory = work / name
        fd = _lock_if_dead(directory)
        if fd is None:
            _remove_empty(directory)
            continue
        try:
            remove(directory)
            count += 1
        finally:
            os.close(fd)
    return count


def _names(work: Path) -> list[str]:
    try:
        return os.listdir(work)
    except FileNotFoundError:
        return []


def _remove_empty(directory: Path) -> None:
    """Remove a directory that is empty: of a build killed while it made or removed it. A live one makes it again."""
    try:
        os.rmdir(directory)
    except OSError:
        return


def _lock_if_dead(directory: Path) -> int | None:
    """Return a descriptor holding the dead lease's lock; None when it lives or is being made."""
    try:
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        # between mkdir and open of a live one, or after a crash there: only an old one is dead
        try:
            age = time.time() - directory.stat().st_mtime
        except FileNotFoundError:
            return None
        return os.open(directory, os.O_RDONLY | os.O_CLOEXEC) if age > 60 else None
    except NotADirectoryError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    if os.fstat(fd).st_size == 0 and time.time() - os.fstat(fd).st_mtime < 60:
        os.close(fd)  # made but not yet locked by its owner
        return None
    return fd


def live(work: Path) -> list[tuple[Path, float]]:
    """Return directory and start time of every live lease."""
    found = []
    for name in _names(work):
        directory = work / name
        fd = _lock_if_dead(directory)
        if fd is not None:
            os.close(fd)
            continue
        try:
            text = (directory / "lock").read_text("ascii")
            found.append((directory, float(text or "0")))
        except (FileNotFoundError, NotADirectoryError, ValueError):
            continue
    return found
