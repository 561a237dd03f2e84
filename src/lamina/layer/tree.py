"""Layers as trees: directories that overlayfs can mount, written from items or tar entries, and walked back.

A tree carries whiteouts as character devices 0:0 and opaque directories by overlayfs's xattr in the name space of
the flavour ("trusted" as root, "user" in a user namespace). Everything below the root is reached by directory
descriptors that are opened without following links, so nothing hostile leads outside. Parents that the layer does
not have get the metadata of the chain below.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from lamina.cancel import Cancel
from lamina.errors import InputError, StorageError
from lamina.layer.blob import EntryFolder, LayerStream
from lamina.layer.entry import Content, Entry, FileSlice, Item
from lamina.layer.tar_read import OPAQUE_MARK_MODE, TarError
from lamina.layer.tar_write import ContentChangedError, open_slice
from lamina.layer.union import resolve_path
from lamina.layer.xattr import is_opaque, list_xattrs, set_xattrs
from lamina.oci.digest import Digest

_logger = logging.getLogger(__name__)
_CHUNK = 1 << 20
_OPEN_DIRS = 128
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MISSING = Entry("", "d", 0o755)

ReadSome = Callable[[int], bytes]


class Lower(Protocol):
    """The chain below a tree."""

    def lookup(self, path: str) -> Entry | None:
        """Return what the chain has at `path`."""


class _Nothing:
    def lookup(self, path: str) -> Entry | None:  # noqa: ARG002 - nothing is anywhere
        return None


class TreeWriter:
    """Writes one layer's tree. Entries may come in any order; of one path the last wins.

    Args:
        root: existing empty directory.
        flavour: "trusted" or "user".
        lower: the chain below, None for nothing.
    """

    def __init__(self, root: Path, flavour: str, lower: Lower | None = None) -> None:
        self._opaque_name = f"{flavour}.overlay.opaque"
        self._lower: Lower = lower or _Nothing()
        self._root = os.open(root, _DIRECTORY)
        self._dirs: dict[str, int] = {}
        self._own: dict[str, Entry] = {}
        self._parents: dict[str, str] = {}
        self._opaque: set[str] = set()

    def add(self, entry: Entry, content: Content | ReadSome = None) -> Entry:
        """Write one entry and return it as it was placed, with the digest of its content.

        Raises:
            TarError: an entry that breaks a rule of layers.
            ContentChangedError: a file is not what its entry says.
            StorageError: the disk does not take it.
        """
        try:
            return self._add(entry, content)
        except OSError as error:
            raise _storage_error(error, entry.path) from error

    def _add(self, entry: Entry, content: Content | ReadSome) -> Entry:
        if entry.path == "":
            if entry.kind != "d":
                raise TarError("the root of a layer must stay a directory")
            if entry.mode == OPAQUE_MARK_MODE:
                self._opaque.add("")
            else:
                self._own[""] = entry
            return entry
        entry = self._placed(entry)
        if entry.opaque:
            self._opaque.add(entry.path)
            if entry.mode == OPAQUE_MARK_MODE:
                return entry
        parent, _, name = entry.path.rpartition("/")
        directory = self._directory(parent)
        if entry.kind == "w":
            if entry.path not in self._own:
                os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory)
                self._own[entry.path] = entry
            return entry
        known = self._own.get(entry.path)
        if known is not None and not (known.kind == "d" and entry.kind == "d"):
            self._forget(entry.path, directory, name)
            known = None
        entry = self._make(entry, content, directory, name, exists=known is not None)
        self._own[entry.path] = entry
        return entry

    def finish(self) -> None:
        """Mark opaque directories, set directories' metadata and times (children first), close everything."""
        try:
            for path in sorted(self._opaque):
                fd = self._directory(path) if path else self._root
                os.setxattr(fd, self._opaque_name, b"y")
            directories = [entry for entry in self._own.values() if entry.kind == "d"]
            for entry in sorted(directories, key=lambda entry: entry.path, reverse=True):
                fd = self._directory(entry.path) if entry.path else self._root
                if not entry.path:
                    _set_owner_mode(fd, entry)
                os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        except OSError as error:
            raise _storage_error(error, "") from error
        finally:
            self.close()

    def close(self) -> None:
        """Close all descriptors; idempotent."""
        for fd in self._dirs.values():
            os.close(fd)
        self._dirs.clear()
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    # -- placing

    def _placed(self, entry: Entry) -> Entry:
        """Return the entry with links in its parents resolved, as a mount of the chain would."""
        parent, slash, name = entry.path.rpartition("/")
        if not slash:
            return entry
        resolved = self._parents.get(parent)
        if resolved is None:
            resolved = self._parents[parent] = resolve_path(self._seen, parent)
        return entry if resolved == parent else entry._replace(path=f"{resolved}/{name}" if resolved else name)

    def _seen(self, path: str) -> Entry | None:
        own = self._own.get(path)
        if own is not None:
            return None if own.kind == "w" else own
        return self._lower.lookup(path)

    def _directory(self, path: str) -> int:
        """Return a descriptor of a directory of the tree, making it (and its parents) if need be."""
        if not path:
            return self._root
        fd = self._dirs.get(path)
        if fd is not None:
            return fd
        parent, _, name = path.rpartition("/")
        above = self._directory(parent)
        own = self._own.get(path)
        if own is not None and own.kind != "d":
            if own.kind != "w":
                raise TarError("a file is used as a directory", where=path)
            os.unlink(name, dir_fd=above)
            own = None
        if own is None:
            below = self._lower.lookup(path)
            found = below if below is not None and below.kind == "d" else _MISSING
            own = self._own[path] = found._replace(path=path, opaque=False)
            os.mkdir(name, 0o700, dir_fd=above)
            fd = os.open(name, _DIRECTORY, dir_fd=above)
            _set_owner_mode(fd, own)
        else:
            fd = os.open(name, _DIRECTORY, dir_fd=above)
        if len(self._dirs) >= _OPEN_DIRS:
            self._close_some(keep=path)
        self._dirs[path] = fd
        return fd

    def _close_some(self, keep: str) -> None:
        """Close descriptors, but for those of the path that is being worked on."""
        for path in [path for path in self._dirs if not keep.startswith(path + "/")]:
            os.close(self._dirs.pop(path))

    def _forget(self, path: str, directory: int, name: str) -> None:
        """Remove what this layer had at `path`, with all below it."""
        prefix = path + "/"
        for gone in [key for key in self._own if key.startswith(prefix)]:
            del self._own[gone]
        for gone in [key for key in self._dirs if key == path or key.startswith(prefix)]:
            os.close(self._dirs.pop(gone))
        self._own.pop(path)
        self._opaque = {kept for kept in self._opaque if kept != path and not kept.startswith(prefix)}
        self._parents.clear()
        _remove_at(directory, name)

    # -- making

    def _make(self, entry: Entry, content: Content | ReadSome, directory: int, name: str, *, exists: bool) -> Entry:
        kind = entry.kind
        if kind == "f":
            return self._make_file(entry, content, directory, name)
        if kind == "d":
            if not exists:
                os.mkdir(name, 0o700, dir_fd=directory)
            self._own[entry.path] = entry
            _set_owner_mode(self._directory(entry.path), entry)
            return entry
        if kind == "h":
            return self._make_link(entry, directory, name)
        if kind == "l":
            os.symlink(entry.target, name, dir_fd=directory)
            self._parents.clear()
        elif not self._make_node(entry, directory, name):
            return entry
        os.chown(name, entry.uid, entry.gid, dir_fd=directory, follow_symlinks=False)
        if kind != "l":
            os.chmod(name, entry.mode, dir_fd=directory)
        if entry.xattrs:
            set_xattrs(f"/proc/self/fd/{directory}/{name}", entry.xattrs)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=directory, follow_symlinks=False)
        return entry

    def _make_file(self, entry: Entry, content: Content | ReadSome, directory: int, name: str) -> Entry:
        fd = os.open(name, _NEW_FILE, 0o600, dir_fd=directory)
        try:
            digest = _write_content(fd, entry, content)
            _set_owner_mode(fd, entry)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        return entry._replace(digest=digest) if digest else entry

    def _make_link(self, entry: Entry, directory: int, name: str) -> Entry:
        target = self._placed(Entry(entry.target, "h")).path
        own = self._own.get(target)
        if own is None or (own.kind in "dwh" and own.kind != "h"):
            below = self._lower.lookup(target)
            if own is None and below is not None and below.kind != "d":
                raise TarError(f"a hard link to /{target}, which only a lower layer has", where=entry.path)
            raise TarError(f"a hard link to /{target}, which is not there", where=entry.path)
        parent, _, base = target.rpartition("/")
        try:
            os.link(base, name, src_dir_fd=self._directory(parent), dst_dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            self._copy_file(self._directory(parent), base, directory, name, own)
        return entry._replace(target=target)

    def _copy_file(self, source_dir: int, source: str, directory: int, name: str, own: Entry) -> None:
        """Copy a file whose inode takes no more links; the layer's bytes do not change by it."""
        with open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=source_dir), "rb") as stream:
            self._make_file(own._replace(digest=""), stream.read, directory, name)

    def _make_node(self, entry: Entry, directory: int, name: str) -> bool:
        if entry.kind == "p":
            os.mkfifo(name, 0o600, dir_fd=directory)
            return True
        if entry.kind == "c" and entry.dev == (0, 0):
            _logger.warning("/%s: a device 0:0 would be taken for a whiteout and is left out", entry.path)
            return False
        kind = stat.S_IFCHR if entry.kind == "c" else stat.S_IFBLK
        try:
            os.mknod(name, kind | 0o600, os.makedev(*entry.dev), dir_fd=directory)
        except PermissionError:
            _logger.warning("/%s: devices cannot be made here and are left out of the unpacked tree", entry.path)
            return False
        return True


