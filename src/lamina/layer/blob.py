"""A layer as a blob: packed from items in one pass, read without unpacking, compressed anew.

In and out: items or entries on one side, on the other a stream of compressed tar and an ingest that keeps it. One
pass makes everything: tar, diffID, compression, the blob's digest (by the ingest), the entries with the sha256 of
every file. Names of paths on disk do not come in here, but by the items' contents.

All of packing runs in the caller's thread: with isal at level 1 the digests cost as much as the compression, and
handing pieces to a second thread gained nothing or little for every codec that was measured.

    with store.ingest() as ingest:
        packed = pack(items, ingest, Compression("gzip"), cancel)
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO, Protocol

from lamina.layer.blob_read import LayerStream
from lamina.layer.compress import Compression, compressor
from lamina.layer.ledger import Ledger
from lamina.layer.slices import CHUNK
from lamina.layer.tar_read import iter_entries
from lamina.layer.tar_write import EMPTY_DIGEST, write_items
from lamina.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lamina.cancel import Cancel
    from lamina.layer.entry import Entry, Item
    from lamina.layer.ledger import Lower

__all__ = ["Compression", "Ingest", "Packed", "pack", "recompress", "scan"]


class Ingest(Protocol):
    """Where a blob goes; it digests what it gets."""

    def write(self, data: bytes, /) -> object:
        """Take all of `data`."""

    def commit(self) -> tuple[Digest, int]:
        """Keep what was written and return its digest and size."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A blob that was made.

    Attributes:
        diff_id: digest of the uncompressed tar.
        digest: digest of the blob.
        size: length of the blob in bytes.
        media_type: OCI's media type for it.
        entries: what is in it, in order, with the digests of the contents.
    """

    diff_id: Digest
    digest: Digest
    size: int
    media_type: str
    entries: list[Entry]


def pack(
    items: Iterable[Item],
    ingest: Ingest,
    compression: Compression,
    cancel: Cancel | None = None,
    on_entry: Callable[[Entry], None] | None = None,
) -> Packed:
    """Write items as a blob into `ingest`, which is committed.

    Args:
        items: in the order of the archive.
        ingest: takes the compressed bytes; the caller aborts it when this raises.
        compression: kind and level.
        cancel: checked for every entry and every MiB.
        on_entry: is told every entry, for progress.

    Raises:
        ContentChangedError: a file is not what its entry promises.
        LayerError: an entry that a layer cannot hold.
        StorageError: a file cannot be read, or the ingest cannot write.
    """
    sink = _Sink(ingest, compression)
    entries = write_items(items, sink.write, cancel=cancel, on_entry=on_entry)
    diff_id, digest, size = sink.commit()
    return Packed(diff_id, digest, size, compression.media_type(), entries)


def scan(
    stream: BinaryIO, *, expected: Digest | None = None, cancel: Cancel | None = None, lower: Lower | None = None
) -> tuple[list[Entry], Digest]:
    """Return what is in a layer's blob, with the digests of all contents, and its diffID.

    Args:
        stream: the blob, compressed or not (found out by its first bytes); stays open.
        expected: the diffID it must have.
        cancel: checked for every MiB.
        lower: what lies below the layer (see `ledger.Ledger`); None: not known.

    Raises:
        TarError, CompressionError: the blob is damaged or hostile.
        DiffIdError: the content is not what it should be.
    """
    ledger = Ledger(lower)
    with LayerStream(stream.read, cancel) as source:
        for entry, read in iter_entries(source.read):
            placed = ledger.place(entry).entry
            if entry.kind == "f" and placed is not None:
                ledger.set_digest(placed.path, _digest(read) if entry.size else EMPTY_DIGEST)
        diff_id = source.check(expected)
    return ledger.finish(), diff_id


def recompress(
    stream: BinaryIO,
    ingest: Ingest,
    compression: Compression,
    *,
    expected: Digest | None = None,
    cancel: Cancel | None = None,
) -> tuple[Digest, Digest, int]:
    """Write a blob in another compression into `ingest`, which is committed.

    Returns:
        diffID, digest and size of the new blob.

    Raises:
        CompressionError: the blob is damaged.
        DiffIdError: the content does not have the expected diffID; nothing is committed.
    """
    packer = compressor(compression)
    with LayerStream(stream.read, cancel) as source:
        while chunk := source.read(CHUNK):
            if data := packer.compress(chunk):
                ingest.write(data)
        diff_id = source.check(expected)
    ingest.write(packer.flush())
    digest, size = ingest.commit()
    return diff_id, digest, size


class _Sink:
    """Takes the tar; digests, compresses and hands on."""

    def __init__(self, ingest: Ingest, compression: Compression) -> None:
        self._ingest = ingest
        self._packer = compressor(compression)
        self._hash = sha256()

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        if packed := self._packer.compress(data):
            self._ingest.write(packed)

    def commit(self) -> tuple[Digest, Digest, int]:
        """Return diffID, digest and size."""
        self._ingest.write(self._packer.flush())
        digest, size = self._ingest.commit()
        return Digest(f"sha256:{self._hash.hexdigest()}"), digest, size


def _digest(read: Callable[[int], bytes]) -> str:
    first = read(CHUNK)
    more = read(CHUNK)
    if not more:
        return sha256(first).hexdigest()
    running = sha256(first)
    while more:
        running.update(more)
        more = read(CHUNK)
    return running.hexdigest()
