"""What counts of the modes of files in a live directory: what git keeps of them, and every deliberate chmod.

A commit knows two modes of files (0644, 0755) and none of directories. What a checkout makes of them depends on the
umask of whoever checks out: the same commit gives 0664 here and 0600 there. So a mode counts as git's when it is what
a checkout leaves: git's own, or what a umask makes of 0666 and 0777. The umask is read off the directory above, which
the same checkout made. Every other mode was set by somebody on purpose and counts as it is (0600 beside 0644, setuid).

    root 0775/  a 0664   -> 0644      umask 002, seen from the root
                b 0600   -> 0600      not what that umask leaves: a chmod
                d 0700/  -> 0700      a chmod; what is below is held against the root again
                  e 0600 -> 0600

In: a way to look at entries. Out: modes to put into keys. The modes of a layer are always the real ones. Pure.

Invariants: of a file 0644 and 0755 stand for git's two modes and nothing else is made of them; of a directory 0755.
The root's own mode never counts. It is no witness when something in it has a right that it lacks: then it is a
directory made for one user alone (mkdtemp) that a checkout was put into.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lamina.layer.entry import Entry

REGULAR, EXECUTABLE, DIRECTORY = 0o644, 0o755, 0o755


class CheckoutModes:
    """The rule over one directory; remembers what it found about directories. Thread-safe if `lookup` is.

    Args:
        lookup: returns the entry at a path.
        children: returns the names in a directory.
    """

    def __init__(self, lookup: Callable[[str], Entry | None], children: Callable[[str], list[str]]) -> None:
        self._lookup, self._children = lookup, children
        self._witness: dict[str, int] = {}
        self._files: dict[str, dict[int, int]] = {}  # by directory: what modes of files in it count as

    def counted(self, entry: Entry) -> int:
        """Return what counts of an entry's mode; of what is neither file nor directory, all."""
        mode, path = entry.mode, entry.path
        if entry.kind == "d":
            if not path or mode == DIRECTORY or mode == self._witnessed(path.rpartition("/")[0]):
                return DIRECTORY
        elif entry.kind == "f" and mode not in (REGULAR, EXECUTABLE):
            folder = path.rpartition("/")[0]
            files = self._files.get(folder)
            if files is None:
                left = self._witnessed(folder)
                files = self._files[folder] = {0o777 & left: EXECUTABLE, 0o666 & left: REGULAR}
            return files.get(mode, mode)
        return mode

    def _witnessed(self, folder: str) -> int:
        """Return the mode that the checkout gave to directories at `folder`: its own, unless that is a chmod."""
        known = self._witness.get(folder)
        if known is not None:
            return known
        unknown = []
        while folder and folder not in self._witness:
            unknown.append(folder)
            folder = folder.rpartition("/")[0]
        known = self._witness.get(folder)
        if known is None:
            known = self._witness[""] = self._root_mode()
        for path in reversed(unknown):
            entry = self._lookup(path)
            if entry is not None and entry.mode in (DIRECTORY, known):
                known = entry.mode
            self._witness[path] = known
        return known

    def _root_mode(self) -> int:
        """Return the root's mode, or git's when something in the root has a right of git's that the root lacks."""
        root = self._lookup("")
        assert root is not None
        lacking = DIRECTORY & ~root.mode
        if not lacking:
            return root.mode
        entries = (self._lookup(name) for name in self._children(""))
        private = any(entry is not None and entry.kind in "fd" and entry.mode & lacking for entry in entries)
        return DIRECTORY if private else root.mode
