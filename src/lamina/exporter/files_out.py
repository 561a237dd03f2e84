"""`type=local` and `type=tar`: the merged file system of a result, as a directory or as a tar archive.

A directory is written beneath its root by descriptors, so that neither the image's nor the destination's symbolic
links lead out of it. As BuildKit's local exporter does it: files belong to whoever exports, modes and times are the
image's, what lies at the destination stays unless the image has the same path.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from lamina.cancel import Cancel
from lamina.errors import InputError, MachineError
from lamina.exporter.protocol import Surroundings
from lamina.layer.entry import Content, Entry, FileSlice, Item
from lamina.rooted import open_beneath, open_root
from lamina.store.errors import CorruptError, storage_error
from lamina.store.files import random_name, write_all

_CHUNK_BYTES = 1 << 20
_DEVICES = {"c": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


def links_last(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items with hard links behind everything else, so that what they point at is there before them."""
    links = []
    for item in items:
        if item.entry.kind == "h":
            links.append(item)
        elif item.entry.kind != "w":
            yield item
    yield from links


def export_tree(items: Iterable[Item], dest: Path, around: Surroundings) -> None:
    """Write items into the directory `dest`, made when it is not there.

    Raises:
        InputError: `dest` is not a directory.
        StorageError: something could not be written; what was written so far stays.
        MachineError: the image has device nodes and this process may not make them.
    """
    try:
        os.makedirs(dest, exist_ok=True)
    except FileExistsError:
        raise InputError("the destination is not a directory", where=str(dest)) from None
    except OSError as exc:
        raise storage_error(exc, dest) from exc
    root = open_root(dest)
    try:
        _TreeWriter(root, dest, around.cancel).write(items)
    finally:
        os.close(root)


def read_content(content: Content, entry: Entry, cancel: Cancel) -> Iterator[bytes]:
    """Yield the bytes of a file, exactly as many as the entry says, with the digest the content promises.

    Raises:
        CorruptError: there are fewer bytes, or other ones.
        StorageError: they cannot be read.
    """
    if content is None or isinstance(content, bytes):
        if len(content or b"") != entry.size:
            raise CorruptError(f"{len(content or b'')} bytes, expected {entry.size}", where=entry.path)
        if content:
            yield content
        return
    yield from _read_slice(content, entry, cancel)


