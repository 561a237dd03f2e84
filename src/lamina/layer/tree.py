"""Write a layer as a tree that overlayfs can mount, and unpack blobs into one.

In: entries with contents in the order of the layer. Out: files below one directory. What an entry comes to (parents,
duplicates, whiteouts, links) is decided by `ledger.Ledger`; this module carries it out. Whiteouts are character
devices 0:0, opaque directories bear overlay's attribute (Documentation/filesystems/overlayfs.rst). Directories that a
layer only implies are made with what they are in the layers below, else root's, 0755, time 0.

Invariants: every call names one part in an open directory, and no link is ever followed, so nothing is written
outside the root whatever the entries say; what is made is what the ledger's table says. The root must be empty and
nobody else's. Owner is set before mode, mode before attributes (each takes away from the next), times last.
Must not: sync, rename into place, decide about layers.

    writer = TreeWriter(path, "trusted", lower=union)
    with store.open(digest) as file:
        entries = unpack(file, writer, expected=diff_id)
"""

from __future__ import annotations

import errno
import os
import stat
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO

from lamina.errors import StorageError
from lamina.layer.blob_read import LayerStream
from lamina.layer.entry import Entry, FileSlice
from lamina.layer.errors import ContentChangedError, TarError, show_name
from lamina.layer.ledger import Ledger
from lamina.layer.slices import CHUNK, SliceOpener, iter_chunks
from lamina.layer.tar_read import iter_entries
from lamina.layer.tree_remove import remove_at, remove_tree
from lamina.layer.tree_walk import settle, tree_items, walk_tree
from lamina.layer.xattr import set_xattrs
from lamina.rooted import open_beneath, open_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from lamina.cancel import Cancel
    from lamina.layer.entry import Content
    from lamina.layer.ledger import Lower, Step
    from lamina.oci.digest import Digest

    Read = Callable[[int], bytes]

__all__ = ["TreeWriter", "remove_tree", "settle", "tree_items", "unpack", "walk_tree"]

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH = os.O_PATH | os.O_DIRECTORY
_MAX_FOLDERS = 64
_ZEROS = bytes(CHUNK)
_NODES = {"c": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}


