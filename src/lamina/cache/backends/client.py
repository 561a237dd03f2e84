"""`type=local` of a client far away: a cache in a directory of the client's, which is reached blob by blob.

The client reads and writes `index.json` itself: it says which manifest to import (`digest`), and is told which one was
exported. So nothing is known here of what a directory had before, and an export holds what this build knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, BinaryIO

from lamina.cache.backend import CacheError, Found, Publication
from lamina.cache.backends.manifest import config_of, document_of, dump_cache_manifest, read_cache_manifest
from lamina.cache.document import MAX_BYTES
from lamina.cache.spec import CacheSpec
from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest, sha256_digest
from lamina.oci.manifest import MAX_MANIFEST_BYTES
from lamina.session import BlobStore

if TYPE_CHECKING:
    from lamina.registry.download import BlobSink

_CHUNK_BYTES = 1 << 20


class ClientCache:
    """Reads and writes one store of the client's.

    Args:
        published: is told the descriptor of the manifest that was written.
    """

    def __init__(
        self, spec: CacheSpec, store: BlobStore, cancel: Cancel, published: Callable[[Descriptor], None]
    ) -> None:
        self._spec, self._store, self._cancel, self._published = spec, store, cancel, published

    def load(self) -> list[Found]:
        """Return the publication whose manifest the client names; none without one."""
        text = self._spec.attributes.get("digest", "")
        if not text:
            return []
        digest = Digest(text)
        manifest = read_cache_manifest(self._small(digest, MAX_MANIFEST_BYTES), "", self._spec.shown())
        if manifest.document is None:
            return []
        return [Found(self._small(manifest.document.digest, MAX_BYTES), digest, manifest.blobs)]

    def missing(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        """Return what the client does not have; one question for each blob is all that its interface allows."""
        return [blob for blob in blobs if not self._store.has(blob.digest)]

    def put(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Send one blob."""
        with open_blob() as source:
            self._store.write(blob.digest, blob.size, iter(lambda: source.read(_CHUNK_BYTES), b""))

    def fetch(self, blob: Descriptor, sink: BlobSink) -> None:
        """Take one blob."""
        skip = sink.offset
        for piece in self._store.read(blob.digest):
            self._cancel.check()
            if skip < len(piece):
                sink.write(piece[skip:])
            skip = max(0, skip - len(piece))

    def publish(self, publication: Publication, seen: Sequence[Found]) -> bool:
        """Send the document and the manifest; the client makes it the tag's."""
        oci = self._spec.flag("oci-mediatypes", True)
        image_manifest = self._spec.flag("image-manifest", oci)
        if image_manifest and not oci:
            raise InputError("image-manifest=true needs oci-mediatypes=true")
        for blob, data in (
            (document_of(publication), publication.document),
            (config_of(publication), publication.config),
        ):
            self._store.write(blob.digest, blob.size, [data])
        media_type, raw = dump_cache_manifest(publication, image_manifest=image_manifest, oci=oci, annotations={})
        manifest = Descriptor(media_type, sha256_digest(raw), len(raw))
        self._store.write(manifest.digest, manifest.size, [raw])
        self._published(manifest)
        return True

    def close(self) -> None:
        """Nothing is held open."""

    def _small(self, digest: Digest, most: int) -> bytes:
        """Return a small blob, verified."""
        found = bytearray()
        for piece in self._store.read(digest):
            found += piece
            if len(found) > most:
                raise CacheError(f"a blob of more than {most} bytes", where=self._spec.shown())
        if sha256_digest(bytes(found)) != digest:
            raise CacheError("the client sent other bytes than the digest says", where=self._spec.shown())
        return bytes(found)
