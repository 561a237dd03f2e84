"""What COPY reads from: a tree of entries with contents, wherever they lie.

`View` is the protocol: a live directory (source.context), a chain of layers (`ChainView`), an archive. It answers
like lstat(2): paths are relative to the view's root, without links in their parents; `resolve` removes those.

Invariants: the same path gets the same answer for as long as the view lives; a content that is packed has the digest
the view told (what changes meanwhile is found out when it is read, by `FileSlice.digest`).
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Protocol

from lamina.errors import InputError
from lamina.layer.entry import FileSlice
from lamina.layer.union import resolve_path
from lamina.rooted import open_beneath, open_root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamina.layer.entry import Content, Entry
    from lamina.layer.union import Union

_CHUNK = 1 << 20


class View(Protocol):
    """A readable tree. All paths are relative to its root, "" being the root itself."""

    @property
    def name(self) -> str:
        """What to call the view in a message to the user, such as "the build context"."""

    @property
    def counting(self) -> str:
        """Name of the rule by which modes and hard links count in content keys; "" when they do exactly as they are.

        Keys made by different rules are never equal.
        """

    def counted_mode(self, entry: Entry) -> int:
        """Return what counts of the mode of a file or directory that `lookup` returned."""

    def lookup(self, path: str) -> Entry | None:
        """Return the entry at `path` (not followed; never of kind "h" or "w"), None when nothing is there."""

    def children(self, path: str) -> list[str]:
        """Return the sorted names in the directory `path`."""

    def resolve(self, path: str, follow_last: bool = True) -> str:
        """Return `path` with symbolic links followed inside the root.

        Raises:
            InputError: too many links.
        """

    def content(self, entry: Entry) -> Content:
        """Return where the bytes of a file that `lookup` returned come from; None for what is no file."""

    def digest(self, entry: Entry) -> str:
        """Return the sha256 of the file's content in hex.

        Raises:
            InputError: the file cannot be read, or changed while it was.
        """

    def digests(self, entries: Sequence[Entry]) -> list[str]:
        """Return the digests of many files, in their order; may use threads."""

    def link_group(self, entry: Entry) -> str:
        """Return a name that all hard links of one file share, "" for a file with one name."""

    def why_missing(self, path: str) -> str:
        """Return why `path` is not in the view although the user may see it ("" when it just is not there)."""


class ChainView:
    """The merged tree of a chain of layers, as a source to copy from.

    Args:
        union: the merged indexes of the chain.
        tree: gives the absolute path of a layer's tree by the layer's number; called only when content is needed,
            at most once a layer.
        name: what to call it in messages.
    """

    def __init__(self, union: Union, tree: Callable[[int], str], name: str = "the image") -> None:
        self.union = union
        self._tree = tree
        self._trees: dict[int, str] = {}
        self._digests: dict[tuple[int, str], str] = {}
        self._name = name

    @property
    def name(self) -> str:
        """What to call the view in messages."""
        return self._name

    @property
    def counting(self) -> str:
        """Say that everything counts as it is."""
        return ""

    def counted_mode(self, entry: Entry) -> int:
        """Return the mode: a layer's were decided by the build that made it."""
        return entry.mode

    def lookup(self, path: str) -> Entry | None:
        """Return the entry at `path`."""
        return self.union.lookup(path)

    def children(self, path: str) -> list[str]:
        """Return the sorted names in a directory."""
        return self.union.children(path)

    def resolve(self, path: str, follow_last: bool = True) -> str:
        """Return `path` with links followed inside the root."""
        return resolve_path(self.union.lookup, path, follow_last)

    def content(self, entry: Entry) -> Content:
        """Return the file's place in the tree of its layer."""
        if entry.kind != "f":
            return None
        layer = self.union.found_in(entry.path)
        digest = entry.digest or self._digests.get((layer, entry.path), "")
        return FileSlice(self._tree_of(layer), entry.path, 0, digest)

    def digest(self, entry: Entry) -> str:
        """Return the digest the index has, or hash the file in its tree.

        Raises:
            InputError: the file in the tree cannot be read or has another size.
        """
        if entry.digest:
            return entry.digest
        key = (self.union.found_in(entry.path), entry.path)
        known = self._digests.get(key)
        if known is None:
            known = self._digests[key] = _hash_file(self._tree_of(key[0]), entry)
        return known

    def digests(self, entries: Sequence[Entry]) -> list[str]:
        """Return the digests of many files."""
        return [self.digest(entry) for entry in entries]

    def link_group(self, entry: Entry) -> str:
        """Return the common name of hard links in one layer."""
        return self.union.link_group(entry.path)

    def why_missing(self, path: str) -> str:
        """Return "": an image hides nothing."""
        return ""

    def _tree_of(self, layer: int) -> str:
        tree = self._trees.get(layer)
        if tree is None:
            tree = self._trees[layer] = self._tree(layer)
        return tree


def _hash_file(tree: str, entry: Entry) -> str:
    """Hash a file of a tree, opened beneath it."""
    try:
        root = open_root(tree)
        try:
            fd = open_beneath(root, entry.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        finally:
            os.close(root)
        try:
            digest, size = hash_descriptor(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise InputError(f"cannot read a file of a layer: {error.strerror}", where=f"/{entry.path}") from error
    if size != entry.size:
        raise InputError(f"a file of a layer has {size} bytes, its index says {entry.size}", where=f"/{entry.path}")
    return digest


def hash_descriptor(fd: int) -> tuple[str, int]:
    """Read a descriptor to its end and return the sha256 in hex and the number of bytes."""
    state = hashlib.sha256()
    size = 0
    while chunk := os.read(fd, _CHUNK):
        state.update(chunk)
        size += len(chunk)
    return state.hexdigest(), size
