"""A live directory as a view: the build context, or a named one, on this machine.

In: a directory, ignore rules, the stat cache of an earlier build. Out: entries, contents and digests of just the
paths somebody asks about. Owners are reported as 0:0 (docker's rule for contexts), modes and times as they are; what
counts of a mode in keys is `source.checkout_modes`' to say.

Everything goes through descriptors of directories, opened part by part with O_NOFOLLOW: what others do to the
directory meanwhile cannot lead outside. Links in parents are resolved by `resolve`, inside the root. Files are opened
with O_NONBLOCK and must be regular, so that a fifo never hangs a build; sockets are left out, fifos and devices are
entries like others.

A directory is listed once and remembered. A file whose stat changes between that and its hashing, or during it, is a
`ContextChangedError`; one that changes later is found by whoever copies it, by the digest in its `FileSlice`.

Thread-safe. `close` gives the descriptors back; after it, `cache` is what to keep for the next build.

    with ContextView(".", IgnoreRules(["*.pyc"]), StatCache.load(blob)) as view:
        view.digest(view.lookup("setup.py"))
"""

from __future__ import annotations

import errno
import os
import stat
import threading

from lamina.errors import InputError
from lamina.layer.entry import Entry, FileSlice
from lamina.layer.union import resolve_path
from lamina.source.checkout_modes import CheckoutModes
from lamina.source.context_hash import ContextChangedError, DirectoryChain, hash_file, hash_files
from lamina.source.statcache import StatCache, file_clock_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.layer.entry import Content, Xattrs
    from lamina.patterns import IgnoreRules
    from lamina.source.statcache import StatKey

__all__ = ["ContextChangedError", "ContextView"]

_KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
    stat.S_IFIFO: "p",
}


