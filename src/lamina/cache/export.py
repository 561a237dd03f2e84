"""One `--cache-to`: blobs go there while the build runs, the records at its end.

The life of one: `CacheExport(...)` starts to read what is there; `offer(row)` for each layer that is packed; `finish`
at the end. Whatever fails is told by `finish`; nothing that was there is lost by it, since a publication appears only
when all its blobs are there.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from lamina.cache.backend import CacheBackend, CacheError, Found, Publication
from lamina.cache.buildkit_config import buildkit_config
from lamina.cache.document import Document, dump, merge, parse, without
from lamina.cache.gather import Gathered
from lamina.cache.spec import CacheSpec
from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.snapshot.rows import LayerRow

_PARALLEL = 4
_ATTEMPTS = 30
_STILL_FRESH_S = 86400.0

OpenLayer = Callable[[LayerRow], BinaryIO]
"""Opens a layer's blob, fetching it first if need be."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What one export did.

    Attributes:
        records: in the publication; `added` of them were not there before.
        blobs: put, of `sent_bytes` in all.
        seconds: spent after the build was done.
    """

    records: int
    added: int
    blobs: int
    sent_bytes: int
    seconds: float


class CacheExport:
    """Writes one cache.

    Args:
        open_layer: gives blobs of layers.
    """

    def __init__(
        self, spec: CacheSpec, backend: Callable[[], CacheBackend], open_layer: OpenLayer, cancel: Cancel
    ) -> None:
        self.spec = spec
        self._make, self._open_layer, self._cancel = backend, open_layer, Cancel(cancel)
        self._pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="cache-to")
        self._sent: dict[str, int] = {}
        self._puts: dict[str, Future[None]] = {}
        self._loading: Future[tuple[CacheBackend, list[Found]]] = self._pool.submit(self._load)

    def _load(self) -> tuple[CacheBackend, list[Found]]:
        backend = self._make()
        return backend, backend.load()

    def offer(self, row: LayerRow) -> None:
        """Start to bring a layer's blob there; it is needed whatever else the build does."""
        blob = row.descriptor()
        if blob is not None and not row.origin and blob.digest not in self._puts:
            self._puts[blob.digest] = self._pool.submit(self._put_unless_known, blob, row)

    def _put_unless_known(self, blob: Descriptor, row: LayerRow) -> None:
        backend, seen = self._loading.result()
        if not any(blob.digest in found.blobs for found in seen) and backend.missing([blob]):
            self._put(backend, blob, lambda: self._open_layer(row))

    def _put(self, backend: CacheBackend, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        self._cancel.check()
        backend.put(blob, open_blob)
        self._sent[blob.digest] = blob.size

    def seen(self) -> tuple[Document, frozenset[Digest]]:
        """Return what was there when the build began: the documents as one, and the blobs."""
        _, seen = self._loading.result()
        document = merge(_parse_all(seen, self.spec.shown()), ttl_s=self.spec.ttl_s, limit=self.spec.limit)
        return document, frozenset().union(*(found.blobs for found in seen))

    def finish(self, gathered: Gathered) -> ExportReport:
        """Write what was gathered, merged with what is there.

        Raises:
            Error: it could not be written; what was there is still there.
        """
        started = time.monotonic()
        backend, seen = self._loading.result()
        for put in self._puts.values():
            put.result()
        for attempt in range(_ATTEMPTS):
            self._cancel.check()
            known = _parse_all(seen, self.spec.shown())
            merged = merge([gathered.document, *known], ttl_s=self.spec.ttl_s, limit=self.spec.limit)
            added = _added(merged, known)
            if len(known) == 1 and len(seen) == 1 and not added and _is_fresh(gathered.document, known[0]):
                break
            merged = self._bring(backend, merged, gathered, seen)
            publication = Publication(dump(merged), buildkit_config(merged), tuple(merged.blobs()))
            if backend.publish(publication, seen):
                break
            time.sleep(random.uniform(0, 0.05 * (attempt + 1)))  # others write too: let them go
            seen = backend.load()
        else:
            raise CacheError(f"others kept writing to the cache; gave up after {_ATTEMPTS} attempts")
        seconds = time.monotonic() - started
        return ExportReport(len(merged.records), added, len(self._sent), sum(self._sent.values()), seconds)

    def _bring(self, backend: CacheBackend, merged: Document, gathered: Gathered, seen: Sequence[Found]) -> Document:
        """Put the blobs that are not there; return the document without what cannot be had (any more)."""
        there = frozenset().union(*(found.blobs for found in seen)) | self._sent.keys()
        wanted = backend.missing([blob for blob in merged.blobs() if blob.digest not in there])
        puts, gone = [], set()
        for blob in wanted:
            if blob.digest in gathered.openers:
                open_blob = gathered.openers[blob.digest]
            elif blob.digest in gathered.rows:
                open_blob = partial(self._open_layer, gathered.rows[blob.digest])
            else:
                gone.add(blob.digest)
                continue
            puts.append(self._pool.submit(self._put, backend, blob, open_blob))
        for put in puts:
            put.result()
        return without(merged, gone) if gone else merged

    def close(self) -> None:
        """Stop what runs and wait for it."""
        self._cancel.cancel()
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._loading.done() and not self._loading.cancelled() and self._loading.exception() is None:
            self._loading.result()[0].close()


def _parse_all(seen: Sequence[Found], where: str) -> list[Document]:
    """Return the documents that can be read; a damaged one is replaced by what is written now."""
    found = []
    for publication in seen:
        try:
            found.append(parse(publication.document, where))
        except InputError:
            continue
    return found


def _added(merged: Document, known: Sequence[Document]) -> int:
    there: set[str] = {record.canon for document in known for record in document.records}
    return sum(1 for record in merged.records if record.canon not in there)


def _is_fresh(mine: Document, there: Document) -> bool:
    """Tell whether all of `mine` is in `there` and was stamped lately, so that nothing needs to be written."""
    stamps: dict[str, tuple[Collection[str], float]] = {
        record.canon: (record.keys, record.used) for record in there.records
    }
    for record in mine.records:
        keys, used = stamps.get(record.canon, ((), 0.0))
        if record.used - used > _STILL_FRESH_S or not set(record.keys) <= set(keys):
            return False
    contents = {(mount.name, mount.key): mount.chunks for mount in there.mounts}
    return all(contents.get((mount.name, mount.key)) == mount.chunks for mount in mine.mounts)
