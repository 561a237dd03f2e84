"""Caches that travel, for one build: opens the backends, widens the solver's cache, exports at the end.

Only warnings come from here unless a user asked for more (`ignore-error=false`): a cache saves time, it never decides
whether a build succeeds.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from lamina.cache.backend import CacheBackend, CacheError
from lamina.cache.elsewhere import Elsewhere
from lamina.cache.listing import find_data
from lamina.cache.records import Records
from lamina.cache.spec import CacheSpec, parse_spec
from lamina.cache.travel import CacheSource, TravelCache
from lamina.engine.backends import open_backend
from lamina.engine.cache_mounts import TravellingMounts
from lamina.engine.options import BuildOptions
from lamina.engine.place import Place
from lamina.errors import CancelledError, Error
from lamina.layer.compress import Compression
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.progress import LogEvent, Sink, VertexEvent, WarningEvent, doing
from lamina.snapshot.rows import LayerGoneError, LayerRow, parse_origin

if TYPE_CHECKING:
    from lamina.cache.export import CacheExport, ExportReport
    from lamina.cache.gather import Gathered
    from lamina.engine.outputs import Built
    from lamina.engine.solve import Solver

T = TypeVar("T")
_MOST_GONE = 8


class Caches:
    """All `--cache-from` and `--cache-to` of one build. A context manager.

    Attributes:
        cache: what the solver asks.
        metadata: what to tell the user of the exports.
        elsewhere: what the sources know, for explaining a miss.
        pack_all: some export wants every step's result packed.
    """

    def __init__(self, place: Place, options: BuildOptions, sink: Sink) -> None:
        self._place, self._sink = place, sink
        self._from = [parse_spec(text, export=False) for text in options.cache_from]
        self._to = [parse_spec(text, export=True) for text in _exports(options)]
        records = Records(place.state, place.locks)
        place.cache_specs.update({spec.origin(): spec for spec in self._from})
        self._sources = [
            CacheSource(spec, partial(self._open, spec), partial(self._importing, spec)) for spec in self._from
        ]
        self.elsewhere = Elsewhere(self._sources)
        self.metadata: dict[str, str] = {}
        self.cache = TravelCache(records, place.layers, self._sources, self._cannot_read)
        self._mounts = TravellingMounts(place, options.context, self._sources, self._warn)
        self._exports = [self._start(spec) for spec in self._to if spec.type != "inline"]
        self.pack_all = any(spec.max for spec in self._to)
        self.inline = any(spec.type == "inline" for spec in self._to)

    def __enter__(self) -> Caches:
        return self

    def __exit__(self, *_error: object) -> None:
        for export in self._exports:
            export.close()
        for source in self._sources:
            source.close()

    def compression(self, default: Compression) -> Compression:
        """Return how new layers are compressed: as the first export says that says it."""
        spec = next((spec for spec in self._to if spec.compression), None)
        return Compression(spec.compression, spec.level) if spec else default

    def fill_mount(self, name: str, directory: Path) -> bool:
        """Fill a new cache mount with what a cache has of it; False when none has."""
        return bool(self._sources) and self._mounts.fill(name, directory)

    def packed(self, row: LayerRow) -> None:
        """Take note of a layer that is packed: it may travel while the build goes on."""
        for export in self._exports:
            export.offer(row)

    def gone(self, error: LayerGoneError) -> None:
        """Ask the cache no more that does not have what it promised."""
        self.cache.drop(parse_origin(error.origin)[1])
        self._warn(f"{error.what}; what stands on it is built again")

    def put_inline(self, built: Sequence[Built], solver: Solver) -> None:
        """Write into the images' configs what they consist of, where `type=inline` was asked for."""
        if not self.inline:
            return
        from lamina.cache.backends.registry import INLINE_FIELD
        from lamina.cache.document import dump
        from lamina.cache.gather import gather, known_records, timeless

        records = known_records(self._place.state, solver.definitions.values())
        for one in built:
            chain = {row.id for row in self._place.layers.rows.chain(one.ref.layer)}
            gathered = gather(records, solver.packer.finish, lambda _row: None, only=chain)
            text = base64.b64encode(dump(timeless(gathered.document))).decode()
            one.config = {**one.config, INLINE_FIELD: text}

    def export(self, solver: Solver) -> None:
        """Write every `--cache-to` from what the solver knows.

        Raises:
            Error: an export failed that the user said must not.
        """
        if not self._exports:
            return
        from lamina.cache.gather import gather, known_records

        find_list = partial(find_data, self._place.state)
        records = known_records(self._place.state, solver.definitions.values())
        chain = {row.id for ref in solver.results for row in self._place.layers.rows.chain(ref.layer)}
        gathered: dict[bool, Gathered] = {}
        for export in self._exports:
            spec = export.spec
            if spec.max not in gathered:
                gathered[spec.max] = gather(
                    records, solver.packer.finish, self._dump_index, None if spec.max else chain, find_list
                )
            found = self._recompressed(gathered[spec.max], spec)
            self._export(export, self._mounts.add(found, export) if spec.mounts else found)

    @contextmanager
    def _importing(self, spec: CacheSpec) -> Iterator[None]:
        """Tell that a cache is read. What goes wrong is told where it is first asked: the build goes on without it."""
        started = time.time()
        name, vertex = f"importing cache from {spec.shown()}", f"sha256:cache-from-{spec.shown()}"
        self._sink(VertexEvent(vertex, name, started=started))
        try:
            with doing(vertex):
                yield
        finally:
            self._sink(VertexEvent(vertex, name, started=started, completed=time.time()))

    def _export(self, export: CacheExport, gathered: Gathered) -> None:
        spec, started = export.spec, time.time()
        name, vertex = f"exporting cache to {spec.shown()}", f"sha256:cache-to-{spec.shown()}"
        self._sink(VertexEvent(vertex, name, started=started))
        try:
            report = _finish(export, gathered)
        except CancelledError:
            self._sink(VertexEvent(vertex, name, started=started, completed=time.time(), error="cancelled"))
            raise
        except Error as error:
            if not spec.ignore_error:
                self._sink(VertexEvent(vertex, name, started=started, completed=time.time(), error=str(error)))
                raise
            self._warn(f"the cache was not exported to {spec.shown()}: {error}")
            self._sink(VertexEvent(vertex, name, started=started, completed=time.time()))
            return
        self._sink(LogEvent(vertex, 1, f"{_told(report)}\n".encode(), time.time()))
        self._sink(VertexEvent(vertex, name, started=started, completed=time.time()))

    def _recompressed(self, gathered: Gathered, spec: CacheSpec) -> Gathered:
        """Return the layers in the compression asked for, if all of them shall have it."""
        if not spec.force_compression or not spec.compression:
            return gathered
        from lamina.cache.gather import Gathered
        from lamina.exporter.convert import convert_layer
        from lamina.image.assemble import LayerBlob
        from lamina.oci.media_types import layer_compression

        layers, rows = [], dict(gathered.rows)
        for layer in gathered.document.layers:
            if not layer.origin and layer_compression(layer.blob.media_type) != spec.compression:
                row = rows[layer.blob.digest]
                self._open_layer(row).close()
                blob = LayerBlob(layer.blob, layer.diff_id)
                found = convert_layer(self._place.store, blob, spec.compression, spec.level, self._place.cancel)
                to = found.descriptor
                rows[to.digest] = replace(row, blob=to.digest, blob_size=to.size, media_type=to.media_type, origin="")
                layer = replace(layer, blob=to)
            layers.append(layer)
        return Gathered(replace(gathered.document, layers=tuple(layers)), rows, gathered.openers)

    def _start(self, spec: CacheSpec) -> CacheExport:
        from lamina.cache.export import CacheExport

        return CacheExport(spec, lambda: self._open(spec), self._open_layer, self._place.cancel)

    def _open(self, spec: CacheSpec) -> CacheBackend:
        return open_backend(spec, self._place, self._publish)

    def _publish(self, manifest: Descriptor) -> None:
        """Note what the user is to name: BuildKit's clients write it into the `index.json` of their directory."""
        self.metadata["cache.manifest"] = json.dumps(manifest.to_json())

    def _open_layer(self, row: LayerRow) -> BinaryIO:
        assert row.blob is not None
        digest = Digest(row.blob)
        if not self._place.store.has(digest):
            self._place.fetch(row, self._place.cancel)
        return self._place.store.open(digest)

    def _dump_index(self, row: LayerRow) -> bytes | None:
        if not row.indexed:
            return None
        try:
            return self._place.layers.index_path(row.id).read_bytes()
        except OSError:
            return None

    def _cannot_read(self, spec: CacheSpec, error: Error) -> None:
        self._warn(f"the cache from {spec.shown()} is not used: {error}")

    def _warn(self, text: str) -> None:
        self._sink(WarningEvent("", text, url="", source=None))


