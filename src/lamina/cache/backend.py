"""What a place that keeps caches must be able to do. Backends are one module each under `cache/backends/`.

A cache is a set of *publications*: each is a document (see `document.py`) and the blobs it speaks of. Reading takes all
that are there; writing adds one and may retire those whose content went into it. So two writers never wipe each other:
where the place can compare and swap, a write that would lose another's says so and is tried again on what is there now;
where it cannot, every publication has a name of its own, and readers take all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from lamina.errors import NetworkError
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest

if TYPE_CHECKING:
    from lamina.registry.download import BlobSink


class CacheError(NetworkError):
    """A place that keeps caches cannot be used, or does not have what it should."""


@dataclass(frozen=True, slots=True)
class Found:
    """One publication as it was read.

    Attributes:
        document: compressed bytes, not checked yet.
        token: what the backend knows it by.
        blobs: digests that the publication holds on to.
    """

    document: bytes
    token: str
    blobs: frozenset[Digest] = frozenset()


@dataclass(frozen=True, slots=True)
class Publication:
    """One publication to be written; all `blobs` are at the backend.

    Attributes:
        document: compressed bytes.
        config: the same for BuildKit.
        blobs: every blob that the document speaks of and the cache holds.
    """

    document: bytes
    config: bytes
    blobs: tuple[Descriptor, ...]


class CacheBackend(Protocol):
    """One place. Thread-safe, as far as `put` and `fetch` go."""

    def load(self) -> list[Found]:
        """Return all publications, newest first; none when there is no cache yet.

        Raises:
            CacheError: it cannot be read.
        """

    def missing(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        """Return those of `blobs` that must be put; asks in as few requests as the place allows."""

    def put(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Bring one blob there. Does nothing when it is there already."""

    def fetch(self, blob: Descriptor, sink: BlobSink) -> None:
        """Write one blob into `sink`.

        Raises:
            CacheError: it is not there (any more).
        """

    def publish(self, publication: Publication, seen: Sequence[Found]) -> bool:
        """Write a publication that contains all of `seen`; return False when others came meanwhile: load again."""

    def close(self) -> None:
        """Give up connections. Idempotent."""
