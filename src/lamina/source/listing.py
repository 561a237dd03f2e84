"""What lies in a directory, and whether a build that has it as its context can see it.

In: the directory, its ignore rules. Out: one `Listed` for everything below it, the sizes told by stat(2); no file is
read. What a build sees are the entries of `source.context.ContextView`; this says the same of every path (tested),
and for what is left out, which rule it was. A directory that is left out as a whole is still walked, for its size.

What cannot be listed is told in `Listing.unreadable` and not an error. Linear in the number of files.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import NamedTuple

from lamina.errors import InputError
from lamina.patterns import IgnoreRules
from lamina.source.ignore_why import Reasons


class Listed(NamedTuple):
    """One path of a context.

    Attributes:
        path: relative to the context, without a slash at its end.
        kind: `f`, `d`, `l`, `c`, `b`, `p` as layers have them, `s` for a socket (never part of a context).
        size: bytes of a file, 0 for all else.
        kept: the build can see it.
        rule: position of the rule that decides, -1 when none matches (then it is kept, if it is no socket).
    """

    path: str
    kind: str
    size: int
    kept: bool
    rule: int


@dataclass(frozen=True, slots=True)
class Listing:
    """All of a context.

    Attributes:
        root: the directory.
        entries: directories before what is in them.
        unreadable: directories that could not be listed, with why.
    """

    root: str
    entries: tuple[Listed, ...]
    unreadable: tuple[tuple[str, str], ...] = ()


_KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
}


def list_context(root: str, rules: IgnoreRules) -> Listing:
    """List a context directory.

    Raises:
        InputError: there is no such directory.
    """
    if not os.path.isdir(root):
        raise InputError("no such directory", where=root)
    return _Walk(os.path.realpath(root), rules).run()


class _Walk:
    """One walk; `pending` holds directories with the rule that leaves them out as a whole, -1 when none does."""

    def __init__(self, root: str, rules: IgnoreRules) -> None:
        self.root, self.rules, self.reasons = root, rules, Reasons(rules)
        self.found: list[Listed] = []
        self.doubtful: set[int] = set()
        self.unreadable: list[tuple[str, str]] = []
        self.pending: list[tuple[str, int]] = [("", -1)]

    def run(self) -> Listing:
        while self.pending:
            path, gone = self.pending.pop()
            try:
                with os.scandir(f"{self.root}/{path}" if path else self.root) as entries:
                    for entry in entries:
                        self._take(f"{path}/{entry.name}" if path else entry.name, entry, gone)
            except OSError as error:
                self.unreadable.append((path, error.strerror or str(error)))
        self._settle()
        return Listing(self.root, tuple(sorted(self.found)), tuple(sorted(self.unreadable)))

    def _take(self, path: str, entry: os.DirEntry[str], gone: int) -> None:
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return  # gone since it was listed
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "s")
        size = found.st_size if kind == "f" else 0
        is_dir = kind == "d"
        if gone >= 0:
            self.found.append(Listed(path, kind, size, False, gone))
            if is_dir:
                self.pending.append((path, gone))
            return
        rule = self.reasons.decides(path)
        ignored = self.rules.ignored(path, is_dir)
        if is_dir:
            below = ignored and not self.rules.may_contain_exceptions(path)
            self.pending.append((path, rule if below else -1))
            if ignored and not below:
                self.doubtful.add(len(self.found))
        self.found.append(Listed(path, kind, size, not ignored and kind != "s", rule))

    def _settle(self) -> None:
        """Keep the directories that are left out, but for the sake of what is in them."""
        if not self.doubtful:
            return
        needed = {item.path.rpartition("/")[0] for item in self.found if item.kept}
        for number in sorted(self.doubtful, reverse=True):  # those below come later
            item = self.found[number]
            if item.path in needed:
                self.found[number] = item._replace(kept=True)
                needed.add(item.path.rpartition("/")[0])
