"""Images between the store and elsewhere: `pull`, `push`, `save`, `load`.

In: the machine's side (`Environment`), the user's side (`Side`), and names. Out: rows of the images that moved.
Blobs move several at once; every blob that comes is checked against its descriptor before it is in the store, and
an image gets its name only when it is here whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lamina.cancel import Cancel
from lamina.engine.images import ImageRow, find_image, row_of
from lamina.engine.options import Environment
from lamina.engine.place import CredentialSource, Place
from lamina.errors import InputError, NotYetError
from lamina.exporter.images import ImageSet
from lamina.exporter.layout_out import make_bundle, write_archive
from lamina.exporter.protocol import Surroundings
from lamina.image.assemble import ImageIndex
from lamina.image.view import iter_manifests, load_image
from lamina.oci.descriptor import Descriptor
from lamina.oci.manifest import Manifest, parse_any
from lamina.oci.media_types import INDEX_TYPES
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.progress import Sink, StatusEvent, VertexEvent
from lamina.store.reach import children
from lamina.store.store import Store, StoredImage

PARALLEL = 4
"""Blobs that move at once."""
_CHUNK = 1 << 20


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
        _push_tree(place, found.descriptor, reference, _lenders(place.store, reference))
        return row_of(place.store, StoredImage(str(reference), found.descriptor))


def _push_tree(place: Place, top: Descriptor, reference: Reference, lenders: Sequence[Reference]) -> None:
    """Push what `top` names before `top` itself: blobs, then manifests by digest, at last the tag."""
    raw = place.store.read(top.digest)
    parsed = parse_any(raw, top.media_type, str(reference))
    if isinstance(parsed, Manifest):

        def send(descriptor: Descriptor) -> None:
            place.registry.push_blob(reference, descriptor, lambda: place.store.open(descriptor.digest), lenders)

        _each(place.cancel, _unique([parsed.config, *parsed.layers]), send)
    else:
        for child in parsed.manifests:
            _push_tree(place, child, Reference(reference.registry, reference.repository, "", child.digest), lenders)
    place.registry.push_manifest(reference, parsed.media_type, raw)


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
        sets = [_image_set(place.store, image) for image in found]
        around = Surroundings(side.cancel, Path.cwd(), stdout=stdout, progress=vertex.moved)
        write_archive(make_bundle(sets, docker=archive == "docker"), place.store, dest, around)
        return [row_of(place.store, image) for image in found]


def _image_set(store: Store, image: StoredImage) -> ImageSet:
    """Return an image of the store as exporters take it, with its index where it has one."""
    views = tuple(load_image(store, found) for found in iter_manifests(store, image.descriptor))
    names = (image.name,) if image.name else ()
    if image.descriptor.media_type in INDEX_TYPES:
        index = ImageIndex(image.descriptor, store.read(image.descriptor.digest))
        return ImageSet(views, index, names)
    return ImageSet(views, None, names)


def load(environment: Environment, source: str, side: Side, *, name: str = "") -> list[ImageRow]:
    """Read images into the store, from an OCI layout directory or an archive of one (or of docker's kind).

    Args:
        environment: the machine's side.
        source: path, "-" for standard input.
        side: the user's side.
        name: for an image that brings no name of its own.

    Raises:
        InputError: it is neither, or malformed.
        StorageError: a blob is missing or damaged.
    """
    if source != "-" and Path(source).is_dir():
        return load_layout(environment, Path(source), side, name=name)
    raise NotYetError("loading archives", hint="unpack it and load the directory")


def load_layout(environment: Environment, path: Path, side: Side, *, name: str = "") -> list[ImageRow]:
    """Copy the images of an OCI layout directory into the store.

    Args:
        environment: the machine's side.
        path: the layout's directory.
        side: the user's side.
        name: for an image that brings no name of its own; only where the layout holds exactly one.

    Raises:
        InputError: the directory is no layout, or the name does not say which of several it is for.
        StorageError: a blob is missing or damaged.
    """
    if not (path / "oci-layout").is_file():
        raise InputError("not an OCI layout", where=str(path), hint="it holds no file oci-layout")
    source = Store(path, create=False)
    images = source.images()
    if name and len(images) != 1:
        raise InputError(f"the layout holds {len(images)} images, and one name was given", where=str(path))
    with (
        _Vertex(side, f"loading {path}") as vertex,
        Place(environment, side.cancel, credentials=side.credentials) as place,
    ):
        rows = []
        for image in images:
            _copy_tree(source, place.store, image.descriptor, vertex, side.cancel)
            kept = _stored_name(name or image.name)
            place.store.tag(kept, image.descriptor, keep_dangling=True)
            rows.append(row_of(place.store, StoredImage(kept, image.descriptor)))
        return rows


def _copy_tree(source: Store, target: Store, top: Descriptor, vertex: _Vertex, cancel: Cancel) -> None:
    """Copy everything that `top` names, then `top`; each blob is checked as it is written."""
    for child in children(source, top):
        _copy_tree(source, target, child, vertex, cancel)
    if target.has(top.digest):
        return
    with source.open(top.digest) as blob, target.ingest(top) as ingest:
        copied = 0
        while data := blob.read(_CHUNK):
            cancel.check()
            ingest.write(data)
            copied += len(data)
            vertex.moved(str(top.digest), copied, top.size)
        ingest.commit()


def _stored_name(name: str) -> str:
    """Return the full form of a name that an archive brings; names that are no references get lost."""
    try:
        return str(Reference.parse(name)) if name else ""
    except InputError:
        return ""


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
