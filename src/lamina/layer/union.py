"""What a chain of layers shows when they are laid one over the other, worked out from their indexes alone.

In: the indexes of a chain, the bottom one first. Out: the entry seen at a path, which layer it comes from, the names
in a directory, paths with their symbolic links resolved. The answers are those overlayfs gives for the unpacked
trees (image-spec layer.md, "Applying Changesets"; Linux Documentation/filesystems/overlayfs.rst, "whiteouts and
opaque directories"): directories merge, the topmost gives owner, mode, times and xattrs; anything else hides all
below it; a whiteout, an opaque directory or a non-directory ends the merging.

A directory that is only implied in a layer (see index.py) takes its metadata from the next one below that has an
entry; without any it is root's, 0755, time 0. Hard links are shown as what they link to.

Nothing is worked out before it is asked for: a path costs one dict lookup for each layer that its directory lies in.
Must not: touch a file system. Not safe for concurrent change, safe for concurrent reading.

    union = Union([base_index, app_index])
    union.lookup(union.resolve("/lib/ld.so"))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lamina.errors import InputError
from lamina.layer.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lamina.layer.index import Index

MAX_LINKS = 255


class Found(NamedTuple):
    """An entry and the number of the layer it was seen in, 0 being the bottom one."""

    entry: Entry
    layer: int


class Union:
    """A read-only view of a chain of layers.

    Attributes:
        indexes: the layers, bottom first.
    """

    __slots__ = ("_folders", "indexes")

    def __init__(self, indexes: Iterable[Index] = ()) -> None:
        self.indexes = tuple(indexes)
        # For each directory asked about: the layers that take part in it, top first; () when it is no directory.
        self._folders: dict[str, tuple[int, ...]] = {"": self._root_layers()}

    def extend(self, index: Index) -> Union:
        """Return this union with one more layer on top; the indexes are shared."""
        return Union((*self.indexes, index))

    def lookup(self, path: str) -> Entry | None:
        """Return what is seen at `path` (the last part is not followed), None when nothing is.

        The entry's `path` is `path`, its `kind` never "h" nor "w", its `opaque` False.
        """
        found = self.find(path)
        return None if found is None else found.entry

    def find(self, path: str) -> Found | None:
        """Return what is seen at `path` and in which layer it lies."""
        if not path:
            return self._root()
        top, layers = self._scan(path, self._layers_of(path.rpartition("/")[0]))
        if top is None:
            return Found(Entry(path, "d", 0o755), layers[0]) if layers else None
        if top.entry.kind == "h":
            return self._unlinked(top)
        return Found(top.entry._replace(opaque=False), top.layer) if top.entry.opaque else top

    def found_in(self, path: str) -> int:
        """Return the number of the layer that `path` is seen in, -1 when it is not there.

        For files this is the layer whose tree holds the content under this very path.
        """
        found = self.find(path)
        return -1 if found is None else found.layer

    def link_group(self, path: str) -> str:
        """Return a name that the hard links of one file share, "" for a file with only this name."""
        if not path:
            return ""
        top, _ = self._scan(path, self._layers_of(path.rpartition("/")[0]))
        if top is None or top.entry.kind not in "fh":
            return ""
        if top.entry.kind == "h":
            return f"{top.layer}:{top.entry.target}"
        return f"{top.layer}:{path}" if path in self.indexes[top.layer].linked else ""

    def exists(self, path: str) -> bool:
        """Tell whether something is seen at `path`, be it a dangling link."""
        return self.find(path) is not None

    def is_dir(self, path: str) -> bool:
        """Tell whether `path` itself is a directory (a link to one is not)."""
        return not path or bool(self._layers_of(path))

    def children(self, path: str) -> list[str]:
        """Return the sorted names in the directory `path`, [] when it is none."""
        seen: dict[str, bool] = {}
        prefix = f"{path}/" if path else ""
        for number in self._layers_of(path):
            index = self.indexes[number]
            for name in index.names(path):
                if name not in seen:
                    whole = prefix + name
                    entry = index.entries.get(whole)
                    seen[name] = entry is None or entry.kind != "w" or whole in index.implied
        return sorted(name for name, visible in seen.items() if visible)

    def walk(self, path: str = "") -> Iterator[Entry]:
        """Yield what is seen at `path` and everything below it: parents first, names sorted in each directory."""
        pending = [path]
        while pending:
            current = pending.pop()
            found = self.find(current)
            if found is None:
                continue
            yield found.entry
            if found.entry.kind == "d":
                prefix = f"{current}/" if current else ""
                pending.extend(prefix + name for name in reversed(self.children(current)))

    def resolve(self, path: str, follow_last: bool = True) -> str:
        """Return `path` with symbolic links followed, see `resolve_path`."""
        return resolve_path(self.lookup, path, follow_last)

    def _root_layers(self) -> tuple[int, ...]:
        numbers = []
        for number in range(len(self.indexes) - 1, -1, -1):
            numbers.append(number)
            root = self.indexes[number].entries.get("")
            if root is not None and root.opaque:
                break
        return tuple(numbers)

    def _root(self) -> Found:
        for number in self._folders[""]:
            entry = self.indexes[number].entries.get("")
            if entry is not None and entry.kind == "d":
                return Found(entry._replace(opaque=False), number)
        return Found(Entry("", "d", 0o755), max(0, len(self.indexes) - 1))

    def _layers_of(self, path: str) -> tuple[int, ...]:
        """Return the layers that make up the directory `path`, top first. A loop: paths may be thousands deep."""
        known = self._folders.get(path)
        if known is not None:
            return known
        pending = [path]
        while (parent := pending[-1].rpartition("/")[0]) not in self._folders:
            pending.append(parent)
        layers = self._folders[parent]
        while pending:
            current = pending.pop()
            layers = self._scan(current, layers)[1] if layers else ()
            self._folders[current] = layers
        return layers

    def _scan(self, path: str, layers: tuple[int, ...]) -> tuple[Found | None, tuple[int, ...]]:
        """Go down the layers of the parent: return the topmost entry, and the layers in which it is a directory."""
        top: Found | None = None
        merged: list[int] = []
        for number in layers:
            index = self.indexes[number]
            entry = index.entries.get(path)
            if entry is None:
                if path in index.implied:
                    merged.append(number)
            elif entry.kind == "d":
                merged.append(number)
                if top is None:
                    top = Found(entry, number)
                if entry.opaque:
                    break
            elif entry.kind == "w":
                if path in index.implied:
                    merged.append(number)
                break
            elif merged:
                break
            else:
                return Found(entry, number), ()
        return top, tuple(merged)

    def _unlinked(self, link: Found) -> Found | None:
        """Return the entry a hard link stands for, under the link's own path and in the link's layer."""
        path, target = link.entry.path, link.entry.target
        data = self.indexes[link.layer].entries.get(target)
        if data is None or data.kind == "w":
            # A layer made by other tools may link to a file of the layers below.
            data = Union(self.indexes[: link.layer]).lookup(target)
        if data is None or data.kind in "dh":
            return None
        return Found(data._replace(path=path), link.layer)


def clean_path(path: str) -> str:
    """Return `path` as entries have it: relative to the root, without ".", ".." (clipped at the root), empty parts."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if parts:
                parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def resolve_path(lookup: Callable[[str], Entry | None], path: str, follow_last: bool = True) -> str:
    """Return where `path` leads when its symbolic links are followed inside the root.

    Parts that are missing stay as they are, so that the answer is also where something new would come to be.

    Args:
        lookup: what is at a path without links in it.
        path: any path; "/" and "" are the root, ".." of the root is the root.
        follow_last: whether a link in the last part is followed too.

    Raises:
        InputError: more than 255 links were met.
    """
    clean = clean_path(path)
    done = ""
    pending = clean.split("/")[::-1] if clean else []
    links = 0
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = done.rpartition("/")[0]
            continue
        step = f"{done}/{part}" if done else part
        entry = lookup(step) if pending or follow_last else None
        if entry is None or entry.kind != "l":
            done = step
            continue
        links += 1
        if links > MAX_LINKS:
            hint = "a link leads to itself: remove it, or name another path"
            raise InputError(f"too many symbolic links in /{clean}", where=f"/{clean}", hint=hint)
        if entry.target.startswith("/"):
            done = ""
        pending.extend(entry.target.split("/")[::-1])
    return done