class TreeWriter:
    """Writes one tree. Closed by `finish`, `close`, or leaving a `with` block. Not thread-safe.

    Args:
        root: an empty directory.
        flavour: name space of overlay's attributes, "trusted" or "user".
        lower: what lies below the layer; None when nothing does.
        lower_content: gives the content of a file that `lower` showed, for hard links to files of lower layers,
            which are copied up; without it they are refused.
        cancel: checked for every entry and every MiB.

    Attributes:
        warnings: what had to be left out, one sentence a kind of thing.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        flavour: str,
        lower: Lower | None = None,
        lower_content: Callable[[Entry], Content] | None = None,
        cancel: Cancel | None = None,
    ) -> None:
        self._opaque = f"{flavour}.overlay.opaque"
        self._lower_content = lower_content
        self._cancel = cancel
        self._ledger = Ledger(lower, whole=lower is None)
        self._slices = SliceOpener()
        self._folders: dict[str, int] = {}
        self._twins: dict[str, str] = {}  # where a file may have no more names: its last copy
        self._root_fd = -1
        self._uid, self._gid = os.geteuid(), os.getegid()
        self.warnings: list[str] = []
        self._warned: set[str] = set()
        self._root = os.fspath(root)
        self._root_fd = open_root(root)
        os.chmod(root, 0o700)  # a setgid root would hand its group down; the right mode comes at the end

    def add(self, entry: Entry, content: Content | Read = None) -> Entry:
        """Write one entry and return it as it stands in the layer, with the digest of its content.

        Args:
            entry: see `ledger.Ledger.place`.
            content: of a file: bytes, a slice of a file on disk, or a function that reads it.

        Raises:
            TarError: the entry breaks a rule.
            ContentChangedError: the content is not as long as the entry says, or has not the digest promised.
            StorageError: it cannot be written.
        """
        if self._cancel is not None:
            self._cancel.check()
        step = self._ledger.place(entry)
        try:
            for folder in step.made:
                self._make_folder(folder, "w")
            placed = step.entry
            if placed is None:
                return entry
            if placed.kind == "f":
                digest = self._write_file(placed, step.replaced, content)
                if digest != placed.digest:
                    self._ledger.set_digest(placed.path, digest)
                    placed = placed._replace(digest=digest)
            else:
                self._write_other(placed, step)
            return placed
        except OSError as error:
            raise _storage_error(error, entry.path) from error

    def finish(self) -> list[Entry]:
        """Give the directories their metadata, close, and return the layer's entries (see `ledger.Ledger.finish`).

        Raises:
            StorageError: something cannot be written.
        """
        try:
            for path in sorted(self._ledger.folders, reverse=True):
                try:
                    self._finish_folder(path, self._folder_entry(path))
                except OSError as error:
                    raise _storage_error(error, path) from error
        finally:
            self.close()
        return self._ledger.finish()

    def close(self) -> None:
        """Close what is open. Idempotent."""
        self._forget_folders()
        self._slices.close()
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1

    def __enter__(self) -> TreeWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_root_fd", -1) >= 0:
            self.close()

    # -- files

    def _write_file(self, entry: Entry, replaced: str, content: Content | Read) -> str:
        """Write a regular file and return its digest."""
        folder, _, name = entry.path.rpartition("/")
        dir_fd = self._folder(folder)
        if replaced:
            self._remove(dir_fd, name, replaced, entry.path)
        fd = os.open(name, _CREATE, 0o600, dir_fd=dir_fd)
        try:
            digest = self._fill(fd, entry, content)
            if entry.uid != self._uid or entry.gid != self._gid:
                os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            if entry.xattrs:
                set_xattrs(fd, entry.xattrs, entry.path, self._warn)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        return digest

    def _fill(self, fd: int, entry: Entry, content: Content | Read) -> str:
        """Write a content and return its digest."""
        promised = entry.digest
        running = sha256()
        written = 0
        for chunk in self._chunks(entry, content):
            running.update(chunk)
            written += len(chunk)
            if written > entry.size:
                break
            if chunk == _ZEROS:
                os.lseek(fd, CHUNK, os.SEEK_CUR)  # holes stay holes: an archive may be a thousandth of its content
            else:
                _write_all(fd, chunk)
        if written != entry.size:
            raise ContentChangedError(entry.path, f"{written} bytes, expected {entry.size}")
        if written >= CHUNK:
            os.ftruncate(fd, written)  # a hole at the end
        digest = running.hexdigest()
        if isinstance(content, FileSlice) and content.digest:
            promised = content.digest
        if promised and digest != promised:
            raise ContentChangedError(entry.path, f"its sha256 is {digest}, expected {promised}")
        return digest

    def _chunks(self, entry: Entry, content: Content | Read) -> Iterator[bytes]:
        """Yield a content in pieces of at most 1 MiB."""
        if callable(content):
            while chunk := content(CHUNK):
                if self._cancel is not None:
                    self._cancel.check()
                yield chunk
        elif isinstance(content, FileSlice):
            source = self._slices.open(content, entry)
            try:
                yield from iter_chunks(source, entry, content.offset, self._cancel)
            finally:
                os.close(source)
        elif content:
            yield content

    # -- the other kinds

    def _write_other(self, entry: Entry, step: Step) -> None:
        kind = entry.kind
        if kind == "d":
            if step.replaced != "d":
                self._make_folder(entry.path, step.replaced)
            return
        if kind == "w" and entry.opaque:
            return  # `finish` marks the directory
        if kind == "h":
            self._write_link(entry, step)
            return
        folder, _, name = entry.path.rpartition("/")
        dir_fd = self._folder(folder)
        if step.replaced:
            self._remove(dir_fd, name, step.replaced, entry.path)
        if kind == "w":
            self._make_whiteout(dir_fd, name)
            return
        if kind == "l":
            os.symlink(entry.target, name, dir_fd=dir_fd)
        else:
            self._make_node(dir_fd, name, entry)
        if entry.uid != self._uid or entry.gid != self._gid:
            os.chown(name, entry.uid, entry.gid, dir_fd=dir_fd, follow_symlinks=False)
        if kind != "l":
            os.chmod(name, entry.mode, dir_fd=dir_fd)
        if entry.xattrs:
            set_xattrs(f"/proc/self/fd/{dir_fd}/{name}", entry.xattrs, entry.path, self._warn)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=dir_fd, follow_symlinks=False)

    def _make_whiteout(self, dir_fd: int, name: str) -> None:
        try:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=dir_fd)
        except PermissionError as error:
            raise StorageError(
                "cannot make a whiteout (a character device 0:0)", hint="this needs root, or Linux 5.8 for other users"
            ) from error

    def _make_node(self, dir_fd: int, name: str, entry: Entry) -> None:
        try:
            os.mknod(name, _NODES[entry.kind] | 0o600, os.makedev(*entry.dev), dir_fd=dir_fd)
        except PermissionError:
            # The index still says what it is; the placeholder hides what lower layers have there.
            self._warn(f"device nodes were left out, since making them needs root, first /{show_name(entry.path)}")
            os.close(os.open(name, _CREATE, 0o600, dir_fd=dir_fd))

    def _write_link(self, entry: Entry, step: Step) -> None:
        """Make a hard link, or a copy where the data lies in a lower layer."""
        folder, _, name = entry.path.rpartition("/")
        if not step.source:
            self._copy_up(entry, step)
            return
        source = self._twins.get(step.source, step.source)
        source_folder, _, source_name = source.rpartition("/")
        dir_fd, source_fd = self._folder(folder), self._folder(source_folder)
        dir_fd = self._folder(folder)  # opening the other may have closed it
        if step.replaced:
            self._remove(dir_fd, name, step.replaced, entry.path)
        try:
            os.link(source_name, name, src_dir_fd=source_fd, dst_dir_fd=dir_fd, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            data = self._ledger.entries[step.source]
            self._write_file(data._replace(path=entry.path), "", FileSlice(self._root, step.source, 0, data.digest))
            self._twins[step.source] = entry.path

    def _copy_up(self, entry: Entry, step: Step) -> None:
        data = step.lower
        if data is None or self._lower_content is None:
            raise TarError(f"a hard link to {entry.target!r}, which is not in this layer", entry.path)
        copy = data._replace(path=entry.path)
        if data.kind == "f":
            self._write_file(copy, step.replaced, self._lower_content(data))
        else:
            self._write_other(copy, step)

    # -- directories

    def _make_folder(self, path: str, replaced: str) -> None:
        folder, _, name = path.rpartition("/")
        dir_fd = self._folder(folder)
        try:
            os.mkdir(name, 0o700, dir_fd=dir_fd)
        except FileExistsError:
            if not replaced:
                raise
            self._remove(dir_fd, name, replaced, path)
            os.mkdir(name, 0o700, dir_fd=dir_fd)

    def _folder(self, path: str) -> int:
        """Return a descriptor of a directory of this tree; it stays good until 64 others were asked for."""
        if not path:
            return self._root_fd
        fd = self._folders.get(path)
        if fd is not None:
            return fd
        if len(self._folders) >= _MAX_FOLDERS:
            oldest = next(iter(self._folders))
            os.close(self._folders.pop(oldest))
        parent, _, name = path.rpartition("/")
        above = self._folders.get(parent) if parent else self._root_fd
        fd = open_beneath(self._root_fd, path, _PATH) if above is None else open_beneath(above, name, _PATH)
        self._folders[path] = fd
        return fd

    def _forget_folders(self) -> None:
        for fd in self._folders.values():
            os.close(fd)
        self._folders.clear()

    def _remove(self, dir_fd: int, name: str, kind: str, path: str) -> None:
        """Remove what an entry replaces."""
        gone = f"{path}/"
        for source in [source for source, twin in self._twins.items() if twin == path or twin.startswith(gone)]:
            del self._twins[source]
        if kind != "d":
            os.unlink(name, dir_fd=dir_fd)
            return
        remove_at(dir_fd, name, path)
        for folder in [known for known in self._folders if known == path or known.startswith(gone)]:
            os.close(self._folders.pop(folder))

    def _folder_entry(self, path: str) -> Entry:
        """Return the metadata a directory is to have."""
        entry = self._ledger.entries.get(path)
        return entry if entry is not None and entry.kind == "d" else self._ledger.implied(path)

    def _finish_folder(self, path: str, entry: Entry) -> None:
        fd = open_beneath(self._root_fd, path or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            if entry.uid != self._uid or entry.gid != self._gid:
                os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            if entry.xattrs:
                set_xattrs(fd, entry.xattrs, path, self._warn)
            if path in self._ledger.opaque:
                os.setxattr(fd, self._opaque, b"y")
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _warn(self, text: str) -> None:
        kind = text.partition(", first")[0]
        if kind not in self._warned and len(self._warned) < 100:
            self._warned.add(kind)
            self.warnings.append(text)


def unpack(
    stream: BinaryIO, writer: TreeWriter, *, expected: Digest | None = None, cancel: Cancel | None = None
) -> list[Entry]:
    """Unpack a layer's blob with `writer`, which is finished, and return the entries of the layer.

    Args:
        stream: the blob, compressed or not (found out by its first bytes); stays open.
        writer: for a fresh directory.
        expected: the diffID the content must have.
        cancel: checked for every entry and every MiB.

    Raises:
        TarError, CompressionError: the blob is damaged or hostile.
        DiffIdError: the content is not what it should be.
        StorageError: the disk is full, or failed.
    """
    try:
        with LayerStream(stream.read, cancel) as source:
            for entry, read in iter_entries(source.read):
                writer.add(entry, read)
            source.check(expected)
        return writer.finish()
    finally:
        writer.close()


def _write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, memoryview(data)[written:])


def _storage_error(error: OSError, path: str) -> StorageError:
    hint = "free some space, for example with: lamina prune" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return StorageError(f"cannot write a tree: {error.strerror}", where=f"/{show_name(path)}", hint=hint)
