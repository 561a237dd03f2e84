"""Packs layers that will be exported while later steps still run.

One thread, because packing is what the processor would otherwise do at the end: it starts early instead of
running wider. What was finished is kept; cancelling the build cancels the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from lamina.cancel import Cancel
from lamina.layer.compress import Compression
from lamina.snapshot.layers import Layers
from lamina.snapshot.rows import LayerRef, LayerRow


class Packer:
    """Takes chains as they are finished; `finish` returns the rows of one with all their blobs."""

    def __init__(
        self,
        layers: Layers,
        compression: Compression,
        cancel: Cancel,
        on_packed: Callable[[LayerRow], None] | None = None,
    ) -> None:
        self._layers, self._compression, self._cancel = layers, compression, Cancel(cancel)
        self._on_packed = on_packed
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="pack")
        self._jobs: dict[int, Future[LayerRow]] = {}

    def ahead(self, ref: LayerRef) -> None:
        """Start packing the top layer of a chain. Failures show in `finish`."""
        if ref.layer is not None and ref.layer not in self._jobs:
            self._jobs[ref.layer] = self._pool.submit(self._pack, ref.layer)

    def finish(self, ref: LayerRef) -> list[LayerRow]:
        """Return the chain's rows, bottom first, each with diffID and blob descriptor.

        Blobs of remote layers are not fetched: whoever exports decides whether their bytes are needed.
        """
        rows = []
        for row in self._layers.rows.chain(ref.layer):
            job = self._jobs.pop(row.id, None)
            rows.append(job.result() if job is not None else self._pack(row.id))
        return self._with_chain_ids(rows)

    def close(self) -> None:
        """Cancel what is left and wait for the thread."""
        self._cancel.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _pack(self, layer: int) -> LayerRow:
        row = self._layers.rows.get(layer)
        if row.blob is not None and row.diff_id is not None and row.origin:
            return row
        row = self._layers.pack(row, self._compression, self._cancel)
        if self._on_packed is not None:
            self._on_packed(row)
        return row

    def _with_chain_ids(self, rows: list[LayerRow]) -> list[LayerRow]:
        """Fill in chainIDs that could not be known while something below was not packed."""
        return [self._layers.name_chain(row) for row in rows]