def _read_slice(content: FileSlice, entry: Entry, cancel: Cancel) -> Iterator[bytes]:
    """Yield the bytes of a slice of a file on disk."""
    import hashlib

    running = hashlib.sha256() if content.digest else None
    try:
        root = open_root(content.root)
        try:
            fd = open_beneath(root, content.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        finally:
            os.close(root)
        try:
            left, offset = entry.size, content.offset
            while left:
                cancel.check()
                chunk = os.pread(fd, min(left, _CHUNK_BYTES), offset)
                if not chunk:
                    raise CorruptError(f"{left} bytes too short", where=f"{content.root}/{content.path}")
                if running is not None:
                    running.update(chunk)
                left -= len(chunk)
                offset += len(chunk)
                yield chunk
        finally:
            os.close(fd)
    except OSError as exc:
        raise storage_error(exc, f"{content.root}/{content.path}") from exc
    if running is not None and running.hexdigest() != content.digest:
        raise CorruptError("the content changed since it was looked at", where=f"{content.root}/{content.path}")


class _TreeWriter:
    """Writes one tree. Keeps the descriptor of the directory it is in, because items come directory by directory."""

    def __init__(self, root: int, dest: Path, cancel: Cancel) -> None:
        self._root, self._dest, self._cancel = root, dest, cancel
        self._parent, self._fd = "", os.dup(root)
        self._folders: list[Entry] = []

    def write(self, items: Iterable[Item]) -> None:
        """Write all items; modes and times of directories come last, as writing into them changes those."""
        try:
            for entry, content in links_last(items):
                self._cancel.check()
                self._write(entry, content)
            for entry in reversed(self._folders):
                self._finish_folder(entry)
        finally:
            os.close(self._fd)

    def _write(self, entry: Entry, content: Content) -> None:
        """Write one item."""
        if not entry.path:
            if entry.kind != "d":
                raise CorruptError("the root of a file system must be a directory")
            return  # the destination keeps its own mode
        parent, _, name = entry.path.rpartition("/")
        try:
            self._enter(parent)
            {"d": self._folder, "f": self._file, "l": self._link, "h": self._hard_link}.get(entry.kind, self._special)(
                entry, content, name
            )
        except OSError as exc:
            raise storage_error(exc, self._dest / entry.path) from exc

    def _enter(self, parent: str) -> None:
        """Make the directory of the next item the current one; links in its path are refused."""
        if parent != self._parent:
            fd = open_beneath(self._root, parent or ".", os.O_RDONLY | os.O_DIRECTORY)
            os.close(self._fd)
            self._fd, self._parent = fd, parent

    def _folder(self, entry: Entry, _content: Content, name: str) -> None:
        """Make a directory, or keep the one that is there."""
        kind = self._kind_of(name)
        if kind is not None and not stat.S_ISDIR(kind):
            os.unlink(name, dir_fd=self._fd)
            kind = None
        if kind is None:
            os.mkdir(name, 0o700, dir_fd=self._fd)
        else:
            os.chmod(name, stat.S_IMODE(kind) | 0o700, dir_fd=self._fd)
        self._folders.append(entry)

    def _file(self, entry: Entry, content: Content, name: str) -> None:
        """Write a file beside its name and put it there when it is whole."""
        temporary = f".{random_name()}"
        fd = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._fd
        )
        try:
            for chunk in read_content(content, entry, self._cancel):
                write_all(fd, chunk)
            _set_xattrs(fd, entry)
            os.fchmod(fd, entry.mode)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
            self._clear(name)
            os.rename(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            os.unlink(temporary, dir_fd=self._fd)
            raise
        finally:
            os.close(fd)

    def _link(self, entry: Entry, _content: Content, name: str) -> None:
        """Make a symbolic link."""
        self._clear(name, files_too=True)
        os.symlink(entry.target, name, dir_fd=self._fd)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=self._fd, follow_symlinks=False)

    def _hard_link(self, entry: Entry, _content: Content, name: str) -> None:
        """Make one more name for a file that was written before."""
        folder, _, base = entry.target.rpartition("/")
        source = open_beneath(self._root, folder or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._clear(name, files_too=True)
            os.link(base, name, src_dir_fd=source, dst_dir_fd=self._fd, follow_symlinks=False)
        finally:
            os.close(source)

    def _special(self, entry: Entry, _content: Content, name: str) -> None:
        """Make a device or a fifo."""
        kind = _DEVICES.get(entry.kind)
        if kind is None:
            raise CorruptError(f"an entry of unknown kind {entry.kind!r}", where=entry.path)
        self._clear(name, files_too=True)
        try:
            os.mknod(name, kind | 0o600, os.makedev(*entry.dev), dir_fd=self._fd)
        except PermissionError:
            raise MachineError(
                "the image has a device node, and making one needs root",
                where=str(self._dest / entry.path),
                hint="use type=tar, which only writes it down",
            ) from None
        os.chmod(name, entry.mode, dir_fd=self._fd)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=self._fd, follow_symlinks=False)

    def _finish_folder(self, entry: Entry) -> None:
        """Set mode, times and attributes of a directory."""
        try:
            fd = open_beneath(self._root, entry.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                _set_xattrs(fd, entry)
                os.fchmod(fd, entry.mode)
                os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
            finally:
                os.close(fd)
        except OSError as exc:
            raise storage_error(exc, self._dest / entry.path) from exc

    def _kind_of(self, name: str) -> int | None:
        """Return the mode of what has the name, None when nothing has."""
        try:
            return os.lstat(name, dir_fd=self._fd).st_mode
        except FileNotFoundError:
            return None

    def _clear(self, name: str, *, files_too: bool = False) -> None:
        """Remove what has the name and cannot be replaced by rename; with `files_too` whatever it is."""
        kind = self._kind_of(name)
        if kind is None:
            return
        if stat.S_ISDIR(kind):
            _remove_folder(name, self._fd)
        elif files_too:
            os.unlink(name, dir_fd=self._fd)


def _remove_folder(name: str, dir_fd: int) -> None:
    """Remove a directory with all that is in it, never following a link."""
    import shutil

    shutil.rmtree(name, dir_fd=dir_fd)


def _set_xattrs(fd: int, entry: Entry) -> None:
    """Set extended attributes where file system and rights allow; they are a nicety of the export, not its content."""
    for name, value in entry.xattrs:
        try:
            os.setxattr(fd, name, value)
        except OSError as exc:
            if exc.errno not in (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL):
                raise