class ContextView:
    """A live directory.

    Args:
        root: the directory; may itself be a symbolic link.
        ignore: what is not in the context.
        cache: what an earlier build remembered of it.
        include: when given, only what it matches (and the directories on the way) is in the context.
        name: what to call it in messages.
        ignore_name: what to call the ignore rules in messages.
        exact_modes: modes count in keys as they are, and not as git has them.

    Raises:
        InputError: there is no such directory.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        ignore: IgnoreRules | None = None,
        cache: StatCache | None = None,
        *,
        include: IgnoreRules | None = None,
        name: str = "the build context",
        ignore_name: str = ".dockerignore",
        exact_modes: bool = False,
    ) -> None:
        self._modes = None if exact_modes else CheckoutModes(self._find, self.children)
        self._root = os.path.realpath(root)
        try:
            self._chain = DirectoryChain(self._root)
        except OSError as error:
            raise InputError(f"cannot open {name}: {error.strerror}", where=os.fspath(root)) from error
        self.cache = cache if cache is not None else StatCache()
        self._ignore = ignore
        self._include = include
        self._name = name
        self._ignore_name = ignore_name
        self._lock = threading.RLock()
        self._entries: dict[str, Entry | None] = {}
        self._listed: dict[str, list[str]] = {}
        self._keys: dict[str, StatKey] = {}
        self._links: dict[str, str] = {}
        self._digests: dict[str, str] = {}
        self._skipped: set[str] = set()  # on the disk, but not in the context
        self._without_xattrs: set[int] = set()

    def __enter__(self) -> ContextView:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors, and drop what the cache has of files that are gone.

        Contents that were handed out stay readable: they name their path.
        """
        with self._lock:
            if self.cache.changed:
                self.cache.forget(self._is_gone)
            self._chain.close()

    @property
    def name(self) -> str:
        """What to call the context in messages."""
        return self._name

    @property
    def counting(self) -> str:
        """Name of the rule by which modes count."""
        return "live" if self._modes is None else "checkout"

    def counted_mode(self, entry: Entry) -> int:
        """Return what counts of the mode of a file or directory."""
        mode = entry.mode
        if self._modes is None or (mode in (0o644, 0o755) and entry.path):
            return mode
        return self._modes.counted(entry)

    def lookup(self, path: str) -> Entry | None:
        """Return the entry at `path`, None when it is missing, ignored, a socket, or below a link.

        Raises:
            InputError: a directory on the way cannot be read.
        """
        try:
            return self._entries[path]
        except KeyError:
            with self._lock:
                return self._find(path)

    def children(self, path: str) -> list[str]:
        """Return the sorted names in a directory, [] when it is none.

        Raises:
            InputError: it cannot be read.
        """
        known = self._listed.get(path)
        if known is not None:
            return known
        with self._lock:
            entry = self._find(path)
            return self._list(path) if entry is not None and entry.kind == "d" else []

    def resolve(self, path: str, follow_last: bool = True) -> str:
        """Return `path` with links followed inside the root.

        Raises:
            InputError: too many links.
        """
        return resolve_path(self.lookup, path, follow_last)

    def content(self, entry: Entry) -> Content:
        """Return the file's place, with its digest when it is known by now."""
        if entry.kind != "f":
            return None
        return FileSlice(self._root, entry.path, 0, entry.digest or self._digests.get(entry.path, ""))

    def digest(self, entry: Entry) -> str:
        """Return the sha256 of a file's content.

        Raises:
            InputError: it cannot be read.
            ContextChangedError: it is not the file any more that `lookup` saw.
        """
        known = entry.digest or self._digests.get(entry.path)
        if known:
            return known
        with self._lock:
            digest, now_ns = hash_file(self._chain, entry.path, self._keys[entry.path])
            self._remember(entry, digest, now_ns)
        return digest

    def digests(self, entries: Sequence[Entry]) -> list[str]:
        """Return the digests of many files; large ones are read by several threads.

        Raises:
            InputError: one cannot be read.
            ContextChangedError: one is not the file any more that `lookup` saw.
        """
        with self._lock:
            unknown = [entry for entry in entries if not entry.digest and entry.path not in self._digests]
            if unknown:
                jobs = [(entry.path, self._keys[entry.path]) for entry in unknown]
                for entry, (digest, now_ns) in zip(unknown, hash_files(self._root, jobs), strict=True):
                    self._remember(entry, digest, now_ns)
        return [entry.digest or self._digests[entry.path] for entry in entries]

    def link_group(self, entry: Entry) -> str:
        """Return a name that the hard links of one file share."""
        return self._links.get(entry.path, "")

    def why_missing(self, path: str) -> str:
        """Return which rule keeps a path out that is on the disk, "" when it is not there either."""
        found = self._on_disk(path)
        if found is None:
            return ""
        if stat.S_ISSOCK(found.st_mode):
            return f"/{path} is a socket, which a layer cannot hold"
        if self._include is not None and not self._include.ignored(path, stat.S_ISDIR(found.st_mode)):
            return f"/{path} is not among the paths {self._name} was asked for"
        if self._ignore is None:
            return ""
        return f"/{path} exists, but {self._ignore_name} excludes it{self._rule(path)}"

    def _on_disk(self, path: str) -> os.stat_result | None:
        from lamina.rooted import open_in_root

        try:
            with self._lock:
                fd = open_in_root(self._chain.open(""), path, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def _is_gone(self, path: str) -> bool:
        unseen = path not in self._keys and path not in self._skipped
        return unseen and path.rpartition("/")[0] in self._listed

    def _rule(self, path: str) -> str:
        """Return the ignore rule that decides about `path`, for a message."""
        from lamina.source.ignore_why import Reasons

        number = Reasons(self._ignore).decides(path) if self._ignore is not None else -1
        return f" (rule {self._ignore.patterns[number]})" if self._ignore is not None and number >= 0 else ""

    def _remember(self, entry: Entry, digest: str, now_ns: int) -> None:
        self._digests[entry.path] = digest
        self.cache.put(entry.path, self._keys[entry.path], digest, entry.xattrs, now_ns)

    def _find(self, path: str) -> Entry | None:
        """Look at one path without listing its directory."""
        if path in self._entries:
            return self._entries[path]
        if not path:
            found = os.fstat(self._chain.open(""))
            entry: Entry | None = Entry("", "d", stat.S_IMODE(found.st_mode), 0, 0, found.st_mtime_ns)
        else:
            parent, _, name = path.rpartition("/")
            folder = self._find(parent)
            if folder is None or folder.kind != "d" or parent in self._listed:
                entry = None
            else:
                entry = self._look(path, name, self._open(parent))
        self._entries[path] = entry
        return entry

    def _look(self, path: str, name: str, fd: int) -> Entry | None:
        try:
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise InputError(f"impossible name: {error}", where=f"/{path}") from error
        except OSError as error:
            raise _unreadable(path, error) from error
        return self._entry(path, name, found, fd)

    def _open(self, path: str) -> int:
        try:
            return self._chain.open(path)
        except FileNotFoundError as error:
            raise ContextChangedError(f"/{path} went away during the build", where=f"/{path}") from error
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise ContextChangedError(f"/{path} is no directory any more", where=f"/{path}") from error
            raise _unreadable(path, error) from error

    def _list(self, path: str) -> list[str]:
        """List a directory that `_find` has shown to be one."""
        known = self._listed.get(path)
        if known is not None:
            return known
        fd = self._open(path)
        prefix = f"{path}/" if path else ""
        names: list[str] = []
        folders: list[str] = []
        entries, make = self._entries, self._entry
        try:
            with os.scandir(fd) as found:
                for item in found:
                    name = item.name
                    whole = prefix + name
                    try:
                        entry = make(whole, name, item.stat(follow_symlinks=False), fd, later=folders)
                    except FileNotFoundError:
                        continue  # gone since it was listed: as if it had never been there
                    if entry is not None:
                        entries[whole] = entry
                        names.append(name)
        except OSError as error:
            raise _unreadable(path, error) from error
        for name in folders:
            # Only there for the sake of what is in it; looked into after `fd`, which the chain may close, is done with.
            if not self._list(prefix + name):
                entries[prefix + name] = None
                names.remove(name)
        names.sort()
        self._listed[path] = names
        return names

    def _entry(
        self, path: str, name: str, found: os.stat_result, fd: int, *, later: list[str] | None = None
    ) -> Entry | None:
        """Make the entry of a path, None when it is not in the context.

        A directory that only counts when something in it does is noted in `later`, or looked into at once.
        """
        mode = found.st_mode
        kind = _KINDS.get(mode & 0o170000)
        if kind is None:
            return None
        is_dir = kind == "d"
        doubtful = False
        if self._ignore is not None and self._ignore.ignored(path, is_dir):
            if not is_dir or not self._ignore.may_contain_exceptions(path):
                self._skipped.add(path)
                return None
            doubtful = True
        if self._include is not None and not self._include.ignored(path, is_dir):
            if not is_dir:
                self._skipped.add(path)
                return None
            doubtful = True
        entry = self._fresh_entry(path, name, found, fd, kind)
        if not doubtful:
            return entry
        if later is not None:
            later.append(name)
            return entry
        self._entries[path] = entry
        return entry if self._list(path) else None

    def _fresh_entry(self, path: str, name: str, found: os.stat_result, fd: int, kind: str) -> Entry:
        key = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        self._keys[path] = key
        digest = target = ""
        xattrs: Xattrs = ()
        if kind in "fd":
            row = self.cache.rows.get(path)
            if row is not None and row[0] == key:
                _, digest, xattrs = row
            else:
                now_ns = file_clock_ns()
                xattrs = self._xattrs(f"/proc/self/fd/{fd}/{name}", found.st_dev)
                if kind == "d":
                    self.cache.put(path, key, "", xattrs, now_ns)
        elif kind == "l":
            target = os.readlink(name, dir_fd=fd)
        size = 0
        if kind == "f":
            size = found.st_size
            if found.st_nlink > 1:
                self._links[path] = f"{found.st_dev}:{found.st_ino}"
        dev = (os.major(found.st_rdev), os.minor(found.st_rdev)) if kind in "cb" else (0, 0)
        mode = found.st_mode & 0o7777
        return Entry(path, kind, mode, 0, 0, found.st_mtime_ns, size, target, dev, xattrs, digest)

    def _xattrs(self, place: str, device: int) -> Xattrs:
        if device in self._without_xattrs:
            return ()
        try:
            names = [name for name in os.listxattr(place, follow_symlinks=False) if is_kept(name)]
            return tuple((name, os.getxattr(place, name, follow_symlinks=False)) for name in sorted(names))
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                self._without_xattrs.add(device)
            return ()


def is_kept(name: str) -> bool:
    """Tell whether an xattr belongs to the file and not to this host or to an overlay on it."""
    return name == "security.capability" or (name.startswith("user.") and not name.startswith("user.overlay."))


def _unreadable(path: str, error: OSError) -> InputError:
    return InputError(
        f"cannot read /{path} of the context: {error.strerror}",
        where=f"/{path}",
        hint="give it the permission, or exclude it in .dockerignore" if error.errno == errno.EACCES else "",
    )
