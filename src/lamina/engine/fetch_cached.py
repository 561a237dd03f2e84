"""Blobs and indexes of layers that a cache elsewhere keeps, brought here when they are needed."""

from __future__ import annotations

import posixpath
import zlib
from typing import TYPE_CHECKING

from lamina.cache.backend import CacheBackend
from lamina.cache.document import MAX_BYTES
from lamina.cache.spec import parse_spec
from lamina.engine.backends import open_backend
from lamina.errors import CancelledError, Error, InputError, StorageError
from lamina.layer.index import Index
from lamina.oci.descriptor import Descriptor
from lamina.snapshot.rows import LayerGoneError, LayerRow, parse_origin, parse_origin_index
from lamina.store.errors import CorruptError

if TYPE_CHECKING:
    from lamina.engine.place import Place


def fetch_layer(place: Place, row: LayerRow) -> None:
    """Bring a layer's blob into the store, verified.

    Raises:
        LayerGoneError: the cache cannot be reached, or does not have what it promised.
    """
    descriptor = row.descriptor()
    assert descriptor is not None
    try:
        _fetch(place, row, descriptor)
    except CancelledError:
        raise
    except StorageError as error:
        if not isinstance(error, CorruptError):
            raise  # our own disk
        raise _gone(row, error) from error
    except Error as error:
        raise _gone(row, error) from error


def fetch_index(place: Place, row: LayerRow) -> Index | None:
    """Return a layer's index without its blob; None when the cache does not have it or what came is none.

    The index is believed until the layer itself is here (`Layers` compares them then), but never as far as to lead
    outside of a tree: a path goes through directories only.
    """
    descriptor = parse_origin_index(row.origin)
    if descriptor is None or descriptor.size > MAX_BYTES:
        return None
    try:
        if not place.store.has(descriptor.digest):
            _fetch(place, row, descriptor)
        inflate = zlib.decompressobj(31)
        data = inflate.decompress(place.store.read(descriptor.digest, MAX_BYTES), 4 * MAX_BYTES)
        if not inflate.eof:
            return None
        index = Index.parse(data)
        _check_paths(index)
    except CancelledError:
        raise
    except (Error, zlib.error):
        return None
    finally:
        place.store.delete(descriptor.digest)
    return index


def _fetch(place: Place, row: LayerRow, descriptor: Descriptor) -> None:
    backend = _backend(place, row)
    try:
        with place.store.ingest(descriptor) as ingest:
            backend.fetch(descriptor, ingest)
            ingest.commit()
    finally:
        backend.close()


def _backend(place: Place, row: LayerRow) -> CacheBackend:
    origin = parse_origin(row.origin)[1]
    # what this build was given may hold credentials, which an origin never does
    return open_backend(place.cache_specs.get(origin) or parse_spec(origin, export=False), place)


def _gone(row: LayerRow, error: Error) -> LayerGoneError:
    return LayerGoneError(f"a cached layer cannot be had: {error.what}", row.id, row.origin, where=error.where)


def _check_paths(index: Index) -> None:
    """Raise unless every entry has a plain path below directories."""
    for path in index.entries:
        parts = path.split("/")
        if path and any(part in ("", ".", "..") for part in parts):
            raise InputError("a layer index with an impossible path")
        parent = index.entries.get(posixpath.dirname(path))
        if parent is not None and parent.kind != "d" and path:
            raise InputError("a layer index with an entry below what is no directory")