def _finish(export: CacheExport, gathered: Gathered) -> ExportReport:
    """Finish an export; what a client library did not expect is told as an error of the cache."""
    try:
        return export.finish(gathered)
    except Error:
        raise
    except Exception as error:
        raise CacheError(f"unexpected: {type(error).__name__}: {error!s:.200}") from error


def open_caches(place: Place, options: BuildOptions, sink: Sink) -> AbstractContextManager[Caches | None]:
    """Return the caches of one build; None inside when there are none.

    Raises:
        InputError: an option cannot be understood.
    """
    return Caches(place, options, sink) if options.cache_from or _exports(options) else nullcontext()


def _exports(options: BuildOptions) -> list[str]:
    """Return every `--cache-to`; the build argument BUILDKIT_INLINE_CACHE is the oldest way of saying one."""
    return [*options.cache_to, "type=inline"] if options.switch("BUILDKIT_INLINE_CACHE") else options.cache_to


def without_gone_layers(caches: Caches | None, place: Place, carry_out: Callable[[], T]) -> T:
    """Return what `carry_out` does, done once more for each cache that turned out not to have what it promised."""
    for _ in range(_MOST_GONE):
        try:
            return carry_out()
        except LayerGoneError as error:
            Records(place.state, place.locks).forget(error.layer)
            if caches is not None:
                caches.gone(error)
    return carry_out()


def _told(report: ExportReport) -> str:
    sent = f", sent {report.blobs} blobs of {report.sent_bytes:,} bytes" if report.blobs else ""
    return f"{report.records} records, {report.added} of them new{sent}"
