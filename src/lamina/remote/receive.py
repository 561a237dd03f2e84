"""Receives a directory of the client's into one of ours that holds what it sent before: only changes travel.

In: the packets of one `FileSync.DiffCopy`. Out: the directory, as the client has it; owners are ours, as in BuildKit.
Hostile until checked: entries must come in order, below directories that came before; nothing is followed; what was
not asked for ends the transfer. Whatever happens, the directory can be received into again: a file gets its time only
when it is whole, so that half of one is never taken for it.
"""

from __future__ import annotations

import errno
import os
import queue
import shutil
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from lamina.api.pb import fsutil_pb2
from lamina.cancel import Cancel
from lamina.errors import Error, StorageError
from lamina.remote.packets import DATA, ERROR, FIN, REQUEST, STAT, Incoming, ProtocolError, incoming_of
from lamina.source.context import is_kept
from lamina.tunnel.call import Call

MAX_ENTRIES = 5_000_000
_MARK = "user.overlay.lamina"
"""On the root of a directory in which something has extended attributes: in others nobody looks for any. Its name is
one that contexts pass over."""
_MAX_OPEN = 64
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Progress = Callable[[int, bool], None]
"""Is told how many bytes have come, and whether that was all."""


@dataclass(slots=True)
class _Folder:
    """A directory that is being received into."""

    path: str
    fd: int
    entry: Incoming | None
    old: dict[str, os.stat_result]
    last: bytes = b""
    seen: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _File:
    """A file whose content was asked for."""

    entry: Incoming
    fd: int = -1
    left: int = 0


