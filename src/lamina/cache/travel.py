"""The solver's cache, widened by caches from elsewhere.

What the state file knows is taken first. Otherwise the documents of all `--cache-from` sources are asked, in the order
they were given; a record found there becomes a record here, its layers rows that say where their blobs lie. Nothing
is fetched by that: a blob comes when something executes on it or an output needs its bytes.

A source that cannot be read is a warning, never a failure. One whose layer turns out to be gone is not asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from lamina.cache.backend import CacheBackend, CacheError, Found
from lamina.cache.document import CacheRecord, Document, merge, parse
from lamina.cache.records import Records
from lamina.cache.spec import CacheSpec
from lamina.cancel import Cancel
from lamina.errors import CancelledError, Error
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.registry.download import BlobSink
from lamina.snapshot.layers import Layers
from lamina.snapshot.rows import LayerRef, dump_origin
from lamina.solver.protocol import Hit

ORIGIN = "cache"
"""Kind of origin (see `dump_origin`) of a layer whose blob lies in a cache; the reference is `CacheSpec.origin()`."""

_FOR_EVER_S = 1e12


class CacheSource:
    """One `--cache-from`, read in the background as soon as it is made.

    Args:
        around: entered while it is read.

    Attributes:
        found: what it held, by the time `document` returned.
    """

    def __init__(
        self,
        spec: CacheSpec,
        backend: Callable[[], CacheBackend],
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.spec, self._around = spec, around
        self.found: list[Found] = []
        self._backend = backend
        self._by_key: Mapping[str, CacheRecord] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="cache-from")
        self._loading: Future[Document] = self._pool.submit(self._load)

    def _load(self) -> Document:
        with self._around():
            return self._read()

    def _read(self) -> Document:
        try:
            self.found = self._backend().load()
        except Error:
            raise
        except Exception as error:  # a client library's surprise must not cost the build
            raise CacheError(f"unexpected: {type(error).__name__}") from error
        documents = [parse(found.document, self.spec.shown()) for found in self.found]
        document = merge(documents, ttl_s=_FOR_EVER_S, limit=1 << 30)
        self._by_key = {key: record for record in document.records for key in record.keys}
        return document

    def document(self) -> Document:
        """Return all that the source has; waits for it.

        Raises:
            Error: it cannot be read.
        """
        return self._loading.result()

    def find(self, key: str) -> CacheRecord | None:
        """Return the record that a key leads to."""
        self.document()
        return self._by_key.get(key)

    def fetch(self, blob: Descriptor, sink: BlobSink) -> None:
        """Write one blob of the source into `sink`.

        Raises:
            CacheError: it is not there (any more).
        """
        backend = self._backend()
        try:
            backend.fetch(blob, sink)
        finally:
            backend.close()

    def close(self) -> None:
        """Wait for the thread."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class TravelCache:
    """Implements `lamina.solver.protocol.Cache` over the state file and what came along.

    Args:
        warn: is told once of each source that cannot be used.
    """

    def __init__(
        self, records: Records, layers: Layers, sources: Sequence[CacheSource], warn: Callable[[CacheSpec, Error], None]
    ) -> None:
        self._records, self._layers, self._warn = records, layers, warn
        self._sources = list(sources)
        self.hits: dict[str, int] = {}

    def drop(self, origin: str) -> bool:
        """Ask the source that a layer's origin names no more; return False when it is none of ours."""
        before = len(self._sources)
        self._sources = [source for source in self._sources if source.spec.origin() != origin]
        return len(self._sources) < before

    def lookup(self, key: str) -> Hit | None:
        """Return what is known here, else what a source knows."""
        hit = self._records.lookup(key)
        if hit is not None:
            return hit
        for source in list(self._sources):
            try:
                record = source.find(key)
            except CancelledError:
                raise
            except Error as error:
                self._sources = [other for other in self._sources if other is not source]
                self._warn(source.spec, error)
                continue
            if record is not None:
                self.hits[source.spec.shown()] = self.hits.get(source.spec.shown(), 0) + 1
                return self._take(source, record, key)
        return None

    def _take(self, source: CacheSource, record: CacheRecord, key: str) -> Hit:
        """Make a record from elsewhere one of ours."""
        for other in record.keys:
            hit = self._records.lookup(other) if other != key else None
            if hit is not None:
                # the work is known here under another of its keys
                self._records.alias(key, other)
                return hit
        document = source.document()
        results = [LayerRef(self._add_chain(source, document, number)) for number in record.results]
        self._records.save(
            record.keys,
            record.canon,
            results,
            description=record.description,
            parts=record.parts,
            seconds=record.seconds,
        )
        return Hit(tuple(results), record.canon, record.seconds, source.spec.shown())

    def _add_chain(self, source: CacheSource, document: Document, number: int) -> int | None:
        """Return the top row of a chain, noting layers that are not known yet."""
        parent: int | None = None
        for layer in document.chain(number):
            origin = (
                dump_origin(layer.origin, "registry")
                if layer.origin
                else dump_origin(source.spec.origin(), ORIGIN, layer.index)
            )
            parent = self._layers.add_remote(
                parent,
                diff_id=layer.diff_id,
                blob=Digest(layer.blob.digest),
                blob_size=layer.blob.size,
                media_type=layer.blob.media_type,
                origin=origin,
                size=layer.size,
                created=layer.created,
                description=layer.description,
            )
        self._layers.rows.touch(parent)
        return parent

    # -- the rest is the state file's

    def alias(self, key: str, existing: str) -> None:
        """Make `key` lead to the node that `existing` leads to."""
        self._records.alias(key, existing)

    def save(
        self,
        keys: Sequence[str],
        canon: str,
        results: Sequence[LayerRef],
        *,
        description: str,
        parts: Mapping[str, Any],
        seconds: float,
    ) -> None:
        """Store one piece of work."""
        self._records.save(keys, canon, results, description=description, parts=parts, seconds=seconds)

    def working(self, key: str, cancel: Cancel) -> AbstractContextManager[bool]:
        """Hold the right to compute `key` among all processes on this store."""
        return self._records.working(key, cancel)