def _write_content(fd: int, entry: Entry, content: Content | ReadSome) -> str:
    """Write a file's bytes and return their digest where it was computed, "" where it is still unknown."""
    if isinstance(content, FileSlice):
        return _copy_slice(fd, entry, content)
    if content is None or isinstance(content, bytes):
        data = content or b""
        if len(data) != entry.size:
            raise ContentChangedError(entry.path, f"{len(data)} bytes, not {entry.size}")
        os.write(fd, data) if len(data) <= _CHUNK else _write_all(fd, data)
        return entry.digest
    import hashlib

    state, left = hashlib.sha256(), entry.size
    while left and (data := content(min(left, _CHUNK))):
        state.update(data)
        _write_all(fd, data)
        left -= len(data)
    if left:
        raise ContentChangedError(entry.path, f"{left} bytes are missing")
    return state.hexdigest()


def _copy_slice(fd: int, entry: Entry, source: FileSlice) -> str:
    import hashlib

    origin = open_slice(source)
    try:
        if source.offset:
            os.lseek(origin, source.offset, os.SEEK_SET)
        state, left = hashlib.sha256(), entry.size
        while left:
            data = os.read(origin, min(_CHUNK, left))
            if not data:
                raise ContentChangedError(source.path, f"it no longer has {entry.size} bytes")
            state.update(data)
            _write_all(fd, data)
            left -= len(data)
        if not source.offset and os.read(origin, 1):
            raise ContentChangedError(source.path, f"it has more than {entry.size} bytes")
    finally:
        os.close(origin)
    digest = state.hexdigest()
    if source.digest and digest != source.digest:
        raise ContentChangedError(source.path, "other content")
    return digest


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _set_owner_mode(fd: int, entry: Entry) -> None:
    """Owner first, then mode (chown drops setuid), then attributes (chown drops capabilities)."""
    os.fchown(fd, entry.uid, entry.gid)
    os.fchmod(fd, entry.mode)
    if entry.xattrs:
        set_xattrs(fd, entry.xattrs)


