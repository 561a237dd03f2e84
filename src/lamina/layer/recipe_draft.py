"""A layer that is being written over a chain, without a mount.

In: the union below, and changes one by one. Out: the entries of the new layer. The rules are those of an overlayfs
upper directory: whatever is changed brings its parents along with the metadata they have below (copied up); what is
removed leaves a whiteout if it was there below; a directory made where one was removed is opaque, and no other is.

Invariants: `own` holds the parents (not the root) of everything in it; below a path in `_cuts` nothing of the base is
seen any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamina.errors import InputError
from lamina.layer.entry import Entry
from lamina.layer.union import resolve_path

if TYPE_CHECKING:
    from lamina.layer.entry import Content
    from lamina.layer.recipe_options import Owner
    from lamina.layer.union import Union
    from lamina.layer.view import View

Origin = tuple["View", Entry]
"""A file of a view; its content is asked for when the layer is written."""


class Draft:
    """The layer under construction, and the tree as seen through it.

    Attributes:
        base: the chain below.
        own: what this layer will have, whiteouts included.
        contents: where the bytes of the files in `own` come from.
        groups: the name that hard links of one file share.
    """

    def __init__(self, base: Union) -> None:
        self.base = base
        self.own: dict[str, Entry] = {}
        self.contents: dict[str, Content | Origin] = {}
        self.groups: dict[str, str] = {}
        self._names: dict[str, set[str]] = {}
        self._cuts: set[str] = set()

    def lookup(self, path: str) -> Entry | None:
        """Return what is seen at `path` now, links not followed."""
        entry = self.own.get(path)
        if entry is not None:
            return None if entry.kind == "w" else entry
        if self._cuts and self._is_cut(path):
            return None
        return self.base.lookup(path)

    def children(self, path: str) -> list[str]:
        """Return the sorted names in a directory."""
        mine = self._names.get(path, set())
        prefix = f"{path}/" if path else ""
        names = {name for name in mine if self.own[prefix + name].kind != "w"}
        if not (self._cuts and self._is_cut(path)) and self._is_dir(path):
            names.update(name for name in self.base.children(path) if name not in mine)
        return sorted(names)

    def resolve(self, path: str, follow_last: bool = True) -> str:
        """Return `path` with links followed inside the root."""
        return resolve_path(self.lookup, path, follow_last)

    def put(self, entry: Entry, content: Content | Origin = None, group: str = "") -> None:
        """Set what is at `entry.path`, taking its parents into this layer.

        The parent must be a directory. A directory that is there and to become something else must be removed first.
        """
        path = entry.path
        parent, _, name = path.rpartition("/")
        if parent and parent not in self.own:
            self._copy_up(parent)
        if entry.kind == "d" and path in self._cuts and not entry.opaque:
            entry = entry._replace(opaque=True)
        self.own[path] = entry
        try:
            self._names[parent].add(name)
        except KeyError:
            self._names[parent] = {name}
        if entry.kind == "f":
            self.contents[path] = content
        else:
            self.contents.pop(path, None)
        if group:
            self.groups[path] = group
        else:
            self.groups.pop(path, None)

    def remove(self, path: str) -> None:
        """Remove `path` with all below it; nothing happens when it is not there."""
        pending = [path]
        while pending:
            current = pending.pop()
            pending.extend(f"{current}/{name}" for name in self._names.pop(current, ()))
            self.own.pop(current, None)
            self.contents.pop(current, None)
            self.groups.pop(current, None)
        parent, _, name = path.rpartition("/")
        self._names.get(parent, set()).discard(name)
        if self._cuts and self._is_cut(parent):
            return
        below = self.base.lookup(path)
        if below is not None:
            if below.kind == "d":
                self._cuts.add(path)
            self.put(Entry(path, "w"))

    def make_dirs(self, path: str, mode: int, owner: Owner | None, time_ns: int) -> bool:
        """Make the directories of a resolved path that are missing; tell whether the last one was.

        Raises:
            InputError: something else is in the way.
        """
        made = False
        done = ""
        for part in path.split("/") if path else ():
            done = f"{done}/{part}" if done else part
            entry = self.lookup(done)
            made = entry is None
            if entry is None:
                uid, gid = owner or (0, 0)
                self.put(Entry(done, "d", mode, uid, gid, time_ns))
            elif entry.kind != "d":
                hint = f"choose another place, or remove /{done} in a step before"
                raise InputError(
                    f"cannot make the directory /{path}: /{done} is not a directory", where=f"/{done}", hint=hint
                )
        return made

    def touch(self, path: str) -> None:
        """Take a directory that is only below into this layer, unchanged."""
        if path and path not in self.own:
            self._copy_up(path)

    def _copy_up(self, path: str) -> None:
        while path and path not in self.own:
            entry = self.base.lookup(path)
            if entry is None or entry.kind != "d":
                raise InputError(f"/{path} is not a directory", where=f"/{path}")
            self.own[path] = entry
            parent, _, name = path.rpartition("/")
            self._names.setdefault(parent, set()).add(name)
            path = parent

    def _is_dir(self, path: str) -> bool:
        entry = self.lookup(path)
        return entry is not None and entry.kind == "d"

    def _is_cut(self, path: str) -> bool:
        """Tell whether the base is hidden at `path`."""
        while path:
            if path in self._cuts:
                return True
            path = path.rpartition("/")[0]
        return False
