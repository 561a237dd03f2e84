"""Advisory file locks between processes, and between threads of one, that a `Cancel` can interrupt.

A lock is a file in `<root>/locks/`, held by flock(2): it is gone when its holder dies, whatever killed it.
Order: a key lock before mount locks, mount locks in order of their ids, layer locks last.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lamina.cancel import Cancel

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.002, 0.05


class Locks:
    """Named locks below one directory. Names may hold anything: they are hashed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, name: str) -> Path:
        """Return the file that stands for `name`."""
        return self._directory / hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]

    def try_acquire(self, name: str, *, shared: bool = False) -> int | None:
        """Return a descriptor that holds the lock until closed, or None when somebody else holds it."""
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        path = self.path(name)
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return None
            # the file may have been removed by its last holder between open and flock
            try:
                if os.stat(path).st_ino == os.fstat(fd).st_ino:
                    return fd
            except FileNotFoundError:
                pass
            os.close(fd)

    @contextmanager
    def hold(self, name: str, cancel: Cancel, *, shared: bool = False) -> Iterator[bool]:
        """Hold the lock for the block; yields True when it had to be waited for.

        Raises:
            CancelledError: the wait was cancelled.
        """
        waited, pause = False, _FIRST_WAIT_S
        while (fd := self.try_acquire(name, shared=shared)) is None:
            waited = True
            cancel.wait(pause)
            cancel.check()
            pause = min(pause * 1.5, _LONGEST_WAIT_S)
        try:
            yield waited
        finally:
            if not shared:
                self._remove(name)
            os.close(fd)

    def _remove(self, name: str) -> None:
        """Remove the file while its lock is held; a waiter notices by its inode."""
        try:
            os.unlink(self.path(name))
        except FileNotFoundError:
            pass
