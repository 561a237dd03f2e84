"""Cache mounts as archives that travel: a directory becomes a tar, the tar becomes chunks, and back (L3).

Chunks are cut by content, so that what stays of a package cache from one build to the next is not sent again; each is a
blob of its own, compressed. The directory must not be written to meanwhile: the caller holds its lock.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from lamina.cache.document import CHUNK_MEDIA_TYPE, CacheMount, Chunk, Document
from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.layer.chunks import LARGEST, cut
from lamina.layer.entry import Entry
from lamina.layer.tar_read import iter_entries
from lamina.layer.tar_write import write_items
from lamina.layer.tree import TreeWriter, tree_items, walk_tree
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest, sha256_digest
from lamina.store.store import Store

_LEVEL = 3


class TooLargeError(InputError):
    """A cache mount is larger than what may travel."""


def pack_mount(
    name: str,
    key: str,
    directory: Path,
    flavour: str,
    known: Mapping[Digest, Descriptor],
    store: Store,
    *,
    most_bytes: int,
    now: float,
    cancel: Cancel,
) -> CacheMount:
    """Return a directory as chunks; those that are not `known` (by the digest of the piece) are put into the store.

    Raises:
        TooLargeError: the files are more than `most_bytes`.
        StorageError: something cannot be read.
    """
    import zstandard

    entries = walk_tree(directory, flavour)
    size = sum(entry.size for entry in entries if entry.kind == "f")
    if size > most_bytes:
        raise TooLargeError(
            f"the cache mount {name!r} has {size:,} bytes, at most {most_bytes:,} travel",
            hint="give more with mounts-size=, or clean the mount",
        )
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    chunks, total = [], 0
    for piece in cut(_tar(directory, flavour, cancel)):
        raw = sha256_digest(piece)
        blob = known.get(raw)
        if blob is None:
            digest, packed = store.add(compressor.compress(piece))
            blob = Descriptor(CHUNK_MEDIA_TYPE, digest, packed)
        chunks.append(Chunk(raw, blob))
        total += len(piece)
    return CacheMount(name, key, tuple(chunks), total, now)


def _tar(directory: Path, flavour: str, cancel: Cancel) -> Iterator[bytes]:
    """Yield the directory as a tar stream; the writer runs in a thread of its own, a few pieces ahead."""
    pieces: queue.Queue[bytes | BaseException | None] = queue.Queue(4)
    stop = Cancel(cancel)

    def put(piece: bytes | BaseException | None) -> None:
        while True:
            try:
                pieces.put(piece, timeout=0.2)
                return
            except queue.Full:
                stop.check()

    def write() -> None:
        try:
            write_items(
                tree_items(directory, walk_tree(directory, flavour)), lambda data: put(bytes(data)), cancel=stop
            )
            put(None)
        except BaseException as error:  # raised below, in the caller's thread
            if not stop.is_cancelled():
                put(error)

    thread = threading.Thread(target=write, name="mount-tar", daemon=True)
    thread.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        stop.cancel()
        thread.join()


def choose_mount(document: Document, name: str, key: str) -> CacheMount | None:
    """Return what there is of a mount: that of the same lock file, else the most recent."""
    found = [mount for mount in document.mounts if mount.name == name]
    same = [mount for mount in found if mount.key == key]
    return max(same or found, key=lambda mount: mount.used, default=None)


def unpack_mount(
    mount: CacheMount, fetch: Callable[[Descriptor], bytes], directory: Path, flavour: str, cancel: Cancel
) -> None:
    """Write a mount's content into an empty directory.

    Args:
        fetch: returns a blob's bytes, verified.

    Raises:
        Error: a chunk is not what it should be, or cannot be had; the directory is then to be thrown away.
    """
    reader = _Reader(_pieces(mount.chunks, fetch))
    root: Entry | None = None
    with TreeWriter(directory, flavour, None, None, cancel) as writer:
        for entry, read in iter_entries(reader.read):
            if entry.path == "":
                root = entry
            else:
                writer.add(entry, read)
        writer.finish()
    if root is not None:
        os.chown(directory, root.uid, root.gid)
        os.chmod(directory, root.mode)


def _pieces(chunks: Iterable[Chunk], fetch: Callable[[Descriptor], bytes]) -> Iterator[bytes]:
    import zstandard

    decompressor = zstandard.ZstdDecompressor()
    for chunk in chunks:
        if chunk.blob.size > 2 * LARGEST:
            raise InputError("a chunk of a cache mount is too large", where=str(chunk.blob.digest))
        data = fetch(chunk.blob)
        try:
            if zstandard.get_frame_parameters(data).content_size > LARGEST:
                raise InputError("a chunk of a cache mount is too large", where=str(chunk.blob.digest))
            piece = decompressor.decompress(data, max_output_size=LARGEST)
        except zstandard.ZstdError as error:
            raise InputError(f"a chunk of a cache mount is damaged: {error}") from error
        if len(piece) > LARGEST or "sha256:" + hashlib.sha256(piece).hexdigest() != chunk.raw:
            raise InputError("a chunk of a cache mount is not what it should be", where=str(chunk.blob.digest))
        yield piece


class _Reader:
    """Bytes of several pieces, read as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._held, self._offset = pieces, b"", 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end."""
        if self._offset >= len(self._held):
            self._held, self._offset = next(self._pieces, b""), 0
        data = self._held[self._offset : self._offset + size]
        self._offset += len(data)
        return data
