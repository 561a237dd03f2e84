"""Images between the store and elsewhere: `pull`, `push`, `save`, `load`.

In: the machine's side (`Environment`), the user's side (`Side`), and names. Out: rows of the images that moved.
Blobs move several at once; every blob that comes is checked against its descriptor before it is in the store, and
an image gets its name only when it is here whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lamina.cancel import Cancel
from lamina.engine.images import ImageRow, find_image, row_of
from lamina.engine.options import Environment
from lamina.engine.place import CredentialSource, Place
from lamina.errors import InputError
from lamina.exporter.archive_in import load_archive
from lamina.exporter.attestations import stored_manifests
from lamina.exporter.image import push_images
from lamina.exporter.images import ImageSet
from lamina.exporter.layout_in import load_layout
from lamina.exporter.protocol import Result, Surroundings
from lamina.exporter.save import save_images
from lamina.image.assemble import ImageIndex
from lamina.image.view import iter_manifests, load_image
from lamina.oci.descriptor import Descriptor
from lamina.oci.media_types import INDEX_TYPES
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.progress import Sink, StatusEvent, VertexEvent
from lamina.store.store import Store, StoredImage

PARALLEL = 4
"""Blobs that move at once."""


@dataclass(frozen=True, slots=True)
class Side:
    """The user's side of a transfer: what opens registries, who watches, what stops it."""

    credentials: CredentialSource
    sink: Sink
    cancel: Cancel


class _Vertex:
    """One vertex of the display for the whole transfer; a context manager."""

    def __init__(self, side: Side, name: str) -> None:
        self._side, self._name = side, name
        self._started = time.time()

    def __enter__(self) -> _Vertex:
        self._side.sink(VertexEvent(self._name, self._name, started=self._started))
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        text = "" if error is None else str(error) or "cancelled"
        event = VertexEvent(self._name, self._name, started=self._started, completed=time.time(), error=text)
        self._side.sink(event)

    def moved(self, what: str, current: int, total: int) -> None:
        """Tell the display how far a blob is."""
        done = time.time() if total and current >= total else None
        self._side.sink(StatusEvent(self._name, what, current, total, started=self._started, completed=done))


def pull(environment: Environment, name: str, side: Side, *, platform: str = "") -> ImageRow:
    """Fetch an image for one platform and keep it under its name.

    Args:
        environment: the machine's side.
        name: a reference; with a digest, the image is kept without a name unless there is a tag too.
        side: the user's side.
        platform: `os/arch`, "" for this machine's.

    Raises:
        InputError: not a reference, or nothing for the platform.
        NetworkError: the registry cannot be reached, or refuses.
    """
    reference = Reference.parse(name)
    wanted = Platform.parse(platform) if platform else None
    with (
        _Vertex(side, f"pulling {reference.familiar()}") as vertex,
        Place(environment, side.cancel, credentials=side.credentials, on_bytes=vertex.moved, pull=True) as place,
    ):
        image = place.images.resolve(reference, wanted, side.cancel)
        blobs = [image.manifest.config, *image.manifest.layers]
        _each(side.cancel, [d for d in _unique(blobs) if not place.store.has(d.digest)], _fetcher(place, reference))
        descriptor = image.manifest.descriptor()
        kept = str(Reference(reference.registry, reference.repository, reference.tag)) if reference.tag else ""
        place.store.tag(kept, descriptor, keep_dangling=True)
        return row_of(place.store, StoredImage(kept, descriptor))


def _fetcher(place: Place, reference: Reference) -> Callable[[Descriptor], None]:
    """Return a function that brings one blob into the store; an interrupted one is taken up again later."""

    def fetch(descriptor: Descriptor) -> None:
        with place.store.ingest(descriptor, resume_key=str(descriptor.digest)) as ingest:
            place.registry.blob(reference, descriptor, ingest)
            ingest.commit()

    return fetch


def push(environment: Environment, name: str, side: Side, *, destination: str = "") -> ImageRow:
    """Upload an image of the store, all its platforms, to the registry its name says (or `destination`'s).

    Raises:
        InputError: no such image, or no name to push it under.
        NetworkError: the registry cannot be reached, or refuses.
    """
    reference = Reference.parse(destination or name)
    with (
        _Vertex(side, f"pushing {reference.familiar()}") as vertex,
        Place(environment, side.cancel, credentials=side.credentials, on_bytes=vertex.moved) as place,
    ):
        found = find_image(place.store, name)
        images = _image_set(place.store, found)
        lenders = _lenders(place.store, reference)
        layers = [layer.descriptor.digest for image in images.images for layer in image.layers]
        result = Result((), place.store, mount_from=dict.fromkeys(layers, lenders))
        push_images(result, images, (str(reference),), place.registry, side.cancel)
        return row_of(place.store, StoredImage(str(reference), found.descriptor))