def _storage_error(error: OSError, path: str) -> Exception:
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
        return InputError(f"the store's file system does not take this name or owner: {error.strerror}", where=path)
    hint = "free some space, or `lamina prune`" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return StorageError(f"cannot write a file of a layer: {error.strerror}", where=f"/{path}", hint=hint)


def unpack(stream: BinaryIO, writer: TreeWriter, *, expected: Digest | None, cancel: Cancel) -> list[Entry]:
    """Unpack a layer blob into a tree and return its entries with content digests.

    Raises:
        InputError: a broken or hostile layer, or another diffID than expected; the tree is then to be thrown away.
    """
    layer = LayerStream(stream, cancel)
    folder = EntryFolder()
    try:
        for entry, read in layer:
            folder.add(writer.add(entry, read if entry.kind == "f" else None))
        layer.check(expected)
        writer.finish()
    finally:
        writer.close()
    return folder.entries()


def walk_tree(root: Path, flavour: str) -> list[Entry]:
    """Return the entries of a tree (such as an overlay's upper directory), sorted, parents first; no digests.

    Whiteouts and opaque marks are read as overlayfs has them; of hard links the first name holds the data; sockets
    are left out, as docker does. The root itself is not among them.
    """
    found: list[Entry] = []
    links: dict[tuple[int, int], str] = {}
    pending = [("", str(root))]
    while pending:
        prefix, directory = pending.pop()
        with os.scandir(directory) as listing:
            names = sorted(listing, key=lambda item: os.fsencode(item.name))
        for item in names:
            path = f"{prefix}/{item.name}" if prefix else item.name
            entry = _entry(path, item, links, flavour)
            if entry is None:
                continue
            found.append(entry)
            if entry.kind == "d":
                pending.append((path, item.path))
    found.sort(key=lambda entry: os.fsencode(entry.path).split(b"/"))
    return _first_names(found)


