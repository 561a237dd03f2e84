"""MergeOp and DiffOp: chains put on one another, and what one chain has over another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lamina.cancel import Cancel
from lamina.layer.entry import Entry, Item
from lamina.llb.identity import op_digest
from lamina.ops.whole import whole_key, whole_rows
from lamina.ops.worker import Worker
from lamina.snapshot.rows import LayerRef
from lamina.solver.protocol import CacheMap, Dependency, Result, RunContext

if TYPE_CHECKING:
    from lamina.layer.recipe_listing import Row


class MergeOp:
    """The layers of every input on top of those of the ones before; nothing is copied, blobs are shared."""

    def __init__(self, op: Any, worker: Worker) -> None:
        self._numbers = [part.input for part in op.merge.inputs]
        self._count = len(op.inputs)
        self._worker = worker

    def cache_map(self) -> CacheMap:
        """The inputs' identities and their order."""
        order = ",".join(map(str, self._numbers))
        return CacheMap(
            op_digest("merge", order),
            tuple(Dependency() for _ in range(self._count)),
            {"kind": "merge", "order": order},
        )

    def content_key(self, number: int, result: Result, cancel: Cancel) -> str:
        """Return the digest of a whole input; asked only of one without an identity."""
        return whole_key(self._worker, result, cancel)

    def listing(self, number: int, result: Result, cancel: Cancel) -> Iterator[Row]:
        """Iterate over what `content_key` digests."""
        return whole_rows(self._worker, result, cancel)

    def run(self, inputs: Sequence[Result], context: RunContext) -> list[Result]:
        """Rebase every further input's layers onto the chain so far."""
        layers = self._worker.layers
        merged = LayerRef(None)
        for number in self._numbers:
            if number < 0:
                continue
            upper = self._worker.as_layers(inputs[number], context.cancel)
            if merged.layer is None:
                merged = upper
                continue
            for row in layers.rows.chain(upper.layer):
                merged = layers.rebase(row, merged, context.cancel)
        return [merged]


class DiffOp:
    """What the upper chain has over the lower one, on an empty root."""

    def __init__(self, op: Any, worker: Worker) -> None:
        self._lower, self._upper = op.diff.lower.input, op.diff.upper.input
        self._count = len(op.inputs)
        self._worker = worker

    def cache_map(self) -> CacheMap:
        """Which input is which, and their identities."""
        digest = op_digest("diff", str(self._lower), str(self._upper))
        return CacheMap(
            digest,
            tuple(Dependency() for _ in range(self._count)),
            {"kind": "diff", "order": f"{self._lower},{self._upper}"},
        )

    def content_key(self, number: int, result: Result, cancel: Cancel) -> str:
        """Return the digest of a whole input; asked only of one without an identity."""
        return whole_key(self._worker, result, cancel)

    def listing(self, number: int, result: Result, cancel: Cancel) -> Iterator[Row]:
        """Iterate over what `content_key` digests."""
        return whole_rows(self._worker, result, cancel)

    def run(self, inputs: Sequence[Result], context: RunContext) -> list[Result]:
        """Take the layers above a common chain as they are; otherwise compare the merged views."""
        layers, cancel = self._worker.layers, context.cancel
        lower = self._worker.as_layers(inputs[self._lower], cancel) if self._lower >= 0 else LayerRef(None)
        upper = self._worker.as_layers(inputs[self._upper], cancel) if self._upper >= 0 else LayerRef(None)
        below, above = layers.rows.chain(lower.layer), layers.rows.chain(upper.layer)
        if [row.id for row in above[: len(below)]] == [row.id for row in below]:
            result = LayerRef(None)
            for row in above[len(below) :]:
                result = layers.rebase(row, result, cancel)
            return [result]
        items = list(self._compare(lower, upper, cancel))
        return [layers.add_tree(LayerRef(None), items, "diff", cancel)]

    def _compare(self, lower: LayerRef, upper: LayerRef, cancel: Cancel) -> Iterator[Item]:
        """Yield what turns the lower view into the upper one: changed entries with parents, and whiteouts."""
        old, new = self._worker.layers.union(lower, cancel), self._worker.layers.view(upper, cancel)
        emitted: set[str] = set()
        new_union = self._worker.layers.union(upper, cancel)
        for entry in new_union.walk(""):
            cancel.check()
            before = old.lookup(entry.path)
            if entry.path and (before is None or not _same(before, entry)):
                for parent in _parents(entry.path):
                    if parent not in emitted and (found := new_union.lookup(parent)) is not None:
                        emitted.add(parent)
                        yield Item(found)
                if entry.path not in emitted:
                    emitted.add(entry.path)
                    yield Item(entry, new.content(entry) if entry.kind == "f" else None)
        for entry in old.walk(""):
            parent = entry.path.rpartition("/")[0]
            above = new_union.lookup(parent)
            if new_union.lookup(entry.path) is None and above is not None and above.kind == "d":
                yield Item(Entry(entry.path, "w"))


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[: n + 1]) for n in range(len(parts))]


def _same(before: Entry, after: Entry) -> bool:
    """Tell whether two entries describe the same thing, as far as a layer can tell."""
    if before.kind == "d" and after.kind == "d":
        return (before.mode, before.uid, before.gid, before.xattrs) == (after.mode, after.uid, after.gid, after.xattrs)
    return before._replace(digest="", opaque=False) == after._replace(digest="", opaque=False)
