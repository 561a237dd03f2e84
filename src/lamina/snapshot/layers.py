"""The layers of one store: their three forms on disk, and the making of one form from another.

A layer is made as a *tree* (the upper directory of a step, a recipe written out) or as a *blob* (a recipe packed
straight from its sources, a pulled layer). The missing form is made when somebody asks: `tree()` unpacks,
`pack()` packs. The index is made in passing by whichever form came first.

Invariants: a row is added after its first form is complete on disk; forms appear by rename; two makers of one
form are kept apart by a lock, also across processes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lamina.cancel import Cancel
from lamina.errors import StorageError
from lamina.layer.blob import Packed, pack, scan
from lamina.layer.compress import Compression
from lamina.layer.entry import Content, Entry, Item
from lamina.layer.index import Index
from lamina.layer.tree import TreeWriter, remove_tree, settle, tree_items, unpack, walk_tree
from lamina.layer.union import Union
from lamina.layer.view import ChainView
from lamina.oci.chain import extend_chain
from lamina.oci.digest import Digest
from lamina.snapshot.claim import Claim, ClaimingWriter, disk_bytes
from lamina.snapshot.rows import LayerGoneError, LayerRef, LayerRow, LayerRows, parse_origin_index
from lamina.state.db import State
from lamina.state.locks import Locks
from lamina.store.store import Store

Fetch = Callable[[LayerRow, Cancel], None]
"""Brings a remote layer's blob into the store, verified."""

