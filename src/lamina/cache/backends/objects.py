"""A cache in an object store (S3, Azure blobs): publications as objects of their own, blobs beside them.

Object stores list by prefix, and every publication has a name that nobody else writes: `.../lamina/NAME/TIME-HASH`. So
two writers never wipe each other; readers take all, and a writer deletes those that went into its own. BuildKit's
config is written under BuildKit's name for it as well (`manifests/NAME`): there the last writer wins. One listing says
which blobs are there.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from lamina.cache.backend import CacheError, Found, Publication
from lamina.cache.document import MAX_BYTES
from lamina.cache.spec import CacheSpec
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest, sha256_digest

if TYPE_CHECKING:
    from lamina.registry.download import BlobSink

_MOST_READ = 64


_CUTS = 3
"""How often a download is taken up again."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object in a listing; `modified` is seconds since the epoch."""

    name: str
    size: int
    modified: float


class ObjectStore(Protocol):
    """What the backends differ in. Every method raises `CacheError` for what the service refuses."""

    def list(self, prefix: str) -> Sequence[StoredObject]:
        """Return the objects whose names begin so."""

    def read(self, name: str, most: int) -> bytes | None:
        """Return a small object, None when it is not there."""

    def write(self, name: str, data: bytes) -> None:
        """Write a small object, replacing what was there."""

    def upload(self, name: str, source: BinaryIO, size: int) -> None:
        """Write a large object."""

    def download(self, name: str, offset: int, take: Callable[[bytes], object]) -> None:
        """Read a large object from an offset on, piece by piece."""

    def touch(self, name: str) -> None:
        """Make an object young again, where a rule of the service removes old ones."""

    def delete(self, name: str) -> None:
        """Remove an object; nothing when it is not there."""

    def close(self) -> None:
        """Give up connections."""


class ObjectCache:
    """Reads and writes caches in an object store.

    Args:
        blobs, manifests: prefixes of names.
        names: under which the cache is kept; written under all, read from all.
        refresh_s: objects older than that are touched when they are used again, 0 for never.
    """

    def __init__(
        self,
        spec: CacheSpec,
        store: ObjectStore,
        *,
        blobs: str,
        manifests: str,
        names: Sequence[str],
        refresh_s: float = 0.0,
    ) -> None:
        self._spec, self._store, self._refresh_s = spec, store, refresh_s
        self._blobs, self._manifests, self._names = blobs, manifests, tuple(names)
        self._there: dict[Digest, StoredObject] | None = None

    def load(self) -> list[Found]:
        """Return all publications, newest first."""
        there = frozenset(self._listing(anew=True))
        found = []
        for name in self._names:
            objects = sorted(self._store.list(self._own(name)), key=lambda item: item.name, reverse=True)
            for item in objects[:_MOST_READ]:
                data = self._store.read(item.name, MAX_BYTES) if item.size <= MAX_BYTES else None
                if data is not None:  # else retired since it was listed
                    found.append(Found(data, item.name, there))
        return found

    def missing(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        """Return what the listing does not have; old objects that are used again are made young."""
        there = self._listing()
        if self._refresh_s:
            old = time.time() - self._refresh_s
            for blob in blobs:
                if blob.digest in there and there[blob.digest].modified < old:
                    self._store.touch(there[blob.digest].name)
        return [blob for blob in blobs if blob.digest not in there]

    def put(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Upload one blob."""
        with open_blob() as source:
            self._store.upload(self._blobs + blob.digest, source, blob.size)

    def fetch(self, blob: Descriptor, sink: BlobSink) -> None:
        """Download one blob; goes on where it was cut."""
        for attempt in range(_CUTS + 1):
            try:
                self._store.download(self._blobs + blob.digest, sink.offset, sink.write)
                return
            except CutOffError:
                if attempt == _CUTS:
                    raise

    def publish(self, publication: Publication, seen: Sequence[Found]) -> bool:
        """Write a publication under every name, then remove those that it contains."""
        stamp = f"{int(time.time()):010x}-{sha256_digest(publication.document).hex[:12]}"
        written = set()
        for name in self._names:
            written.add(self._own(name) + stamp)
            self._store.write(self._own(name) + stamp, publication.document)
            self._store.write(self._manifests + name, publication.config)
        for found in seen:
            if found.token not in written:
                self._store.delete(found.token)
        return True

    def close(self) -> None:
        """Give up connections."""
        self._store.close()

    def _own(self, name: str) -> str:
        return f"{self._manifests}lamina/{name}/"

    def _listing(self, *, anew: bool = False) -> dict[Digest, StoredObject]:
        if self._there is None or anew:
            found: dict[Digest, StoredObject] = {}
            for item in self._store.list(self._blobs + "sha256:"):
                text = item.name.removeprefix(self._blobs)
                if len(text) == 71:
                    found[Digest(text)] = item
            self._there = found
        return self._there


class CutOffError(CacheError):
    """The service stopped in the middle of an object."""


def gone(name: str, where: str) -> CacheError:
    """Return the error for an object that is not there."""
    return CacheError(f"the cache does not have {name.rpartition('/')[2]} (any more)", where=where)


def whole(source: BinaryIO, size: int) -> BinaryIO:
    """Return a source that can be read twice: services want to know what they get."""
    return source if source.seekable() else io.BytesIO(source.read(size))
