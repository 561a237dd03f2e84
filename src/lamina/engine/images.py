"""The images of the store: list, name, remove, show. What `lamina images`, `tag`, `rmi`, `history` and `inspect` do.

In: the state directory and names as people write them (a reference, or the beginning of an image ID). Out: plain
values. Nothing here runs or unpacks an image.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lamina.errors import Error, InputError
from lamina.image.inspect import history_rows, image_size
from lamina.image.inspect import inspect_image as inspect_object
from lamina.image.view import iter_manifests, load_image
from lamina.oci.descriptor import Descriptor
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.store.store import Store, StoredImage


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One name of one image.

    Attributes:
        name: as docker shows it, "" for an image without a name.
        digest: digest of its manifest or index.
        image_id: digest of its config; of the index where it has several platforms.
        platform: one platform, or several separated by commas.
        created: seconds since the epoch, None when the image does not say.
        size_bytes: all its blobs as they are stored.
    """

    name: str
    digest: str
    image_id: str
    platform: str
    created: float | None
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the row as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """One step of an image's history, newest first; `digest` is its layer's, "" for a step without one."""

    digest: str
    created: float | None
    created_by: str
    size_bytes: int
    comment: str

    def to_json(self) -> dict[str, Any]:
        """Return the line as a JSON object."""
        return asdict(self)


def open_store(root: Path) -> Store:
    """Return the image store in the state directory, made when it is not there."""
    return Store(root / "oci")


def find_image(store: Store, name: str) -> StoredImage:
    """Return the image that `name` stands for: a reference, or the beginning of an image ID or digest.

    Raises:
        InputError: there is none, or the beginning fits several.
    """
    try:
        descriptor = store.resolve(name)
    except InputError:
        descriptor = None
        if not name.startswith("sha256:"):
            raise
    if descriptor is not None:
        return StoredImage(full_name(name), descriptor)
    found = store.resolve_id(name)
    if len({image.descriptor.digest for image in found}) > 1:
        raise InputError(f"{name!r} is the beginning of several image IDs", hint="write more of it")
    if found:
        return found[0]
    raise InputError(f"no such image: {name[:200]!r}", hint="`lamina images` lists what is there")


def full_name(name: str) -> str:
    """Return a reference in full, or `name` itself where it is none."""
    try:
        return str(Reference.parse(name))
    except InputError:
        return name


def list_images(root: Path) -> list[ImageRow]:
    """Return one row per name, newest image first; a damaged image is listed with what is known of it."""
    store = open_store(root)
    rows = [row_of(store, image) for image in store.images()]
    return sorted(rows, key=lambda row: (-(row.created or 0.0), row.name))


def row_of(store: Store, image: StoredImage) -> ImageRow:
    """Return the row of one image."""
    descriptor, name = image.descriptor, _familiar(image.name)
    try:
        views = [load_image(store, found) for found in iter_manifests(store, descriptor)]
    except Error:
        return ImageRow(name, str(descriptor.digest), str(descriptor.digest), "damaged", None, descriptor.size)
    single = len(views) == 1
    created = [time for view in views if (time := _seconds(view.config.created)) is not None]
    return ImageRow(
        name=name,
        digest=str(descriptor.digest),
        image_id=str(views[0].id if single else descriptor.digest),
        platform=",".join(str(view.platform) for view in views),
        created=max(created, default=None),
        size_bytes=sum(image_size(view) for view in views),
    )


def tag_image(root: Path, source: str, target: str) -> str:
    """Give an image another name and return it in full.

    Raises:
        InputError: no such image, or the new name is none or holds a digest.
    """
    name = Reference.parse(target)
    if name.digest is not None:
        raise InputError(f"a name must not hold a digest: {target!r}")
    store = open_store(root)
    store.tag(str(name), find_image(store, source).descriptor)
    return str(name)


def remove_image(root: Path, name: str) -> list[str]:
    """Take a name away, or all names of the image with this ID, and return the names that went.

    Raises:
        InputError: there is no such image.
    """
    store = open_store(root)
    known = {image.name for image in store.images()}
    for exact in (name, full_name(name)):
        if exact and exact in known:
            store.untag(exact)
            return [_familiar(exact)]
    image = find_image(store, name)
    names = store.untag_digest(image.descriptor.digest)
    return [_familiar(gone) for gone in names] or [str(image.descriptor.digest)]


def image_history(root: Path, name: str, platform: str = "") -> list[HistoryLine]:
    """Return the steps that made an image, newest first. Raises as `find_image`."""
    store = open_store(root)
    image = load_image(store, find_image(store, name).descriptor, _platform(platform), name)
    return [
        HistoryLine(str(row.layer or ""), _seconds(row.created), row.created_by, row.size, row.comment)
        for row in history_rows(image)
    ]


def inspect_image(root: Path, name: str, platform: str = "") -> dict[str, Any]:
    """Return what `docker image inspect` shows of an image. Raises as `find_image`."""
    store = open_store(root)
    descriptor = find_image(store, name).descriptor
    return inspect_object(load_image(store, descriptor, _platform(platform), name), names_of(store, descriptor))


def names_of(store: Store, descriptor: Descriptor) -> list[str]:
    """Return every name an image has, in full."""
    return [image.name for image in store.images() if image.name and image.descriptor.digest == descriptor.digest]


def _platform(text: str) -> Platform | None:
    return Platform.parse(text) if text else None


def _familiar(name: str) -> str:
    """Return a full reference in docker's short form; other names as they are."""
    try:
        return Reference.parse(name).familiar() if name else ""
    except InputError:
        return name


def _seconds(text: str) -> float | None:
    """Return an RFC 3339 time as seconds since the epoch, None when it is none."""
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
