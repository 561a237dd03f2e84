"""`lamina store check`: every promise of the store, looked at again, all faults gathered before any is reported."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from lamina.cancel import Cancel
from lamina.errors import Error, InputError, StorageError
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.strict_json import parse_object
from lamina.store.errors import CorruptError, MissingBlobError
from lamina.store.files import open_regular, read_capped
from lamina.store.reach import walk
from lamina.store.store import Store

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it must be.

    Attributes:
        kind: `layout`, `index`, `missing`, `size`, `digest`, `manifest`, `foreign` or `leftover`.
        where: name of an image, digest or path.
        what: the fact, in words.
        harmless: nothing is lost or wrong by it; a garbage collection removes it.
    """

    kind: str
    where: str
    what: str
    harmless: bool = False

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.what}"


def check_store(store: Store, *, full: bool = False, cancel: Cancel | None = None) -> list[Problem]:
    """Return everything that is wrong with `store`; an empty list for a sound one. Changes nothing.

    Args:
        store: what to look at.
        full: also read every blob and compare its content with its name (as fast as the disk).
        cancel: stops a long check.

    Raises:
        CancelledError: `cancel` was cancelled.
    """
    problems = [*_check_layout(store), *_check_images(store), *_check_blobs(store, full, cancel or Cancel())]
    problems += [
        Problem("leftover", str(path), "a partial write nobody finishes", harmless=True) for path in store.leftovers()
    ]
    return problems


def _check_layout(store: Store) -> Iterator[Problem]:
    """Look at the marker file."""
    path = os.path.join(store.root, "oci-layout")
    try:
        version = parse_object(read_capped(path, 4096), path).get("imageLayoutVersion")
    except Error as exc:
        yield Problem("layout", path, exc.what)
        return
    if version != "1.0.0":
        yield Problem("layout", path, f"layout version {version!r}, expected '1.0.0'")


def _check_images(store: Store) -> Iterator[Problem]:
    """Look at `index.json` and at everything it leads to."""
    try:
        images = store.images()
    except StorageError as exc:
        yield Problem("index", os.path.join(store.root, "index.json"), exc.what)
        return
    names = [image.name for image in images if image.name]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Problem("index", name, "the name is given to several images")
    for image in images:
        yield from _check_image(store, image.name or str(image.descriptor.digest), image.descriptor)


def _check_image(store: Store, name: str, root: Descriptor) -> Iterator[Problem]:
    """Look at what one image is made of."""
    try:
        for descriptor, error in walk(store, [root]):
            if error is not None and not isinstance(error, MissingBlobError):
                yield Problem("manifest", name, f"{descriptor.digest}: {getattr(error, 'what', error)}")
                continue
            try:
                size = store.size(descriptor.digest)
            except MissingBlobError:
                yield Problem("missing", name, f"{descriptor.digest} is not in the store")
            except CorruptError as exc:
                yield Problem("digest", name, f"{descriptor.digest}: {exc.what}")
            else:
                if size != descriptor.size:
                    yield Problem("size", name, f"{descriptor.digest} has {size} bytes, expected {descriptor.size}")
    except CorruptError as exc:
        yield Problem("manifest", name, exc.what)


def _check_blobs(store: Store, full: bool, cancel: Cancel) -> Iterator[Problem]:
    """Look at the files below `blobs/`."""
    blobs = os.path.join(store.root, "blobs")
    for algorithm in sorted(os.listdir(blobs)) if os.path.isdir(blobs) else []:
        folder = os.path.join(blobs, algorithm)
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            cancel.check()
            path = os.path.join(folder, name)
            try:
                digest = Digest(f"{algorithm}:{name}")
            except InputError:
                yield Problem("foreign", path, "not the name of a blob", harmless=True)
                continue
            if not stat.S_ISREG(os.lstat(path).st_mode):
                yield Problem("digest", path, "not a regular file")
            elif full and (found := _hash(path, digest.algorithm, cancel)) != digest.hex:
                yield Problem("digest", path, f"the content has the digest {digest.algorithm}:{found}")


def _hash(path: str, algorithm: str, cancel: Cancel) -> str:
    """Return the hex digest of a file; an I/O error is told in its place."""
    running = hashlib.new(algorithm)
    try:
        fd = open_regular(path)
    except StorageError as exc:
        return exc.what
    try:
        while part := os.read(fd, _CHUNK_BYTES):
            cancel.check()
            running.update(part)
    except OSError as exc:
        return str(exc)
    finally:
        os.close(fd)
    return running.hexdigest()