Borrow = Callable[[LayerRow, Cancel], Index | None]
"""Returns a remote layer's index without its blob, where somebody keeps it; it is believed until the blob is here."""

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Layers:
    """All layers below one root directory. Thread-safe.

    Args:
        root: the state directory; trees and indexes lie in it.
        flavour: name space of overlay's xattrs, "trusted" as root, "user" in a user namespace.
        work: directory on the same file system for what is being made.
        fetch: how blobs of remote layers come.
        borrow: how indexes of remote layers come.
    """

    def __init__(
        self,
        root: Path,
        state: State,
        store: Store,
        locks: Locks,
        *,
        flavour: str,
        work: Path,
        fetch: Fetch,
        borrow: Borrow | None = None,
    ) -> None:
        self.rows = LayerRows(state)
        self.store = store
        self.flavour = flavour
        self._root = root
        self._locks = locks
        self._work = work
        self._fetch, self._borrow = fetch, borrow
        self._indexes: dict[int, Index] = {}
        self._unions: dict[int, Union] = {}
        self._guard = threading.Lock()
        self._serial = 0
        for name in ("trees", "indexes"):
            (root / name).mkdir(parents=True, exist_ok=True)

    # -- where things lie

    def tree_path(self, layer: int) -> Path:
        """Return where a layer's tree is (or would be). Short, so that long chains fit one mount call."""
        return self._root / "trees" / _base36(layer)

    def index_path(self, layer: int) -> Path:
        """Return where a layer's index is (or would be)."""
        return self._root / "indexes" / _base36(layer)

    def scratch(self, kind: str) -> Path:
        """Return a new path in the work directory; nothing is there yet."""
        with self._guard:
            self._serial += 1
            return self._work / f"{kind}{self._serial}"

    # -- looking

    def index(self, row: LayerRow, cancel: Cancel) -> Index:
        """Return a layer's index, making it from the tree or by one pass over the blob."""
        with self._guard:
            known = self._indexes.get(row.id)
        if known is not None:
            return known
        if row.indexed:
            try:
                return self._remember(row.id, Index.load(self.index_path(row.id)))
            except (StorageError, FileNotFoundError):
                pass  # it is derived: made again below
        with self._making("index", row.id, cancel):
            row = self.rows.get(row.id)
            below = _LazyUnion(self, row.parent, cancel)
            if row.tree and (row.blob is None or not self.store.has(Digest(row.blob))):
                return self._keep_index(row.id, self._read_upper(self.tree_path(row.id), below))
            if self._borrow is not None and (borrowed := self._borrow(row, cancel)) is not None:
                return self._keep_index(row.id, borrowed)
            self._fetch_missing(row, cancel)
            assert row.blob is not None
            with self.store.open(Digest(row.blob)) as stream:
                expected = Digest(row.diff_id) if row.diff_id else None
                entries, _ = scan(stream, expected=expected, cancel=cancel, lower=below)
            return self._keep_index(row.id, entries)

    def union(self, ref: LayerRef, cancel: Cancel) -> Union:
        """Return the merged view over a chain's indexes."""
        if ref.layer is None:
            return Union([])
        with self._guard:
            known = self._unions.get(ref.layer)
        if known is not None:
            return known
        merged = Union([])
        for row in self.rows.chain(ref.layer):
            with self._guard:
                known = self._unions.get(row.id)
            merged = known or merged.extend(self.index(row, cancel))
            with self._guard:
                self._unions[row.id] = merged
        return merged

    def view(self, ref: LayerRef, cancel: Cancel) -> ChainView:
        """Return the chain as something files can be copied from; trees are made as content is asked for."""
        rows = self.rows.chain(ref.layer)
        return ChainView(self.union(ref, cancel), lambda number: str(self.tree(rows[number], cancel)))

    # -- trees

    def tree(self, row: LayerRow, cancel: Cancel) -> Path:
        """Return a layer's tree, unpacking its blob if need be."""
        path = self.tree_path(row.id)
        if row.tree:
            return path
        with self._making("tree", row.id, cancel):
            row = self.rows.get(row.id)
            if not row.tree:
                self._fetch_missing(row, cancel)
                self._unpack(row, path, cancel)
        return path

    def trees(self, ref: LayerRef, cancel: Cancel) -> list[str]:
        """Return the directories an overlay of this chain is made of, topmost first."""
        rows = self.rows.chain(ref.layer)
        missing = [row for row in rows if not row.tree and (row.blob is None or not self.store.has(Digest(row.blob)))]
        if len(missing) > 1:
            self._fetch_all(missing, cancel)
        return [str(self.tree(row, cancel)) for row in rows][::-1]

    def _unpack(self, row: LayerRow, path: Path, cancel: Cancel) -> None:
        assert row.blob is not None
        making = self.scratch("t")
        making.mkdir()
        try:
            below = _LazyUnion(self, row.parent, cancel)
            with Claim(self.store.space) as claim:
                writer = ClaimingWriter(making, self.flavour, below, below.content, cancel)
                writer.claim = claim
                with self.store.open(Digest(row.blob)) as stream:
                    expected = Digest(row.diff_id) if row.diff_id else None
                    entries = unpack(stream, writer, expected=expected, cancel=cancel)
                self._check_borrowed(row, entries)
                self._publish_tree(making, path)
                self._keep_index(row.id, entries)
                self.rows.update(row.id, tree=1, tree_bytes=disk_bytes(entries))
        except BaseException:
            remove_tree(making)
            raise

    def _check_borrowed(self, row: LayerRow, entries: Iterable[Entry]) -> None:
        """Make sure that an index that came without its layer told the truth; keys and paths were made of it.

        Raises:
            LayerGoneError: it did not.
        """
        if not row.origin or parse_origin_index(row.origin) is None or not row.indexed:
            return
        borrowed = Index.load(self.index_path(row.id)).entries
        if borrowed != Index.from_entries(entries).entries:
            self.index_path(row.id).unlink(missing_ok=True)
            raise LayerGoneError(
                "a layer's index does not describe the layer", row.id, row.origin, where=row.blob or ""
            )

    def _publish_tree(self, making: Path, path: Path) -> None:
        if path.exists():  # left by a crash between rename and record
            doomed = self.scratch("x")
            os.rename(path, doomed)
            remove_tree(doomed)
        os.rename(making, path)

    # -- new layers

    def new_upper(self, parent: LayerRef, cancel: Cancel) -> Path:
        """Return an empty directory for a step's writes, with the metadata of the chain's root directory."""
        path = self.scratch("u")
        path.mkdir(mode=0o755)
        root = self.union(parent, cancel).lookup("") if parent.layer is not None else None
        if root is not None:
            os.chown(path, root.uid, root.gid)
            os.chmod(path, root.mode)
        else:
            os.chmod(path, 0o755)
        return path

    def add_upper(self, parent: LayerRef, upper: Path, description: str) -> LayerRef:
        """Make a step's upper directory a layer on `parent`."""
        entries = self._read_upper(upper, _LazyUnion(self, parent.layer, Cancel()))
        return self._adopt(parent, upper, entries, description)

    def _read_upper(self, tree: Path, below: _LazyUnion) -> list[Entry]:
        return settle(walk_tree(tree, self.flavour, below.lookup("")), below)

    def _adopt(self, parent: LayerRef, tree: Path, entries: list[Entry], description: str) -> LayerRef:
        """Make a finished tree a layer; on a failure neither it nor its row stays."""
        with Claim(self.store.space) as claim:
            claim.more(disk_bytes(entries))
            new = self.rows.add(parent.layer, description=description, size=sum(entry.size for entry in entries))
            try:
                self._publish_tree(tree, self.tree_path(new))
                self._keep_index(new, entries)
                self.rows.update(new, tree=1, tree_bytes=disk_bytes(entries))
            except BaseException:
                self._forget(new)
                raise
            return LayerRef(new)

    def _forget(self, layer: int) -> None:
        with self._guard:
            self._indexes.pop(layer, None)
        self.rows.discard(layer)
        remove_tree(self.tree_path(layer))
        self.index_path(layer).unlink(missing_ok=True)

    def add_tree(self, parent: LayerRef, items: Iterable[Item], description: str, cancel: Cancel) -> LayerRef:
        """Write a recipe out as a tree and make it a layer on `parent`."""
        making = self.scratch("t")
        making.mkdir(mode=0o755)
        try:
            below = _LazyUnion(self, parent.layer, cancel)
            with Claim(self.store.space) as claim, TreeWriter(making, self.flavour, below, None, cancel) as writer:
                for entry, content in items:
                    claim.entry(entry)
                    writer.add(entry, content)
                entries = writer.finish()
            return self._adopt(parent, making, entries, description)
        except BaseException:
            remove_tree(making)
            raise

    def add_blob(
        self, parent: LayerRef, items: Iterable[Item], description: str, compression: Compression, cancel: Cancel
    ) -> LayerRef:
        """Pack a recipe straight into a blob, in one pass, and make it a layer on `parent`."""
        packed = self._pack(items, compression, cancel)
        new = self.rows.add(parent.layer, description=description, **self._columns(packed, parent.layer))
        self._keep_index(new, packed.entries)
        return LayerRef(new)

    def add_remote(self, parent: int | None, *, diff_id: Digest, **values: Any) -> int:
        """Return the row of a pulled layer on `parent`, adding it when its chain is not known yet."""
        below = self.rows.get(parent).chain_id if parent is not None else None
        whole = extend_chain(Digest(below) if below else None, diff_id)
        known = self.rows.by_chain_id(whole)
        if known is not None and known.parent == parent:
            if known.blob is None or (not known.tree and not self.store.has(Digest(known.blob))):
                self.rows.update(known.id, **values)
            return known.id
        return self.rows.add(parent, chain_id=whole, diff_id=diff_id, **values)

    def rebase(self, row: LayerRow, parent: LayerRef, cancel: Cancel) -> LayerRef:
        """Return the same change set on another chain; the blob and the index are shared, the tree is not."""
        if row.parent == parent.layer:
            return LayerRef(row.id)
        index = self.index(row, cancel)
        values: dict[str, Any] = {"size": row.size, "description": row.description}
        packed = row if row.blob is not None else self.pack(row, Compression("gzip", None), cancel)
        values |= {"blob": packed.blob, "blob_size": packed.blob_size, "media_type": packed.media_type}
        values |= {"diff_id": packed.diff_id, "origin": packed.origin}
        values["chain_id"] = self._chain_id(parent.layer, packed.diff_id)
        new = self.rows.add(parent.layer, **values)
        index.save(self.index_path(new))
        self.rows.update(new, indexed=1, index_bytes=os.stat(self.index_path(new)).st_size)
        return LayerRef(new)

    # -- blobs

    def pack(self, row: LayerRow, compression: Compression, cancel: Cancel) -> LayerRow:
        """Return the row with its blob in the store, packing the tree (or fetching the blob) if need be."""
        if row.blob is not None and row.diff_id is not None and self.store.has(Digest(row.blob)):
            return row
        with self._making("blob", row.id, cancel):
            row = self.rows.get(row.id)
            if row.blob is not None and (row.origin or self.store.has(Digest(row.blob))):
                self._fetch_missing(row, cancel)
            else:
                index = self.index(row, cancel)
                items = tree_items(self.tree_path(row.id), list(index.entries.values()))
                packed = self._pack(items, compression, cancel)
                self._keep_index(row.id, packed.entries)
                self.rows.update(row.id, **self._columns(packed, row.parent))
        return self.rows.get(row.id)

    def name_chain(self, row: LayerRow) -> LayerRow:
        """Return the row with its chainID, once everything below has one."""
        if row.chain_id is None and (whole := self._chain_id(row.parent, row.diff_id)) is not None:
            self.rows.update(row.id, chain_id=whole)
            return self.rows.get(row.id)
        return row

    def _pack(self, items: Iterable[Item], compression: Compression, cancel: Cancel) -> Packed:
        with self.store.ingest() as ingest:
            return pack(items, ingest, compression, cancel)

    def _columns(self, packed: Packed, parent: int | None) -> dict[str, Any]:
        return {
            "diff_id": packed.diff_id,
            "chain_id": self._chain_id(parent, packed.diff_id),
            "blob": packed.digest,
            "blob_size": packed.size,
            "media_type": packed.media_type,
            "size": sum(entry.size for entry in packed.entries),
        }

    def _chain_id(self, parent: int | None, diff_id: str | None) -> str | None:
        """Return the chainID of a layer on `parent`, None while something below has not been packed."""
        if diff_id is None:
            return None
        below = self.rows.get(parent).chain_id if parent is not None else None
        if parent is not None and below is None:
            return None
        return extend_chain(Digest(below) if below else None, Digest(diff_id))

    def _fetch_missing(self, row: LayerRow, cancel: Cancel) -> None:
        if row.blob is None or not self.store.has(Digest(row.blob)):
            if not row.origin:
                raise StorageError(
                    f"layer {row.id} has neither a tree nor a blob any more",
                    where=row.blob or row.description,
                    hint="run `lamina prune` and build again",
                )
            self._fetch(row, cancel)

    def _fetch_all(self, rows: list[LayerRow], cancel: Cancel) -> None:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(4, thread_name_prefix="fetch") as pool:
            for done in [pool.submit(self._fetch_missing, row, cancel) for row in rows]:
                done.result()

    # -- small things

    def _keep_index(self, layer: int, entries: Iterable[Entry] | Index) -> Index:
        index = entries if isinstance(entries, Index) else Index.from_entries(entries)
        index.save(self.index_path(layer))
        self.rows.update(layer, indexed=1, index_bytes=os.stat(self.index_path(layer)).st_size)
        return self._remember(layer, index)

    def _remember(self, layer: int, index: Index) -> Index:
        with self._guard:
            self._indexes[layer] = index
        return index

    @contextmanager
    def _making(self, what: str, layer: int, cancel: Cancel) -> Iterator[None]:
        with self._locks.hold(f"{what}:{layer}", cancel):
            yield


class _LazyUnion:
    """The chain below a tree under construction, merged only if somebody asks."""

    def __init__(self, layers: Layers, parent: int | None, cancel: Cancel) -> None:
        self._layers, self._parent, self._cancel = layers, parent, cancel

    def lookup(self, path: str) -> Entry | None:
        """Return what the chain below has at `path`."""
        if self._parent is None:
            return None
        return self._layers.union(LayerRef(self._parent), self._cancel).lookup(path)

    def content(self, entry: Entry) -> Content:
        """Return where the content of a file that `lookup` showed lies; makes the tree it is in."""
        return self._layers.view(LayerRef(self._parent), self._cancel).content(entry)


def _base36(number: int) -> str:
    text = ""
    while True:
        number, digit = divmod(number, 36)
        text = DIGITS[digit] + text
        if number == 0:
            return text
