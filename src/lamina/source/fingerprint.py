"""Whether anything at all changed in the part of a context that a build reads, told from stat(2) alone.

In: a context directory, the source texts of its COPY and ADD steps, the lines of its ignore file. Out: one digest
over the sorted listing (path, mode, size, times, inode, link target) of what is below them and not ignored, and the
newest change time in it. Equal fingerprints, the older one taken when all had settled, mean that every content key
is what it was; unequal ones mean nothing but "look closer". So this may list more than a build reads, never less.

Part of the fully cached path: imports nothing but os, stat, hashlib, re, patterns and errors. Reads no file's content
and follows links only by itself, inside the root.
"""

from __future__ import annotations

import hashlib
import os
import stat

from lamina.patterns import IgnoreRules, has_glob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_VERSION = b"lamina fingerprint 1\n"
_MAX_LINKS = 255


def fingerprint(root: str, prefixes: Sequence[str], ignore: Sequence[str]) -> tuple[bytes, int] | None:
    """Return the fingerprint of what is below the prefixes, and when the newest of it changed (ns since the epoch).

    Args:
        root: the context directory.
        prefixes: paths in it; of a pattern, the part before the first wildcard is taken with all below it. A path
            that is missing counts as missing.
        ignore: lines of the ignore file, comments removed.

    Returns:
        None when it cannot be told (something cannot be read, or links turn in circles). The caller should not trust
        a fingerprint taken less than a clock's tick after the change time, see statcache.is_settled.
    """
    return _Listing(root, IgnoreRules(ignore) if ignore else None).run(prefixes)


class _Listing:
    """The stat listing of one context; each path is listed once."""

    def __init__(self, root: str, rules: IgnoreRules | None) -> None:
        self.root = root.rstrip("/") or "/"
        self.rules = rules
        self.lines: dict[str, str] = {}
        self.newest = 0
        self.walked: set[str] = set()

    def run(self, prefixes: Sequence[str]) -> tuple[bytes, int] | None:
        state = hashlib.sha256(_VERSION)
        todo = [_parts(prefix) for prefix in prefixes]
        try:
            # Links met below a wildcard are added while we go: a match that is a link is followed.
            for path, wild in todo:
                self._take(path, wild, todo)
        except (OSError, ValueError):
            return None
        for path in sorted(self.lines):
            state.update(f"{path}\0{self.lines[path]}\0".encode("utf-8", "surrogateescape"))
        return state.digest(), self.newest

    def _take(self, path: str, wild: bool, todo: list[tuple[str, bool]]) -> None:
        """Record what lies on the way to `path`, links followed inside the root, and all below it."""
        pending = path.split("/")[::-1] if path else []
        done = ""
        links = 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = done.rpartition("/")[0]
                continue
            step = f"{done}/{part}" if done else part
            found = self._record(step)
            if found is None:
                return
            if stat.S_ISLNK(found.st_mode):
                links += 1
                if links > _MAX_LINKS:
                    raise ValueError("too many links")
                target = os.readlink(f"{self.root}/{step}")
                if target.startswith("/"):
                    done = ""
                pending.extend(target.split("/")[::-1])
            else:
                done = step
                if not stat.S_ISDIR(found.st_mode):
                    return
        self._walk(done, wild, todo)

    def _record(self, path: str) -> os.stat_result | None:
        """Record one path on the way, whether it is ignored or not: the rules are part of the definition."""
        try:
            found = os.lstat(f"{self.root}/{path}")
        except (FileNotFoundError, NotADirectoryError):
            self.lines[path] = "missing"
            return None
        if stat.S_ISDIR(found.st_mode):
            self.lines[path] = self._folder(path, found.st_mode)
        else:
            self._add(path, found)
        return found

    def _folder(self, path: str, mode: int) -> str:
        """Return the line of a directory: not its times, which tell of ignored files too."""
        place = f"{self.root}/{path}"
        try:
            names = sorted(os.listxattr(place, follow_symlinks=False))
        except OSError:
            names = []
        kept = [name for name in names if name.startswith("user.")]
        return f"{mode}" + "".join(f" {name}={os.getxattr(place, name).hex()}" for name in kept)

    def _add(self, path: str, found: os.stat_result) -> None:
        changed = found.st_ctime_ns
        self.newest = max(self.newest, changed)
        self.lines[path] = f"{found.st_mode} {found.st_size} {found.st_mtime_ns} {changed} {found.st_ino}"
        if stat.S_ISLNK(found.st_mode):
            self.lines[path] += " " + os.readlink(f"{self.root}/{path}")

    def _walk(self, top: str, wild: bool, todo: list[tuple[str, bool]]) -> None:
        rules, lines, newest = self.rules, self.lines, self.newest
        pending = [top]
        while pending:
            folder = pending.pop()
            if folder in self.walked and not wild:
                continue
            self.walked.add(folder)
            prefix = f"{folder}/" if folder else ""
            with os.scandir(f"{self.root}/{folder}") as found:
                for item in found:
                    path = prefix + item.name
                    is_dir = item.is_dir(follow_symlinks=False)
                    if (
                        rules is not None
                        and rules.ignored(path, is_dir)
                        and not (is_dir and rules.may_contain_exceptions(path))
                    ):
                        continue
                    one = item.stat(follow_symlinks=False)
                    if is_dir:
                        lines[path] = self._folder(path, one.st_mode)
                        pending.append(path)
                        continue
                    changed = one.st_ctime_ns
                    if changed > newest:  # noqa: PLR1730 - faster than max(), and this runs for every file
                        newest = changed
                    lines[path] = f"{one.st_mode} {one.st_size} {one.st_mtime_ns} {changed} {one.st_ino}"
                    if item.is_symlink():
                        lines[path] += " " + os.readlink(f"{self.root}/{path}")
                        if wild:
                            todo.append((path, False))
        self.newest = max(self.newest, newest)


def _parts(prefix: str) -> tuple[str, bool]:
    """Return a source text as a clean path, cut before its first wildcard, and whether it had one."""
    parts: list[str] = []
    for part in prefix.split("/"):
        if has_glob(part):
            return "/".join(parts), True
        if part == "..":
            if parts:
                parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts), False
