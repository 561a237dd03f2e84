"""`lamina save`: images of the store as one archive, for docker or for OCI tools."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.errors import InputError
from lamina.exporter.images import ImageSet
from lamina.exporter.layout_out import Bundle, make_bundle, name_entries, write_archive
from lamina.exporter.protocol import Surroundings
from lamina.image.view import load_image
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.platform import Platform
from lamina.store.reach import missing_blobs, walk
from lamina.store.store import Store


def save_images(
    store: Store,
    images: Sequence[tuple[Descriptor, tuple[str, ...]]],
    dest: str,
    around: Surroundings,
    *,
    archive: str = "docker",
    platform: Platform | None = None,
) -> None:
    """Write images to an archive.

    Args:
        store: where they are.
        images: manifest or index of each, with the full references it shall have in the archive.
        dest: path of the archive, "-" for standard output.
        around: cancellation, standard output, working directory.
        archive: `docker` for what `docker load` reads, `oci` for an OCI archive.
        platform: which one of several for docker's archive, None for this machine's.

    Raises:
        InputError: no image was named, or one is damaged or not for the platform.
        StorageError: the archive cannot be written.
    """
    if not images:
        raise InputError("no image to save")
    if archive == "docker":
        loaded = [(load_image(store, descriptor, platform, "".join(names[:1])), names) for descriptor, names in images]
        bundle = make_bundle([ImageSet((image,), None, names) for image, names in loaded], docker=True)
    else:
        bundle = _whole(store, images)
    write_archive(bundle, store, dest, around)


def _whole(store: Store, images: Sequence[tuple[Descriptor, tuple[str, ...]]]) -> Bundle:
    """Return everything the images are made of, attestations too."""
    blobs: dict[Digest, Descriptor] = {}
    for descriptor, names in images:
        missing = missing_blobs(store, [descriptor])
        if missing:
            raise InputError(f"{len(missing)} blobs of the image are not in the store", where="".join(names[:1]))
        blobs.update({found.digest: found for found, _ in walk(store, [descriptor])})
    entries = [entry for descriptor, names in images for entry in name_entries(descriptor, names)]
    return Bundle(tuple(entries), {}, tuple(blobs.values()))
