"""A cache in a directory: an OCI image layout whose `index.json` names one manifest for each tag.

Compare and swap is a lock file: the manifest that was read must still be the one that is replaced. Blobs that no
manifest names are removed once they are an hour old, since a writer beside us may just have brought them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lamina.cache.backend import CacheError, Found, Publication
from lamina.cache.backends.manifest import CacheManifest, dump_cache_manifest, read_cache_manifest
from lamina.cache.document import MAX_BYTES
from lamina.cache.spec import CacheSpec
from lamina.cancel import Cancel
from lamina.errors import Error, InputError
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.manifest import MAX_MANIFEST_BYTES
from lamina.store.store import Store

if TYPE_CHECKING:
    from lamina.registry.download import BlobSink

_GRACE_S = 3600.0


class LocalCache:
    """Reads and writes the layout at `src` or `dest`."""

    def __init__(self, spec: CacheSpec, cancel: Cancel) -> None:
        self._spec, self._cancel = spec, cancel
        self._path = Path(spec.attributes.get("dest") or spec.attributes["src"])
        self._tag = spec.attributes.get("tag") or "latest"
        self._opened: Store | None = None

    def load(self) -> list[Found]:
        """Return the tag's publication, or that of the digest that was asked for."""
        if not (self._path / "index.json").exists():
            return []
        try:
            store = self._store()
            asked = self._spec.attributes.get("digest")
            digest = Digest(asked) if asked else self._current(store)
            if digest is None or (self._spec.flag("reset", False) and "dest" in self._spec.attributes):
                return []
            manifest = self._manifest(store, digest)
            if manifest.document is None:
                return []
            return [Found(store.read(manifest.document.digest, MAX_BYTES), digest, manifest.blobs)]
        except Error as error:
            raise CacheError(f"the cache cannot be read: {error.what}", where=str(self._path)) from error

    def missing(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        """Return what is not in the layout; what is there is kept from being swept."""
        store = self._store()
        return [blob for blob in blobs if not store.touch(blob.digest)]

    def put(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Copy one blob in, verified."""
        store = self._store()
        if store.touch(blob.digest):
            return
        with open_blob() as source, store.ingest(blob) as ingest:
            while data := source.read(1 << 20):
                self._cancel.check()
                ingest.write(data)
            ingest.commit()

    def fetch(self, blob: Descriptor, sink: BlobSink) -> None:
        """Copy one blob out."""
        try:
            with self._store().open(blob.digest) as source:
                source.seek(sink.offset)
                while data := source.read(1 << 20):
                    self._cancel.check()
                    sink.write(data)
        except Error as error:
            raise CacheError(f"a layer is gone from the cache: {blob.digest}", where=str(self._path)) from error

    def publish(self, publication: Publication, seen: Sequence[Found]) -> bool:
        """Make the publication the tag's, if the tag still has what was seen."""
        oci = self._spec.flag("oci-mediatypes", True)
        image_manifest = self._spec.flag("image-manifest", oci)
        if image_manifest and not oci:
            raise InputError("image-manifest=true needs oci-mediatypes=true")
        store = self._store()
        for data in (publication.document, publication.config):
            store.add(data, durable=True)
        media_type, raw = dump_cache_manifest(publication, image_manifest=image_manifest, oci=oci, annotations={})
        digest, size = store.add(raw, durable=True)
        with store.lock():
            current = self._current(store)
            known = {found.token for found in seen}
            if current is not None and current not in known and not self._spec.flag("reset", False):
                return False
            store.tag(self._tag, Descriptor(media_type, digest, size))
            self._sweep(store)
        return True

    def close(self) -> None:
        """Nothing is held open."""

    def _store(self) -> Store:
        if self._opened is None:
            self._opened = Store(self._path, create="dest" in self._spec.attributes)
        return self._opened

    def _current(self, store: Store) -> Digest | None:
        found = store.resolve(self._tag)
        return found.digest if found else None

    def _manifest(self, store: Store, digest: Digest) -> CacheManifest:
        return read_cache_manifest(store.read(digest, MAX_MANIFEST_BYTES), "", str(self._path))

    def _sweep(self, store: Store) -> None:
        """Remove old blobs that nothing names."""
        named: set[Digest] = set()
        for image in store.images():
            manifest = self._manifest(store, image.descriptor.digest)
            named |= {image.descriptor.digest, *manifest.blobs, *_configs(manifest)}
        for digest in list(store.digests()):
            if digest not in named:
                store.delete(digest, unused_since=time.time() - _GRACE_S)


def _configs(manifest: CacheManifest) -> Iterator[Digest]:
    if manifest.config is not None:
        yield manifest.config.digest
