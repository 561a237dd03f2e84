"""Remove trees: quickly, to any depth, never through a link, never into another file system.

Everything is done by descriptors; a directory that its owner may not enter is opened up first. What the kernel does
not let go of (a mount, an immutable file) is an error that names it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lamina.errors import StorageError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_DEPTH = 100
"""Levels that are kept open at once; what lies deeper is moved up first."""


def remove_tree(path: str | os.PathLike[str]) -> None:
    """Remove whatever is at `path`: a tree, a file, a link, or nothing. Not atomic; may be repeated.

    Raises:
        StorageError: something could not be removed.
    """
    whole = Path(path)
    try:
        parent = os.open(whole.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        remove_at(parent, whole.name, str(whole))
    finally:
        os.close(parent)


def remove_at(dir_fd: int, name: str, shown: str) -> None:
    """Remove `name` in an open directory, with all that is below it.

    Raises:
        StorageError: something could not be removed.
    """
    try:
        try:
            status = os.lstat(name, dir_fd=dir_fd)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=dir_fd)
            return
        _Remover(dir_fd, name, status.st_dev, shown).run()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not _is_there(dir_fd, name):
            return  # somebody else removed it meanwhile
        where = f"{shown}: {error.filename}" if error.filename else shown
        raise StorageError(f"cannot remove: {error.strerror}", where=where) from error


def _is_there(dir_fd: int, name: str) -> bool:
    try:
        os.lstat(name, dir_fd=dir_fd)
    except FileNotFoundError:
        return False
    return True


class _Remover:
    """Removes one directory; `stack` holds the open directories from the top one down."""

    def __init__(self, dir_fd: int, name: str, device: int, shown: str) -> None:
        self._dir_fd, self._name, self._device, self._shown = dir_fd, name, device, shown
        self._stack: list[tuple[str, int, list[str]]] = []
        self._moved = 0

    def run(self) -> None:
        try:
            self._enter(self._dir_fd, self._name)
            while self._stack:
                name, fd, folders = self._stack[-1]
                if folders:
                    self._descend(fd, folders.pop())
                    continue
                self._stack.pop()
                os.close(fd)
                os.rmdir(name, dir_fd=self._stack[-1][1] if self._stack else self._dir_fd)
        finally:
            for _, fd, _ in self._stack:
                os.close(fd)

    def _descend(self, fd: int, name: str) -> None:
        """Go into a directory; where too many are open already, move it to the top one and leave it for later."""
        if len(self._stack) < _MAX_DEPTH:
            self._enter(fd, name)
            return
        _, top, folders = self._stack[0]
        self._moved += 1
        # A random part: the name must not be taken in the top directory.
        new = f"{os.urandom(8).hex()}-{self._moved}"
        os.chmod(name, 0o700, dir_fd=fd)  # renaming a directory writes its ".."
        os.rename(name, new, src_dir_fd=fd, dst_dir_fd=top)
        folders.append(new)

    def _enter(self, parent: int, name: str) -> None:
        """Open a directory, remove what is in it but directories, and put it on the stack."""
        try:
            fd = os.open(name, _FOLDER, dir_fd=parent)
        except PermissionError:
            os.chmod(name, 0o700, dir_fd=parent)
            fd = os.open(name, _FOLDER, dir_fd=parent)
        folders: list[str] = []
        self._stack.append((name, fd, folders))
        status = os.fstat(fd)
        if status.st_dev != self._device:
            raise StorageError("cannot remove: another file system is mounted there", where=f"{self._shown}: {name}")
        if status.st_mode & 0o700 != 0o700:
            os.fchmod(fd, 0o700)
        with os.scandir(fd) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                else:
                    os.unlink(entry.name, dir_fd=fd)
