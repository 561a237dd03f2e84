"""Layers as blobs: items packed into a compressed tar in one pass, and blobs read back.

Packing: tar -> sha256 (the diffID) -> compression -> the store's ingest, which hashes what it stores. Reading: the
same backwards, with the diffID checked where it is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.layer.compress import CHUNK, Compression, open_compressor, open_decompressor
from lamina.layer.entry import Entry, Item
from lamina.layer.tar_read import OPAQUE_MARK_MODE, ReadSome, TarReader
from lamina.layer.tar_write import TarWriter
from lamina.oci.digest import Digest


class Ingest(Protocol):
    """The part of a store that takes one blob."""

    def write(self, data: bytes) -> object:
        """Take some more bytes."""

    def commit(self) -> tuple[Digest, int]:
        """Make the blob visible; return its digest and size."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A layer that was packed: the digest of its tar, its blob, and its entries with content digests."""

    diff_id: Digest
    digest: Digest
    size: int
    media_type: str
    entries: list[Entry]


def pack(items: Iterable[Item], ingest: Ingest, compression: Compression, cancel: Cancel) -> Packed:
    """Write items as a layer blob.

    Raises:
        ContentChangedError: a file is not what its item says.
        StorageError: the store cannot take it.
    """
    state = hashlib.sha256()
    compressor = open_compressor(compression, ingest.write)

    def write(data: bytes) -> None:
        state.update(data)
        compressor.write(data)

    entries = TarWriter(write, cancel).add_all(items)
    compressor.close()
    digest, size = ingest.commit()
    diff_id = Digest("sha256:" + state.hexdigest())
    return Packed(diff_id, digest, size, compression.media_type, entries)


class LayerStream:
    """The entries of a layer blob with their data, whiteouts translated; `diff_id` once it was read to the end."""

    def __init__(self, stream: BinaryIO | ReadSome, cancel: Cancel) -> None:
        read: Any = stream if callable(stream) else stream.read
        self._uncompressed = open_decompressor(read)
        self._state = hashlib.sha256()
        self._cancel = cancel

    def __iter__(self) -> Iterator[tuple[Entry, ReadSome]]:
        return iter(TarReader(self._read))

    def _read(self, size: int) -> bytes:
        self._cancel.check()
        data = self._uncompressed(size)
        self._state.update(data)
        return data

    def check(self, expected: Digest | None) -> Digest:
        """Return the diffID of what was read.

        Raises:
            InputError: it is another one than expected.
        """
        found = Digest("sha256:" + self._state.hexdigest())
        if expected is not None and found != expected:
            raise InputError(
                f"the layer's content has diffID {found}, its config says {expected}",
                hint="the image is broken: pull or build it again",
            )
        return found


def scan(stream: BinaryIO | ReadSome, *, expected: Digest | None, cancel: Cancel) -> tuple[list[Entry], Digest]:
    """Return a layer's entries with content digests, and its diffID, without unpacking it.

    Raises:
        InputError: a broken or hostile layer, or another diffID than expected.
    """
    layer = LayerStream(stream, cancel)
    folder = EntryFolder()
    for entry, read in layer:
        if entry.kind == "f":
            entry = entry._replace(digest=hash_data(read))
        folder.add(entry)
    diff_id = layer.check(expected)
    return folder.entries(), diff_id


def hash_data(read: ReadSome) -> str:
    """Read data to its end and return its sha256 in hex."""
    state = hashlib.sha256()
    while data := read(CHUNK):
        state.update(data)
    return state.hexdigest()


class EntryFolder:
    """Collects a layer's entries as they come: the last of a name wins, opaque marks join their directory.

    A whiteout hides only what is in lower layers: it never removes an entry of its own layer, whatever the order.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._opaque: set[str] = set()

    def add(self, entry: Entry) -> None:
        """Take one entry of the stream."""
        if entry.opaque and entry.mode == OPAQUE_MARK_MODE:
            self._opaque.add(entry.path)
            return
        known = self._entries.get(entry.path)
        if entry.kind == "w":
            if known is None:
                self._entries[entry.path] = entry
            return
        self._entries.pop(entry.path, None)
        self._entries[entry.path] = entry

    def entries(self) -> list[Entry]:
        """Return what was collected."""
        for path in self._opaque:
            known = self._entries.get(path)
            if known is None:
                # the mark came without its directory: what the directory is, the layers below say
                self._entries[path] = Entry(path, "d", 0o755, opaque=True)
            elif known.kind == "d":
                self._entries[path] = known._replace(opaque=True)
        return list(self._entries.values())
