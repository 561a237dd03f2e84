"""`lamina load DIRECTORY`: images of an OCI layout that another tool made, into the store.

Blobs are copied through the store's ingest, so that a layout that lies about digests or sizes is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.exporter.adopt import Found, adopt, merge_found, names_of
from lamina.exporter.protocol import Progress, silent
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.store.files import read_capped
from lamina.store.index import parse_entries
from lamina.store.names import MAX_INDEX_BYTES, REF_NAME
from lamina.store.reach import MAX_BLOBS, MAX_DEPTH, children
from lamina.store.store import Store, StoredImage

_CHUNK_BYTES = 1 << 20


def load_layout(
    store: Store, path: Path, *, tag: str = "", name: str = "", cancel: Cancel, progress: Progress = silent
) -> list[StoredImage]:
    """Bring the images of a layout into the store.

    Args:
        store: where they go.
        path: the layout's directory.
        tag: only the entry with this `org.opencontainers.image.ref.name`, "" for all.
        name: reference for an image that brings none.
        cancel: stops it; what was copied is a garbage collection's to remove.
        progress: is told how far each blob is.

    Raises:
        InputError: it is no layout, has no such entry, or an image in it is not sound.
        StorageError: it cannot be read, or the store cannot be written.
    """
    where = os.fspath(path)
    if not (path / "oci-layout").is_file():
        raise InputError("not an OCI layout: there is no oci-layout file in it", where=where)
    entries = parse_entries(read_capped(os.path.join(path, "index.json"), MAX_INDEX_BYTES), where)
    chosen = [entry.descriptor for entry in entries if not tag or tag == entry.descriptor.annotations.get(REF_NAME)]
    if not chosen:
        there = ", ".join(sorted({entry.name for entry in entries if entry.name})) or "none with a name"
        raise InputError(f"the layout has no image {tag!r}", where=where, hint=f"there is: {there}")
    source = Store(path, create=False)
    copied: set[Digest] = set()

    def copy(descriptor: Descriptor) -> None:
        if not store.has(descriptor.digest) and source.has(descriptor.digest):
            _copy_blob(source, store, descriptor, cancel, progress)

    for descriptor in chosen:
        _copy_all(store, descriptor, copied, copy, where)
    found = merge_found(Found(descriptor, names_of(descriptor)) for descriptor in chosen)
    return adopt(store, found, name, cancel, where)


def _copy_all(
    store: Store, root: Descriptor, seen: set[Digest], copy: Callable[[Descriptor], None], where: str
) -> None:
    """Copy everything below `root` that the source has; what it lacks is found by the check that follows."""
    stack = [(root, 0)]
    while stack:
        descriptor, depth = stack.pop()
        if descriptor.digest in seen:
            continue
        seen.add(descriptor.digest)
        if depth > MAX_DEPTH or len(seen) > MAX_BLOBS:
            raise InputError("an index nested more deeply or larger than any real one", where=where)
        copy(descriptor)
        if store.has(descriptor.digest):
            stack += [(child, depth + 1) for child in children(store, descriptor)]


def _copy_blob(source: Store, store: Store, descriptor: Descriptor, cancel: Cancel, progress: Progress) -> None:
    """Copy one blob, verified."""
    with source.open(descriptor.digest) as file, store.ingest(descriptor) as ingest:
        while chunk := file.read(_CHUNK_BYTES):
            cancel.check()
            ingest.write(chunk)
            progress(str(descriptor.digest), ingest.offset, descriptor.size)
        ingest.commit()
