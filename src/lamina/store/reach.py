"""What an image is made of: the walk from a descriptor through indexes and manifests to every blob.

Reads manifests through the store, verified; opens no layer. Hostile graphs are bounded: visited-set, depth, count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from lamina.errors import InputError, StorageError
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.manifest import Manifest, parse_any
from lamina.oci.media_types import INDEX_TYPES, MANIFEST_TYPES
from lamina.store.errors import CorruptError, MissingBlobError

MAX_DEPTH = 8
MAX_BLOBS = 500_000


class Reader(Protocol):
    """The part of a store that the walk needs."""

    def read(self, digest: Digest, max_bytes: int = ...) -> bytes:
        """Return a blob's content, verified."""

    def size(self, digest: Digest) -> int:
        """Return a blob's size in bytes."""


def walk(store: Reader, roots: Iterable[Descriptor]) -> Iterator[tuple[Descriptor, Exception | None]]:
    """Iterate over everything below `roots`, each digest once, parents before children.

    Yields:
        A descriptor, with the error that kept its manifest from being read (its children are then unknown).

    Raises:
        CorruptError: deeper or larger than any real image.
    """
    seen: set[Digest] = set()
    stack = [(root, 0) for root in roots]
    while stack:
        descriptor, depth = stack.pop()
        if descriptor.digest in seen:
            continue
        seen.add(descriptor.digest)
        if depth > MAX_DEPTH or len(seen) > MAX_BLOBS:
            raise CorruptError("an index nested more deeply or larger than any real one", where=str(descriptor.digest))
        try:
            below = children(store, descriptor)
        except (InputError, StorageError) as exc:
            yield descriptor, exc
            continue
        yield descriptor, None
        stack += [(child, depth + 1) for child in below]


def children(store: Reader, descriptor: Descriptor) -> list[Descriptor]:
    """Return what a manifest or an index points at, without `subject`; nothing for other blobs.

    Raises:
        MissingBlobError, CorruptError, InputError: it cannot be read.
    """
    if descriptor.media_type not in MANIFEST_TYPES | INDEX_TYPES:
        return []
    parsed = parse_any(store.read(descriptor.digest), descriptor.media_type, str(descriptor.digest))
    if isinstance(parsed, Manifest):
        return [parsed.config, *parsed.layers]
    return list(parsed.manifests)


def reachable(store: Reader, roots: Iterable[Descriptor]) -> set[Digest]:
    """Return the digests of everything below `roots`, themselves included, present or not.

    For garbage collection: a manifest that cannot be read is itself reachable, its children are then unknown.
    """
    return {descriptor.digest for descriptor, _ in walk(store, roots)}


def missing_blobs(store: Reader, roots: Iterable[Descriptor]) -> list[Digest]:
    """Return the digests below `roots` that are not here or do not have the size they should have.

    Raises:
        CorruptError, InputError: a manifest on the way cannot be read.
    """
    missing: list[Digest] = []
    for descriptor, error in walk(store, roots):
        if error is not None and not isinstance(error, MissingBlobError):
            raise error
        try:
            if store.size(descriptor.digest) != descriptor.size:
                missing.append(descriptor.digest)
        except MissingBlobError:
            missing.append(descriptor.digest)
    return missing