class Receiver:
    """One transfer. Used once.

    Args:
        root: descriptor of our directory, readable; stays the caller's.
        call: the open call of `DiffCopy`.
    """

    def __init__(self, root: int, call: Call, cancel: Cancel, progress: Progress) -> None:
        self._root, self._call, self._cancel, self._progress = root, call, cancel, progress
        self._folders: list[_Folder] = []
        self._wanted: dict[int, _File] = {}
        self._open = 0
        self._count = 0
        self._bytes = 0
        self._files: dict[str, bool] = {}
        self._dirs: list[tuple[str, int]] = []
        self._requests: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._listed = False
        self._takes_xattrs = True
        self._has_xattrs = _is_marked(root)

    def run(self) -> None:
        """Receive everything.

        Raises:
            ProtocolError: the client does not keep to the protocol; StorageError: it cannot be written.
        """
        asking = threading.Thread(target=self._ask, name="filesync", daemon=True)
        asking.start()
        try:
            self._enter("", os.dup(self._root), None)
            self._receive()
            self._requests.put(None)
            asking.join()
            self._call.send(fsutil_pb2.Packet(type=FIN))
            self._call.end()
            while (packet := self._call.receive()) is not None:
                if packet.type == ERROR:
                    raise ProtocolError(f"the client failed: {packet.data.decode('utf-8', 'replace')[:400]}")
        except OSError as error:
            raise StorageError(f"cannot take in what the client sends: {error.strerror}") from error
        finally:
            self._requests.put(None)
            self._close()
            self._progress(self._bytes, True)

    def _ask(self) -> None:
        """Ask for contents, in a thread of its own: who receives must never wait until the client takes something."""
        try:
            while (number := self._requests.get()) is not None:
                self._call.send(fsutil_pb2.Packet(type=REQUEST, ID=number))
        except Error:
            pass  # the call has ended, which the receiving side is told, too

    def _receive(self) -> None:
        while not self._listed or self._wanted:
            packet = self._call.receive()
            if packet is None:
                raise ProtocolError("the client ended the transfer before its end")
            self._cancel.check()
            if packet.type == DATA:
                self._take_data(packet.ID, packet.data)
            elif packet.type == STAT:
                if packet.HasField("stat"):
                    self._take_stat(packet.stat)
                else:
                    self._end_of_list()
            elif packet.type == ERROR:
                raise ProtocolError(f"the client failed: {packet.data.decode('utf-8', 'replace')[:400]}")
            else:
                raise ProtocolError(f"the client sent a packet of type {packet.type}, which is not its to send")

    # ---- entries ----

    def _take_stat(self, message: fsutil_pb2.Stat) -> None:
        if self._listed or self._count >= MAX_ENTRIES:
            raise ProtocolError("the client sends entries without end")
        entry = incoming_of(message, self._count)
        self._count += 1
        folder = self._folder_of(entry)
        key = os.fsencode(entry.name)
        if key <= folder.last:
            raise ProtocolError(f"the client sent entries out of order: {entry.path[:200]!r}")
        folder.last = key
        folder.seen.add(entry.name)
        old = folder.old.get(entry.name)
        if entry.kind == "d":
            self._take_folder(folder, entry, old)
        elif entry.kind == "f":
            self._take_file(folder, entry, old)
        elif entry.kind == "h":
            self._take_link(folder, entry, old)
        elif entry.kind == "l":
            self._take_symlink(folder, entry, old)
        elif entry.kind == "p":
            self._remove(folder, entry.name, old)
            os.mkfifo(entry.name, entry.mode & 0o777, dir_fd=folder.fd)
        elif entry.kind in "bc":
            raise ProtocolError(f"a context cannot hold a device: {entry.path[:200]!r}")
        else:
            folder.seen.discard(entry.name)  # sockets are left out, as a tar archive leaves them out

    def _folder_of(self, entry: Incoming) -> _Folder:
        """Return the directory an entry is in, leaving those that are done."""
        while self._folders and self._folders[-1].path != entry.parent:
            if len(self._folders) == 1:
                raise ProtocolError(f"the client sent an entry without its directory: {entry.path[:200]!r}")
            self._leave()
        return self._folders[-1]

    def _enter(self, path: str, fd: int, entry: Incoming | None) -> None:
        old = {}
        with os.scandir(fd) as entries:
            for one in entries:
                old[one.name] = one.stat(follow_symlinks=False)
        self._folders.append(_Folder(path, fd, entry, old))

    def _leave(self) -> None:
        """Finish a directory: what the client no longer has goes."""
        folder = self._folders.pop()
        try:
            for name in folder.old.keys() - folder.seen:
                self._remove(folder, name, folder.old[name])
            if folder.entry is not None:
                os.fchmod(folder.fd, folder.entry.mode)
                self._set_xattrs(folder.fd, folder.entry)
                self._dirs.append((folder.path, folder.entry.mtime_ns))
        finally:
            os.close(folder.fd)

    def _take_folder(self, folder: _Folder, entry: Incoming, old: os.stat_result | None) -> None:
        if old is None or not stat.S_ISDIR(old.st_mode):
            self._remove(folder, entry.name, old)
            os.mkdir(entry.name, 0o700, dir_fd=folder.fd)
        fd = os.open(entry.name, _FOLDER, dir_fd=folder.fd)
        self._enter(entry.path, fd, entry)

    def _take_file(self, folder: _Folder, entry: Incoming, old: os.stat_result | None) -> None:
        self._files[entry.path] = True
        if old is not None and stat.S_ISREG(old.st_mode) and _same(entry, old):
            if stat.S_IMODE(old.st_mode) != entry.mode:
                os.chmod(entry.name, entry.mode, dir_fd=folder.fd)
            self._set_xattrs(f"/proc/self/fd/{folder.fd}/{entry.name}", entry)
            return
        self._remove(folder, entry.name, old)
        # made at once, empty, so that later entries may link to it
        os.close(os.open(entry.name, _NEW, 0o600, dir_fd=folder.fd))
        self._wanted[entry.number] = _File(entry, left=entry.size)
        self._requests.put(entry.number)

    def _take_link(self, folder: _Folder, entry: Incoming, old: os.stat_result | None) -> None:
        """Make another name of a file that came before."""
        if not self._files.get(entry.target):
            raise ProtocolError(f"the client links {entry.path[:200]!r} to what it did not send")
        self._remove(folder, entry.name, old)
        parent, _, name = entry.target.rpartition("/")
        fd = self._open_folder(parent)
        try:
            os.link(name, entry.name, src_dir_fd=fd, dst_dir_fd=folder.fd, follow_symlinks=False)
        finally:
            os.close(fd)

    def _take_symlink(self, folder: _Folder, entry: Incoming, old: os.stat_result | None) -> None:
        if not entry.target:
            raise ProtocolError(f"the client sent a link to nothing: {entry.path[:200]!r}")
        is_same = old is not None and stat.S_ISLNK(old.st_mode) and old.st_mtime_ns == entry.mtime_ns
        if is_same and os.readlink(entry.name, dir_fd=folder.fd) == entry.target:
            return
        self._remove(folder, entry.name, old)
        os.symlink(entry.target, entry.name, dir_fd=folder.fd)
        os.utime(entry.name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=folder.fd, follow_symlinks=False)

    def _remove(self, folder: _Folder, name: str, old: os.stat_result | None) -> None:
        if old is None:
            return
        if stat.S_ISDIR(old.st_mode):
            shutil.rmtree(name, dir_fd=folder.fd)
        else:
            os.unlink(name, dir_fd=folder.fd)

    def _open_folder(self, path: str) -> int:
        """Open a directory that was received, part by part, following nothing."""
        fd = os.dup(self._root)
        for part in filter(None, path.split("/")):
            try:
                below = os.open(part, _FOLDER, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def _end_of_list(self) -> None:
        while self._folders:
            self._leave()
        self._listed = True

    # ---- contents ----

    def _take_data(self, number: int, data: bytes) -> None:
        wanted = self._wanted.get(number)
        if wanted is None:
            raise ProtocolError(f"the client sent content that was not asked for ({number})")
        if wanted.fd < 0:
            self._open_file(wanted)
        if not data:
            self._finish(number, wanted)
            return
        self._bytes += len(data)
        self._progress(self._bytes, False)
        # a file that grows meanwhile counts as it was when it was listed
        view = memoryview(data)[: wanted.left]
        wanted.left -= len(view)
        while view:
            view = view[os.write(wanted.fd, view) :]

    def _open_file(self, wanted: _File) -> None:
        if self._open >= _MAX_OPEN:
            raise ProtocolError(f"the client sends more than {_MAX_OPEN} files at once")
        folder = self._open_folder(wanted.entry.parent)
        try:
            flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            wanted.fd = os.open(wanted.entry.name, flags, dir_fd=folder)
        finally:
            os.close(folder)
        self._open += 1

    def _finish(self, number: int, wanted: _File) -> None:
        entry = wanted.entry
        os.fchmod(wanted.fd, entry.mode)
        self._set_xattrs(wanted.fd, entry)
        if not wanted.left:  # one that came shorter than it was listed is asked for again the next time
            os.utime(wanted.fd, ns=(entry.mtime_ns, entry.mtime_ns))
        os.close(wanted.fd)
        self._open -= 1
        del self._wanted[number]

    def _set_xattrs(self, place: int | str, entry: Incoming) -> None:
        """Give what is at `place` (which is no link) just the extended attributes that it has at the client."""
        if not self._takes_xattrs or not (entry.xattrs or self._has_xattrs):
            return
        wanted = dict(entry.xattrs)
        try:
            if not self._has_xattrs:
                os.setxattr(self._root, _MARK, b"1")
                self._has_xattrs = True
            for name in filter(is_kept, os.listxattr(place)):
                if name not in wanted:
                    os.removexattr(place, name)
                elif os.getxattr(place, name) == wanted[name]:
                    del wanted[name]
            for name, value in wanted.items():
                os.setxattr(place, name, value)
        except OSError as error:
            # as with every copy of files: a file system that has none, or keeps fewer, is no reason to fail
            if error.errno == errno.ENOTSUP:
                self._takes_xattrs = False
            elif error.errno not in (errno.EPERM, errno.ENOSPC, errno.E2BIG, errno.EINVAL):
                raise

    def _close(self) -> None:
        for wanted in self._wanted.values():
            if wanted.fd >= 0:
                os.close(wanted.fd)
        self._wanted.clear()
        while self._folders:
            os.close(self._folders.pop().fd)

    def set_folder_times(self) -> None:
        """Give the directories their times, once nothing is written into them any more."""
        for path, mtime_ns in self._dirs:
            fd = self._open_folder(path)
            try:
                os.utime(fd, ns=(mtime_ns, mtime_ns))
            finally:
                os.close(fd)


def _same(entry: Incoming, old: os.stat_result) -> bool:
    return old.st_size == entry.size and old.st_mtime_ns == entry.mtime_ns and old.st_nlink == 1


def _is_marked(root: int) -> bool:
    try:
        return bool(os.getxattr(root, _MARK))
    except OSError:
        return False
