"""Read a tree on disk, such as the upper directory of an overlay mount, as a layer.

In: a directory that nobody writes to any more. Out: its entries, directories before what is in them, names sorted in
each. What overlayfs keeps in it is translated (Documentation/filesystems/overlayfs.rst, "whiteouts and opaque
directories"): devices 0:0 become whiteouts, the opaque attribute a flag; its other attributes are left out. Of several
names of one file the first one has the data, the others are hard links to it. Sockets are left out.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from lamina.errors import StorageError
from lamina.layer.entry import Entry, FileSlice, Item
from lamina.layer.errors import LayerError, show_name
from lamina.layer.xattr import read_xattrs
from lamina.rooted import open_beneath, open_root

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lamina.layer.ledger import Lower

MAX_PATH, MAX_PART = 4095, 255
_KINDS = {
    stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFCHR: "c", stat.S_IFBLK: "b", stat.S_IFIFO: "p",
}  # fmt: skip
_DEFAULT_ROOT = Entry("", "d", 0o755)


def walk_tree(root: str | os.PathLike[str], flavour: str, below: Entry | None = None) -> list[Entry]:
    """Return the entries of the tree at `root`; digests are "".

    Args:
        root: the directory.
        flavour: name space of overlay's attributes in it, "trusted" or "user".
        below: what the root directory is in the layers below (default: root's, 0755). The root gets an entry only if
            it is opaque or its mode, owner or attributes are others: that a step wrote there does not count.

    Raises:
        StorageError: something cannot be read.
        LayerError: a path is too long for a layer.
    """
    walker = _Walker(os.fspath(root), flavour)
    try:
        walker.walk()
    except OSError as error:
        raise StorageError(f"cannot read a tree: {error.strerror}", where=str(error.filename or root)) from error
    finally:
        walker.close()
    own, usual = walker.entries[0], below or _DEFAULT_ROOT
    same = (own.mode, own.uid, own.gid, own.xattrs) == (usual.mode, usual.uid, usual.gid, usual.xattrs)
    return walker.entries[1:] if same and not own.opaque else walker.entries


def tree_items(root: str | os.PathLike[str], entries: Iterable[Entry]) -> Iterator[Item]:
    """Yield entries of the tree at `root` with the place of their contents."""
    base = os.fspath(root)
    for entry in entries:
        yield Item(entry, FileSlice(base, entry.path, 0, entry.digest) if entry.kind == "f" else None)


def settle(entries: Iterable[Entry], below: Lower) -> list[Entry]:
    """Return the entries of an upper directory without the marks that hide nothing.

    Overlayfs calls every directory opaque that it makes where nothing was, to save itself a lookup; and what a step
    hid may have been there for this step only (mount points). In a layer such marks would hide what is not meant.

    Args:
        entries: as `walk_tree` gives them: a directory before what is in it.
        below: what the chain shows that the step stood on.
    """
    cut: set[str] = set()
    kept = []
    for entry in entries:
        if entry.kind == "w" or entry.opaque:
            hides = not _is_under(cut, entry.path) and below.lookup(entry.path) is not None
            if entry.opaque:
                cut.add(entry.path)
                entry = entry._replace(opaque=hides)
            elif not hides:
                continue
        kept.append(entry)
    return kept


def _is_under(folders: set[str], path: str) -> bool:
    """Tell whether one of the folders is above `path`."""
    while path:
        path = path.rpartition("/")[0]
        if path in folders:
            return True
    return False


class _Walker:
    """One walk."""

    def __init__(self, root: str, flavour: str) -> None:
        self._root = root.rstrip("/") or "/"
        self._opaque = f"{flavour}.overlay.opaque"
        self._names: dict[tuple[int, int], str] = {}
        self._deep: tuple[str, int] = ("", -1)  # a directory whose path is too long for the kernel, opened
        self.entries: list[Entry] = []

    def close(self) -> None:
        """Close what is open. Idempotent."""
        if self._deep[1] >= 0:
            os.close(self._deep[1])
        self._deep = ("", -1)

    def walk(self) -> None:
        """Fill `entries`."""
        # Pending paths in reverse order; a directory's own names are pushed when it is met.
        pending: list[tuple[str, os.stat_result]] = [("", os.lstat(self._root))]
        base = self._root + "/"
        while pending:
            path, status = pending.pop()
            whole = base + path
            if len(whole) > MAX_PATH // 4 and len(os.fsencode(whole)) + 1 + MAX_PART > MAX_PATH:
                whole = self._reach(path)
            self._take(path, whole, status)
            if not stat.S_ISDIR(status.st_mode):
                continue
            prefix = path + "/" if path else ""
            with os.scandir(whole) as found:
                children = [(entry.name, entry.stat(follow_symlinks=False)) for entry in found]
            children.sort(reverse=True)
            pending.extend((prefix + name, status) for name, status in children)

    def _reach(self, path: str) -> str:
        """Return a short name for a path that is longer, together with the root's, than the kernel takes."""
        if len(os.fsencode(path)) > MAX_PATH:
            raise LayerError(f"a path of more than {MAX_PATH} bytes", where=show_name(path))
        folder, _, name = path.rpartition("/")
        if self._deep[0] != folder:
            self.close()
            root_fd = open_root(self._root)
            try:
                self._deep = (folder, open_beneath(root_fd, folder, os.O_PATH | os.O_DIRECTORY))
            finally:
                os.close(root_fd)
        return f"/proc/self/fd/{self._deep[1]}/{name}"

    def _take(self, path: str, whole: str, status: os.stat_result) -> None:
        mode = status.st_mode
        kind = _KINDS.get(stat.S_IFMT(mode))
        if kind is None:
            return  # a socket
        target, dev, size = "", (0, 0), 0
        if kind == "f":
            size = status.st_size
        elif kind == "l":
            target = os.readlink(whole)
        elif kind in "cb":
            dev = (os.major(status.st_rdev), os.minor(status.st_rdev))
            if kind == "c" and dev == (0, 0):
                self.entries.append(Entry(path, "w"))
                return
        if status.st_nlink > 1 and kind != "d":
            first = self._names.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                kind, target, size, dev = "h", first, 0, (0, 0)
        xattrs, private = read_xattrs(whole)
        opaque = kind == "d" and self._opaque in private and self._is_opaque(whole)
        self.entries.append(
            Entry(
                path, kind, mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime_ns, size, target, dev,
                xattrs, "", opaque,
            )
        )  # fmt: skip

    def _is_opaque(self, whole: str) -> bool:
        return os.getxattr(whole, self._opaque, follow_symlinks=False) == b"y"
