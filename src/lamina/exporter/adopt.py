"""Images that others made become images of the store: checked to the bottom, then named.

Before an image gets a name here, every blob has its digest and size, config and manifest agree in number, and every
layer has, uncompressed, the digest that the config says. Other tools find that out when they unpack, or never.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.exporter.convert import check_diff_id
from lamina.exporter.layout_out import CONTAINERD_NAME
from lamina.image.view import image_of, iter_manifests
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.manifest import parse_manifest
from lamina.oci.media_types import CONFIG_TYPES
from lamina.oci.reference import Reference
from lamina.store.names import REF_NAME
from lamina.store.reach import missing_blobs
from lamina.store.store import Store, StoredImage


@dataclass(frozen=True, slots=True)
class Found:
    """An image that was found in an archive or layout: its manifest or index, and its full references."""

    descriptor: Descriptor
    names: tuple[str, ...]


def adopt(store: Store, found: Sequence[Found], name: str, cancel: Cancel, where: str) -> list[StoredImage]:
    """Check the images, whose blobs are in the store, and name them.

    Args:
        store: where the blobs are.
        found: the images.
        name: reference for the only image that brings no name, "" to keep it without.
        cancel: stops the checks.
        where: archive or layout, for messages.

    Returns:
        One value for each name, or for each image without one.

    Raises:
        InputError: there is no image, or one is incomplete or contradicts itself; nothing was named.
    """
    if not found:
        raise InputError("there is no image in it", where=where)
    nameless = [image for image in found if not image.names]
    if name and len(nameless) > 1:
        raise InputError(f"{len(nameless)} images without a name, and one name for them", where=where)
    checked: set[tuple[Digest, Digest]] = set()
    for image in found:
        _check(store, image.descriptor, checked, cancel, where)
    stored: list[StoredImage] = []
    for image in found:
        for given in image.names or ((str(Reference.parse(name)),) if name else ("",)):
            descriptor = _bare(image.descriptor)
            store.tag(given, descriptor, keep_dangling=True)
            stored.append(StoredImage(given, descriptor))
    return stored


def names_of(descriptor: Descriptor) -> tuple[str, ...]:
    """Return the full reference that an entry of an `index.json` states, none when it states only a tag."""
    for text in (descriptor.annotations.get(CONTAINERD_NAME, ""), descriptor.annotations.get(REF_NAME, "")):
        if not any(mark in text for mark in "/:"):
            continue  # "latest" says nothing about what it is the latest of
        try:
            ref = Reference.parse(text)
        except InputError:
            continue
        if ref.tag:
            return (str(Reference(ref.registry, ref.repository, ref.tag)),)
    return ()


def merge_found(found: Iterable[Found]) -> list[Found]:
    """Return each image once with all its names."""
    names: dict[Digest, list[str]] = {}
    descriptors: dict[Digest, Descriptor] = {}
    for image in found:
        descriptors.setdefault(image.descriptor.digest, image.descriptor)
        names.setdefault(image.descriptor.digest, []).extend(image.names)
    return [Found(descriptor, tuple(dict.fromkeys(names[digest]))) for digest, descriptor in descriptors.items()]


def _bare(descriptor: Descriptor) -> Descriptor:
    """Return the descriptor without the names others gave it."""
    kept = {key: value for key, value in descriptor.annotations.items() if key not in (CONTAINERD_NAME, REF_NAME)}
    return Descriptor(
        descriptor.media_type,
        descriptor.digest,
        descriptor.size,
        kept,
        descriptor.platform,
        descriptor.artifact_type,
    )


def _check(store: Store, root: Descriptor, checked: set[tuple[Digest, Digest]], cancel: Cancel, where: str) -> None:
    """Raise unless everything below `root` is here and agrees with itself."""
    missing = missing_blobs(store, [root])
    if missing:
        raise InputError(
            f"{len(missing)} blobs of the image are missing or have another size, first {missing[0]}",
            where=where,
            hint="an index for several platforms must come with all of them",
        )
    for descriptor in iter_manifests(store, root, where):
        manifest = parse_manifest(store.read(descriptor.digest), descriptor.media_type, where)
        if manifest.config.media_type not in CONFIG_TYPES:
            continue  # an artifact: nothing to run, nothing to unpack
        for layer in image_of(store, manifest, descriptor, where).layers:
            pair = (layer.descriptor.digest, layer.diff_id)
            if pair not in checked:
                check_diff_id(store, layer, cancel, where)
                checked.add(pair)