def _entry(path: str, item: os.DirEntry[str], links: dict[tuple[int, int], str], flavour: str) -> Entry | None:
    status = item.stat(follow_symlinks=False)
    mode = status.st_mode
    common = (stat.S_IMODE(mode), status.st_uid, status.st_gid, status.st_mtime_ns)
    if stat.S_ISREG(mode):
        xattrs = list_xattrs(item.path)
        if status.st_nlink > 1:
            # which name holds the data is decided when all are known
            links.setdefault((status.st_dev, status.st_ino), path)
            key = f"{status.st_dev}:{status.st_ino}"
            return Entry(path, "f", *common, size=status.st_size, xattrs=xattrs, target=key)
        return Entry(path, "f", *common, size=status.st_size, xattrs=xattrs)
    if stat.S_ISDIR(mode):
        return Entry(path, "d", *common, xattrs=list_xattrs(item.path), opaque=is_opaque(item.path, flavour))
    if stat.S_ISLNK(mode):
        return Entry(path, "l", 0o777, *common[1:], target=os.readlink(item.path), xattrs=list_xattrs(item.path))
    if stat.S_ISCHR(mode) and status.st_rdev == 0:
        return Entry(path, "w")
    if stat.S_ISSOCK(mode):
        return None
    kind = "c" if stat.S_ISCHR(mode) else "b" if stat.S_ISBLK(mode) else "p"
    device = (os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in "cb" else (0, 0)
    return Entry(path, kind, *common, dev=device, xattrs=list_xattrs(item.path))


def _first_names(entries: list[Entry]) -> list[Entry]:
    """Turn all but the first name of each inode into hard links; until here `target` holds the inode."""
    first: dict[str, str] = {}
    out = []
    for entry in entries:
        if entry.kind == "f" and entry.target:
            known = first.setdefault(entry.target, entry.path)
            entry = (
                entry._replace(target="")
                if known == entry.path
                else entry._replace(kind="h", target=known, size=0, xattrs=())
            )
        out.append(entry)
    return out


def tree_items(root: Path, entries: Sequence[Entry]) -> Iterator[Item]:
    """Yield a tree's entries with where their bytes are."""
    base = str(root)
    for entry in entries:
        yield Item(entry, FileSlice(base, entry.path, 0, entry.digest) if entry.kind == "f" else None)


def remove_tree(path: Path) -> None:
    """Remove a directory with all in it; nothing happens when it is not there. Never follows links."""
    try:
        parent = os.open(path.parent, _DIRECTORY)
    except FileNotFoundError:
        return
    try:
        _remove_at(parent, path.name)
    finally:
        os.close(parent)


def _remove_at(directory: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    fd = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        with os.scandir(fd) as listing:
            children = [(item.name, item.is_dir(follow_symlinks=False)) for item in listing]
        for child, is_directory in children:
            if is_directory:
                _remove_at(fd, child)
            else:
                os.unlink(child, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=directory)
