"""What a layer comes to when its entries are applied in order: the one decision table of scanning and unpacking.

In: entries as they stand in a tar stream. Out: for each, where it really goes and what must be made or removed for
it; at the end the entries the layer consists of. Pure: a `TreeWriter` carries the steps out, a scan only keeps the
table, so that the index of a layer and its tree cannot disagree.

Rules (image-spec layer.md, "Applying Changesets"; where it is silent, what containerd does):
  * a later entry replaces an earlier one of the same path, with all below it, but a directory merges with a directory;
  * a whiteout hides what lies in lower layers, never what is in this one: with a directory of this layer, in either
    order, it makes it opaque; an opaque mark (kind "w", `opaque`) does so to the directory it names;
  * symbolic links in the parents of a path, of this layer or seen in the layers below, are followed inside the root;
    parents that are missing are made ("implied") with what they are below; a file as a parent is an error;
  * a hard link names a file of this layer that stands before it, or one of a lower layer that this one does not hide.
    When the name that holds the data is replaced, the next link takes the data over.

Invariants: the parents of every entry are directories; what `finish` returns has no hard link to a hard link (until
then the targets may be names that others have taken over). Every step's cost is that of what it takes in or out.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, Protocol

from lamina.layer.entry import Entry
from lamina.layer.errors import TarError

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LINKS = 40
_NOTHING: tuple[str, ...] = ()


class Lower(Protocol):
    """What lies below a layer: a union of indexes."""

    def lookup(self, path: str) -> Entry | None:
        """Return what is seen at `path`, links not followed, None when nothing is."""


class Step(NamedTuple):
    """What is to be done for one entry.

    Attributes:
        entry: with its final path (and for a hard link its final target); kind "w" without `opaque` means that a
            whiteout is to be made, with `opaque` that the directory is to become opaque. None: nothing to do.
        made: directories to be made first, parents before children; whiteouts may be in their way.
        replaced: what is at the path now: "" nothing, "d" a directory with all below it (for a directory: only it,
            and it stays), "w" a whiteout, or the kind of another entry.
        lower: a hard link's data lies in a lower layer, and this is its first name here.
        source: for a hard link, a name of this layer that has the data (if `lower` is not set).
    """

    entry: Entry | None
    made: tuple[str, ...] = _NOTHING
    replaced: str = ""
    lower: Entry | None = None
    source: str = ""


class _Group:
    """The hard links to one file.

    Attributes:
        data: the name that has the data: of this layer, or of a lower one.
        names: the links to it, oldest first.
    """

    __slots__ = ("data", "names")

    def __init__(self, data: str) -> None:
        self.data = data
        self.names: OrderedDict[str, None] = OrderedDict()


class Ledger:
    """The table of a layer under way.

    Args:
        below: what lies below the layer, for hard links to it, links in the way and implied directories; None with
            `whole` false means: not known.
        whole: nothing lies below unless `below` says so.

    Attributes:
        entries: by path, in the order of their (last) coming.
        folders: every directory, implied ones and the root ("") included.
        opaque: directories that hide what is below in lower layers.
    """

    def __init__(self, below: Lower | None = None, *, whole: bool = False) -> None:
        self.entries: dict[str, Entry] = {}
        self.folders: set[str] = {""}
        self.opaque: set[str] = set()
        self._below = below
        self._whole = whole
        self._hidden: set[str] = set()  # every path a whiteout named
        self._links: dict[str, _Group] = {}  # name with the data -> hard links to it
        self._group_of: dict[str, _Group] = {}  # hard link -> the same
        self._children: dict[str, set[str]] | None = None  # made when a directory is replaced for the first time

    def place(self, entry: Entry) -> Step:
        """Take an entry in and return what is to be done for it.

        Raises:
            TarError: it breaks a rule.
        """
        path = entry.path
        if not path:
            return self._place_root(entry)
        if entry.kind == "w" and entry.opaque:
            folder, made = self._parent(path, entry)
            return self._make_opaque(folder, made)
        parent = path.rpartition("/")[0]
        made = _NOTHING
        if parent not in self.folders:
            parent, made = self._parent(parent, entry)
            path = f"{parent}/{path.rpartition('/')[2]}" if parent else path.rpartition("/")[2]
            if not path:
                raise TarError("the root must stay a directory", entry.path)
            entry = entry._replace(path=path)
        kind = entry.kind
        if kind == "d":
            return self._place_folder(entry, made)
        if kind == "w":
            return self._place_whiteout(entry, made)
        if kind == "h":
            return self._place_link(entry, made)
        if kind == "c" and entry.dev == (0, 0):
            raise TarError("a device 0:0, which overlayfs takes for a deletion", path)
        replaced = self._clear(path) if path in self.entries or path in self.folders else ""
        if path in self._links:
            raise TarError("a file that an earlier hard link of this layer names", path)
        self._add(entry)
        return Step(entry, made, replaced)

    def set_digest(self, path: str, digest: str) -> None:
        """Note the digest of a file's content."""
        self.entries[path] = self.entries[path]._replace(digest=digest)

    def finish(self) -> list[Entry]:
        """Return the layer's entries in order.

        A directory that is opaque but has no entry of its own gets one, see `implied`.
        """
        for path, group in self._group_of.items():
            if self.entries[path].target != group.data:
                self.entries[path] = self.entries[path]._replace(target=group.data)
        for path in sorted(self.opaque):
            if path not in self.entries:
                self.entries[path] = self.implied(path)._replace(opaque=True)
        return list(self.entries.values())

    def implied(self, path: str) -> Entry:
        """Return what a directory without an entry is: as seen below, else root's, 0755, time 0.

        An opaque mark takes the content below away, not the directory; a whiteout takes both.
        """
        found = self._seen_below(path)
        return found if found is not None and found.kind == "d" else Entry(path, "d", 0o755)

    def is_cut(self, path: str) -> bool:
        """Tell whether what lower layers have at the directory `path` is hidden by this layer."""
        while path not in self.opaque:
            if not path:
                return False
            path = path.rpartition("/")[0]
        return True

    # -- one kind each

    def _place_root(self, entry: Entry) -> Step:
        if entry.kind == "w" and entry.opaque:
            return self._make_opaque("", _NOTHING)
        if entry.kind != "d":
            raise TarError("the root must stay a directory", "/")
        if "" in self.opaque and not entry.opaque:
            entry = entry._replace(opaque=True)
        self.entries[""] = entry
        return Step(entry, _NOTHING, "d")

    def _place_folder(self, entry: Entry, made: tuple[str, ...]) -> Step:
        path = entry.path
        replaced = ""
        if path in self.folders:
            replaced = "d"
            self.entries.pop(path, None)
        elif path in self.entries:
            replaced = self._clear(path)
        if entry.opaque or path in self.opaque or path in self._hidden:
            self.opaque.add(path)
            entry = entry._replace(opaque=True)
        self.folders.add(path)
        self._add(entry)
        return Step(entry, made, replaced)

    def _place_whiteout(self, entry: Entry, made: tuple[str, ...]) -> Step:
        path = entry.path
        self._hidden.add(path)
        if path in self.folders:
            return self._make_opaque(path, made)
        if path in self.entries:
            return Step(None, made)
        if path in self._links:
            raise TarError("a whiteout of a file that an earlier hard link of this layer names", path)
        entry = Entry(path, "w")
        self._add(entry)
        return Step(entry, made)

    def _make_opaque(self, path: str, made: tuple[str, ...]) -> Step:
        self.opaque.add(path)
        known = self.entries.get(path)
        if known is not None:
            self.entries[path] = known._replace(opaque=True)
        return Step(Entry(path, "w", opaque=True), made)

    def _place_link(self, entry: Entry, made: tuple[str, ...]) -> Step:
        target = self._follow_parent(entry.target)
        data = self.entries.get(target)
        if data is not None and data.kind == "h":
            target = self._group_of[target].data
            data = self.entries.get(target)
        path = entry.path
        if target == path and data is not None:
            return Step(None, made)
        lower = None
        if data is None:
            lower = self._find_below(entry, target)
        elif data.kind in "dw":
            raise TarError(f"a hard link to {target!r}, which is no file", path)
        replaced = self._clear(path) if path in self.entries or path in self.folders else ""
        if path in self._links:
            raise TarError("a file that an earlier hard link of this layer names", path)
        if data is not None and target not in self.entries:
            raise TarError(f"a hard link to {target!r}, which it replaces", path)
        group = self._links.get(target)
        if group is None:
            group = self._links[target] = _Group(target)
        source = target if data is not None else next(iter(group.names), "")
        group.names[path] = None
        self._group_of[path] = group
        entry = entry._replace(target=target)
        self._add(entry)
        return Step(entry, made, replaced, None if source else lower, source)

    def _find_below(self, entry: Entry, target: str) -> Entry | None:
        """Return the lower layer's file a hard link names; None when it is not known what lies below."""
        if target in self.folders:
            raise TarError(f"a hard link to {target!r}, which is a directory", entry.path)
        if self._below is None and not self._whole:
            return None
        found = self._seen_below(target)
        if found is None or found.kind in "dw":
            raise TarError(f"a hard link to {target!r}, which is not there", entry.path)
        return found

    # -- paths

    def _parent(self, path: str, entry: Entry) -> tuple[str, tuple[str, ...]]:
        """Return the directory `path` with its links followed and the directories to be made on the way."""
        made: list[str] = []
        done = ""
        pending = path.split("/")[::-1] if path else []
        links = 0
        while pending:
            part = pending.pop()
            if part in ("", "."):
                continue
            if part == "..":
                done = done.rpartition("/")[0]
                continue
            step = f"{done}/{part}" if done else part
            if step not in self.folders:
                there = self._link_at(step) or self.entries.get(step)
                if there is not None and there.kind == "l":
                    links += 1
                    if links > MAX_LINKS:
                        raise TarError("too many symbolic links in the path", entry.path)
                    if there.target.startswith("/"):
                        done = ""
                    pending.extend(there.target.split("/")[::-1])
                    continue
                self._imply(step, there, entry)
                made.append(step)
            done = step
        return done, tuple(made)

    def _imply(self, path: str, there: Entry | None, entry: Entry) -> None:
        """Make a directory that is only implied."""
        if there is not None:
            if there.kind != "w":
                raise TarError(f"{path!r} is used as a directory, but is none", entry.path)
            self._clear(path)
        if path in self._links:
            raise TarError(f"{path!r} is used as a directory, but a hard link names it", entry.path)
        if path in self._hidden:
            self.opaque.add(path)
        self.folders.add(path)
        self._note_child(path)

    def _follow_parent(self, path: str) -> str:
        """Return `path` with the links in its parents followed; nothing is made."""
        done = ""
        pending = path.split("/")[::-1]
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                done = done.rpartition("/")[0]
            elif part not in ("", "."):
                step = f"{done}/{part}" if done else part
                there = self._link_at(step) if pending and step not in self.folders else None
                if there is not None and (links := links + 1) <= MAX_LINKS:
                    if there.target.startswith("/"):
                        done = ""
                    pending.extend(there.target.split("/")[::-1])
                else:
                    done = step
        return done

    def _link_at(self, path: str) -> Entry | None:
        """Return the symbolic link that is seen at `path`, in this layer or else below."""
        there = self.entries.get(path)
        if there is None:
            there = self._seen_below(path)
        return there if there is not None and there.kind == "l" else None

    def _seen_below(self, path: str) -> Entry | None:
        """Return what the lower layers have at `path`, None if this layer hides it or they are not known."""
        if self._below is None or path in self._hidden or (path and self.is_cut(path.rpartition("/")[0])):
            return None
        return self._below.lookup(path)

    # -- the table

    def _add(self, entry: Entry) -> None:
        self.entries[entry.path] = entry
        if self._children is not None:
            self._note_child(entry.path)

    def _note_child(self, path: str) -> None:
        if self._children is not None:
            self._children.setdefault(path.rpartition("/")[0], set()).add(path)

    def _clear(self, path: str) -> str:
        """Remove what is at `path` with all below it and return its kind."""
        if path not in self.folders:
            return self._remove(path)
        pending = [path]
        children = self._known_children()
        while pending:
            current = pending.pop()
            pending.extend(children.pop(current, ()))
            self.folders.discard(current)
            self.opaque.discard(current)
            if current in self.entries:
                self._remove(current)
        return "d"

    def _remove(self, path: str) -> str:
        """Take one entry out; the next hard link to it takes its data over."""
        old = self.entries.pop(path)
        if old.kind == "h":
            group = self._group_of.pop(path)
            del group.names[path]
            if not group.names:
                del self._links[group.data]
        elif path in self._links:
            group = self._links.pop(path)
            heir, _ = group.names.popitem(last=False)
            del self._group_of[heir]
            self.entries[heir] = old._replace(path=heir)
            if group.names:
                group.data = heir  # `finish` tells the others: an archive may replace one name after the other
                self._links[heir] = group
        return old.kind

    def _known_children(self) -> dict[str, set[str]]:
        if self._children is None:
            self._children = {}
            for path in (*self.entries, *self.folders):
                if path:
                    self._children.setdefault(path.rpartition("/")[0], set()).add(path)
        return self._children


def fold(entries: Iterable[Entry]) -> list[Entry]:
    """Return what a layer with these entries consists of, what lies below it being unknown.

    Raises:
        TarError: an entry breaks a rule.
    """
    ledger = Ledger()
    for entry in entries:
        ledger.place(entry)
    return ledger.finish()