def _lenders(store: Store, reference: Reference) -> list[Reference]:
    """Return repositories of the same registry that images here came from: they may lend a blob."""
    found: dict[str, Reference] = {}
    for image in store.images():
        try:
            other = Reference.parse(image.name) if image.name else None
        except InputError:
            continue
        if other is not None and other.registry == reference.registry and other.repository != reference.repository:
            found[other.repository] = other
    return list(found.values())[:3]


def save(
    environment: Environment, names: Sequence[str], dest: str, side: Side, *, archive: str = "docker", stdout: BinaryIO
) -> list[ImageRow]:
    """Write images as one archive.

    Args:
        environment: the machine's side.
        names: names or IDs of images.
        dest: path to write, "-" for standard output.
        side: the user's side.
        archive: "docker" for what `docker load` takes (one platform per image), "oci" for an OCI layout.
        stdout: where "-" goes.

    Raises:
        InputError: no such image, or several platforms for docker.
        StorageError: it could not be written, or a blob is missing.
    """
    with (
        _Vertex(side, f"saving {', '.join(names)}") as vertex,
        Place(environment, side.cancel, credentials=side.credentials) as place,
    ):
        found = [find_image(place.store, name) for name in names]
        around = Surroundings(side.cancel, Path.cwd(), stdout=stdout, progress=vertex.moved)
        wanted = [(image.descriptor, (image.name,) if image.name else ()) for image in found]
        save_images(place.store, wanted, dest, around, archive=archive)
        return [row_of(place.store, image) for image in found]


def _image_set(store: Store, image: StoredImage) -> ImageSet:
    """Return an image of the store as exporters take it, with its index where it has one."""
    views = tuple(load_image(store, found) for found in iter_manifests(store, image.descriptor))
    names = (image.name,) if image.name else ()
    if image.descriptor.media_type in INDEX_TYPES:
        index = ImageIndex(image.descriptor, store.read(image.descriptor.digest))
        return ImageSet(views, index, names, stored_manifests(store, index.raw))
    return ImageSet(views, None, names)


def load(environment: Environment, source: str, side: Side, *, name: str = "", stdin: BinaryIO) -> list[ImageRow]:
    """Read images into the store, from an OCI layout directory or an archive of one, or of docker's kind.

    Args:
        environment: the machine's side.
        source: path, "-" for standard input.
        side: the user's side.
        name: for an image that brings no name of its own.
        stdin: what "-" reads.

    Raises:
        InputError: it is neither, or an image in it is not sound.
        StorageError: the store cannot be written.
    """
    with (
        _Vertex(side, f"loading {source}") as vertex,
        Place(environment, side.cancel, credentials=side.credentials) as place,
    ):
        if source != "-" and Path(source).is_dir():
            stored = load_layout(place.store, Path(source), name=name, cancel=side.cancel, progress=vertex.moved)
        else:
            with nullcontext(stdin) if source == "-" else _open(source) as file:
                stored = load_archive(
                    place.store, file.read, name=name, cancel=side.cancel, progress=vertex.moved, where=source
                )
        return [row_of(place.store, image) for image in stored]


def _open(path: str) -> BinaryIO:
    try:
        return open(path, "rb", buffering=0)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from error


def _unique(descriptors: Iterable[Descriptor]) -> list[Descriptor]:
    return list({descriptor.digest: descriptor for descriptor in descriptors}.values())


def _each(cancel: Cancel, descriptors: Sequence[Descriptor], work: Callable[[Descriptor], None]) -> None:
    """Do `work` for every blob, a few at once; the first failure stops the others and is raised."""
    if not descriptors:
        return
    with ThreadPoolExecutor(min(PARALLEL, len(descriptors)), "transfer") as pool:
        futures = [pool.submit(work, descriptor) for descriptor in descriptors]
        try:
            for future in futures:
                future.result()
                cancel.check()
        except BaseException:
            for future in futures:
                future.cancel()
            raise
