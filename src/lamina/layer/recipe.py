"""A layer as a recipe: file actions over a chain, worked out on indexes alone.

In: the union of the chain below, and actions in the order of a FileOp (mkdir, mkfile, symlink, rm, copy). Out: the
items of the new layer in tar order, its index, and the union with it on top. No file is written and no mount made;
contents stay where they are until somebody packs or unpacks the items. The result equals what the same actions on an
overlay mount would leave in its upper directory (property-tested against overlayfs), but that directories which only
got new entries keep their modification time: two builds give one digest.

    plan = Plan(union, now_ns=now)
    plan.copy(view, "src", "/app/", CopyOptions(dir_copy_contents=True, create_dest_path=True))
    for item in plan.items(): ...
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from lamina.errors import InputError
from lamina.layer.entry import Content, Entry, FileSlice, Item
from lamina.layer.index import Index
from lamina.layer.recipe_copy import Copier
from lamina.layer.recipe_digest import content_digest
from lamina.layer.recipe_draft import Draft
from lamina.layer.recipe_options import MAX_USER_FILE, CopyOptions, Owner, parse_mode, parse_owner
from lamina.layer.recipe_source import find_sources
from lamina.layer.recipe_view import PlanView

if TYPE_CHECKING:
    from lamina.layer.recipe_copy import Unpack
    from lamina.layer.union import Union
    from lamina.layer.view import View

__all__ = ["MAX_USER_FILE", "CopyOptions", "Plan", "PlanView", "content_digest", "parse_mode", "parse_owner"]


class Plan:
    """File actions over a chain, collected into one layer.

    Args:
        base: the chain below.
        now_ns: modification time of what has no source to take it from.
        unpack: gives the items of an archive (None when the file is none); needed for copies that unpack.
    """

    def __init__(self, base: Union, *, now_ns: int = 0, unpack: Unpack | None = None) -> None:
        self.base = base
        self._draft = Draft(base)
        self._now = now_ns
        self._unpack = unpack
        self._copies = 0

    def mkdir(
        self,
        path: str,
        mode: int = 0o755,
        *,
        make_parents: bool = False,
        owner: Owner | None = None,
        timestamp_ns: int | None = None,
    ) -> None:
        """Make a directory; one that is there stays as it is.

        Raises:
            InputError: a parent is missing (without `make_parents`), or something else is in the way.
        """
        target = self._draft.resolve(path)
        time_ns = self._time(timestamp_ns)
        if make_parents:
            self._draft.make_dirs(target, mode & 0o777, owner, time_ns)
        elif self._draft.lookup(target) is None:
            self._check_parent(target)
            uid, gid = owner or (0, 0)
            self._draft.put(Entry(target, "d", mode & 0o777, uid, gid, time_ns))

    def mkfile(
        self,
        path: str,
        data: bytes,
        mode: int = 0o644,
        *,
        owner: Owner | None = None,
        timestamp_ns: int | None = None,
    ) -> None:
        """Write a file; one that is there keeps its mode, and its owner unless one is given.

        Raises:
            InputError: the parent is missing, or something that is no file is in the way.
        """
        target = self._draft.resolve(path)
        self._check_parent(target)
        there = self._draft.lookup(target)
        uid, gid = owner or (0, 0)
        if there is None:
            new = Entry(target, "f", mode & 0o777, uid, gid)
        elif there.kind != "f":
            raise InputError(f"cannot write the file /{target}: something else is there", where=f"/{target}")
        else:
            # As write(2) and chown(2) leave it: capabilities go, setuid goes with a change of owner.
            kept = tuple(pair for pair in there.xattrs if pair[0] != "security.capability")
            new = there._replace(xattrs=kept)
            if owner is not None:
                new = new._replace(uid=uid, gid=gid, mode=new.mode & ~0o6000)
        digest = hashlib.sha256(data).hexdigest()
        self._draft.put(new._replace(size=len(data), digest=digest, mtime_ns=self._time(timestamp_ns)), data)

    def symlink(self, target: str, path: str, *, owner: Owner | None = None, timestamp_ns: int | None = None) -> None:
        """Make a symbolic link at `path` with the text `target`.

        Raises:
            InputError: something is there, or the parent is missing.
        """
        place = self._draft.resolve(path)
        self._check_parent(place)
        if self._draft.lookup(place) is not None:
            raise InputError(f"cannot make the symbolic link /{place}: something is there", where=f"/{place}")
        uid, gid = owner or (0, 0)
        self._draft.put(Entry(place, "l", 0o777, uid, gid, self._time(timestamp_ns), target=target))

    def rm(self, path: str, *, allow_not_found: bool = False, wildcard: bool = False) -> None:
        """Remove a path with all below it; a link is removed, not what it points to.

        Raises:
            InputError: nothing is there (unless allowed), or it is the root.
        """
        paths = [path]
        if wildcard:
            options = CopyOptions(allow_wildcard=True, allow_empty_wildcard=True)
            try:
                paths = [source.path for source in find_sources(PlanView(self, None), path, options)]
            except InputError:
                if not allow_not_found:
                    raise
        for one in paths:
            self._remove(one, allow_not_found)

    def copy(self, view: View, src: str, dest: str, options: CopyOptions) -> None:
        """Copy from a view; see `CopyOptions` and recipe_copy.py for what the options do.

        Args:
            view: the tree to read from. It must live as long as the plan.
            src: path or pattern in the view; ".." is clipped at its root.
            dest: path in this tree; a trailing "/" means a directory.
            options: how.

        Raises:
            InputError: nothing there, or something in the way.
        """
        self._copies += 1
        copier = Copier(self._draft, view, options, now_ns=self._now, serial=str(self._copies), unpack=self._unpack)
        copier.copy(src, dest)

    def lookup(self, path: str) -> Entry | None:
        """Return what is seen at `path` after the actions so far, links not followed."""
        return self._draft.lookup(path)

    def children(self, path: str) -> list[str]:
        """Return the sorted names in a directory after the actions so far."""
        return self._draft.children(path)

    def resolve(self, path: str, follow_last: bool = True) -> str:
        """Return `path` with links followed, after the actions so far."""
        return self._draft.resolve(path, follow_last)

    def is_empty(self) -> bool:
        """Tell whether the actions changed nothing."""
        return not self._draft.own

    def content(self, path: str) -> Content:
        """Return the content of a file that the actions made, None when they did not."""
        origin = self._draft.contents.get(path)
        return origin[0].content(origin[1]) if isinstance(origin, tuple) else origin

    def digest(self, path: str) -> str:
        """Return the sha256 of a file that the actions made.

        Raises:
            InputError: its source cannot be read.
        """
        origin = self._draft.contents.get(path)
        if isinstance(origin, tuple):
            return origin[0].digest(origin[1])
        if isinstance(origin, FileSlice):
            return origin.digest or self._draft.own[path].digest
        return hashlib.sha256(origin or b"").hexdigest()

    def made(self, path: str) -> bool:
        """Tell whether `path` is in this plan's layer (copied-up parents included)."""
        return path in self._draft.own

    def link_group(self, path: str) -> str:
        """Return a name that the hard links of one file made here share, "" for a file with one name."""
        return self._draft.groups.get(path, "")

    def items(self) -> list[Item]:
        """Return the layer in tar order: parents before children, names sorted, hard links after what they link to.

        Digests of files are filled in where the view knows them by now.
        """
        draft = self._draft
        first: dict[str, Entry] = {}
        items: list[Item] = []
        # No name holds a NUL, so that a directory's entries sort right after it.
        for path in sorted(draft.own, key=lambda path: path.replace("/", "\0")):
            entry = draft.own[path]
            group = draft.groups.get(path)
            if group:
                data = first.setdefault(group, entry)
                if data is not entry:
                    items.append(Item(_link(entry, data)))
                    continue
            if entry.kind != "f":
                items.append(Item(entry))
                continue
            content = self.content(path)
            if not entry.digest and isinstance(content, FileSlice) and content.digest:
                entry = entry._replace(digest=content.digest)
            items.append(Item(entry, content))
        return items

    def index(self) -> Index:
        """Return the layer's index as far as it is known before anything is read."""
        return Index.from_entries(item.entry for item in self.items())

    def union(self) -> Union:
        """Return the chain with this layer on top."""
        return self.base.extend(self.index())

    def _time(self, timestamp_ns: int | None) -> int:
        return self._now if timestamp_ns is None else timestamp_ns

    def _check_parent(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        entry = self._draft.lookup(parent)
        if entry is None or entry.kind != "d":
            raise InputError(f"no directory /{parent} to make /{path} in", where=f"/{path}")

    def _remove(self, path: str, allow_not_found: bool) -> None:
        target = self._draft.resolve(path, follow_last=False)
        if not target:
            raise InputError("the root directory cannot be removed", where=path)
        if self._draft.lookup(target) is not None:
            self._draft.remove(target)
        elif not allow_not_found:
            raise InputError(f"nothing to remove at /{target}", where=f"/{target}")


def _link(entry: Entry, data: Entry) -> Entry:
    """Return a hard link to `data`; the metadata are the file's, whatever name it is looked at by."""
    return data._replace(path=entry.path, kind="h", target=data.path, size=0, digest="")
