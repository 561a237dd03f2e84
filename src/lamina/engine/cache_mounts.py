"""Cache mounts that travel, for one build: filled from a cache when a step starts, exported at the end (L3)."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lamina.cache.travel import CacheSource
from lamina.engine.backends import open_backend
from lamina.errors import CancelledError, Error
from lamina.layer.tree import remove_tree
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest

if TYPE_CHECKING:
    from lamina.cache.backend import CacheBackend
    from lamina.cache.document import CacheMount
    from lamina.cache.export import CacheExport
    from lamina.cache.gather import Gathered
    from lamina.engine.place import Place

MAX_CHUNK_BYTES = 16 << 20


class TravellingMounts:
    """Takes cache mounts from `--cache-from` and gives them to `--cache-to`.

    Args:
        context: the build context's directory, where lock files are, "" for none.
        warn: is told in one line what did not work; a mount is a convenience and never fails a build.
    """

    def __init__(self, place: Place, context: str, sources: Sequence[CacheSource], warn: Callable[[str], None]) -> None:
        self._place, self._context, self._sources, self._warn = place, context, sources, warn

    def fill(self, name: str, directory: Path) -> bool:
        """Fill a new, empty cache mount with what the first source has that has it."""
        from lamina.cache.mounts import choose_mount, unpack_mount

        name = _normal(name)
        for source in self._sources:
            wanted = dict(map(self._parse, source.spec.mounts))
            if wanted and name not in wanted:
                continue
            try:
                mount = choose_mount(source.document(), name, wanted.get(name, ""))
            except Error:
                continue  # told of by the solver's cache
            if mount is None:
                continue
            backend = open_backend(source.spec, self._place)
            try:
                fetch = partial(self._fetch, backend)
                unpack_mount(mount, fetch, directory, self._place.layers.flavour, self._place.cancel)
                return True
            except CancelledError:
                raise
            except Error as error:
                self._warn(f"cache mount {name!r} was not taken from {source.spec.shown()}: {error}")
                remove_tree(directory)
                directory.mkdir(mode=0o755)
                os.chmod(directory, 0o755)
            finally:
                backend.close()
        return False

    def add(self, gathered: Gathered, export: CacheExport) -> Gathered:
        """Return what was gathered with the cache mounts that the export names."""
        mounts, openers = [], dict(gathered.openers)
        try:
            document, there = export.seen()
        except Error:
            return gathered  # told of when the export is finished
        known = {
            chunk.raw: chunk.blob for mount in document.mounts for chunk in mount.chunks if chunk.blob.digest in there
        }
        for text in export.spec.mounts:
            mount = self._pack(text, known, export.spec.mounts_bytes)
            if mount is not None:
                mounts.append(mount)
                for chunk in mount.chunks:
                    openers[chunk.blob.digest] = partial(self._place.store.open, chunk.blob.digest)
        return replace(gathered, document=replace(gathered.document, mounts=tuple(mounts)), openers=openers)

    def _pack(self, text: str, known: dict[Digest, Descriptor], most_bytes: int) -> CacheMount | None:
        from lamina.cache.mounts import pack_mount

        place = self._place
        name, key = self._parse(text)
        rows = place.state.execute("SELECT id, name FROM cachemount ORDER BY used DESC").fetchall()
        found = next((row for row in rows if _normal(row[1]) == name and "-" not in row[0]), None)
        directory = place.root / "caches" / (found[0] if found else "none")
        if found is None or not directory.is_dir():
            self._warn(f"cache mount {name!r} was not exported: there is none of that id")
            return None
        lock = place.locks.try_acquire(f"cache:{directory.name}:0")
        if lock is None:
            self._warn(f"cache mount {name!r} was not exported: another build is using it")
            return None
        try:
            return pack_mount(
                name,
                key,
                directory,
                place.layers.flavour,
                known,
                place.store,
                most_bytes=most_bytes,
                now=time.time(),
                cancel=place.cancel,
            )
        except CancelledError:
            raise
        except Error as error:
            self._warn(f"cache mount {name!r} was not exported: {error}")
            return None
        finally:
            os.close(lock)

    def _parse(self, text: str) -> tuple[str, str]:
        """Return name and key of `NAME` or `NAME@LOCKFILE`."""
        name, at, path = text.rpartition("@")
        name = _normal(name if at else path)
        if not at:
            return name, ""
        try:
            data = (Path(self._context) / path).read_bytes() if self._context else b""
        except OSError as error:
            self._warn(f"lock file {path!r} of cache mount {name!r} cannot be read: {error.strerror}")
            data = b""
        return name, hashlib.sha256(data).hexdigest() if data else ""

    def _fetch(self, backend: CacheBackend, blob: Descriptor) -> bytes:
        """Return a chunk, verified; it passes through the store and does not stay there."""
        store = self._place.store
        known = store.has(blob.digest)
        if not known:
            with store.ingest(blob) as ingest:
                backend.fetch(blob, ingest)
                ingest.commit()
        try:
            return store.read(blob.digest, MAX_CHUNK_BYTES)
        finally:
            if not known:
                store.delete(blob.digest)


def _normal(name: str) -> str:
    """Return a mount's id as a path: `id=pip` is `/pip` in the graph, a target without id has one slash more."""
    return "/" + name.strip("/")
