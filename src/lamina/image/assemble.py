"""Layers and a config become an image; images for several platforms become an index.

Values in, bytes out: nothing is written but by `write_image` and `write_index`. The same arguments always give the
same bytes.

    image = assemble(layers, config)
    store.tag(name, write_image(store, image))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from lamina.errors import InputError
from lamina.oci.config import ImageConfig, dump_config, parse_config
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest, sha256_digest
from lamina.oci.manifest import Manifest, dump_index, dump_manifest, parse_manifest
from lamina.oci.media_types import (
    DOCKER_CONFIG,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    convert_layer_type,
)
from lamina.oci.platform import Platform

FILLER = {"created_by": "unknown", "comment": "a layer its history did not mention"}


@dataclass(frozen=True, slots=True)
class LayerBlob:
    """A layer as a blob: where its bytes are, and the digest they have uncompressed."""

    descriptor: Descriptor
    diff_id: Digest


@dataclass(frozen=True, slots=True)
class Image:
    """An image for one platform, as bytes and as values.

    Attributes:
        descriptor: points at the manifest; carries the platform.
        manifest: the manifest, with its bytes.
        config: the config, with its bytes; its digest is the image ID.
        layers: bottom first; their descriptors are those of the manifest.
    """

    descriptor: Descriptor
    manifest: Manifest = field(repr=False)
    config: ImageConfig = field(repr=False)
    layers: tuple[LayerBlob, ...] = field(repr=False)

    @property
    def platform(self) -> Platform:
        """What the image runs on."""
        return self.config.platform

    @property
    def id(self) -> Digest:
        """The image ID: the digest of the config."""
        return self.manifest.config.digest


@dataclass(frozen=True, slots=True)
class ImageIndex:
    """An index of images, as bytes and as the descriptor that points at it."""

    descriptor: Descriptor
    raw: bytes = field(repr=False)


class BlobSink(Protocol):
    """The part of a store that takes small blobs."""

    def add(self, data: bytes, *, durable: bool = False) -> tuple[Digest, int]:
        """Store `data` unless it is here, and return its digest and size."""


def assemble(
    layers: Sequence[LayerBlob],
    config: Mapping[str, Any],
    *,
    media_types: str = "oci",
    annotations: Mapping[str, str] | None = None,
    keep_history: bool = True,
) -> Image:
    """Make an image of layers and a config.

    Args:
        layers: bottom first.
        config: an image config object; its `rootfs` is replaced by the layers', its history made to fit them.
        media_types: whose, "oci" or "docker".
        annotations: for the manifest; docker's manifests have none.
        keep_history: False drops the history.

    Raises:
        InputError: the config has a field of the wrong type, or a layer is not a layer.
    """
    docker = _is_docker(media_types)
    fields = dict(config)
    fields["rootfs"] = {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]}
    fields["history"] = fit_history(fields.get("history") or [], len(layers)) if keep_history else []
    parsed = parse_config(dump_config(fields), "image config")
    media_type = DOCKER_CONFIG if docker else OCI_CONFIG
    config_descriptor = Descriptor(media_type, sha256_digest(parsed.raw), len(parsed.raw))
    typed = tuple(_typed(layer, docker) for layer in layers)
    raw = dump_manifest(
        config_descriptor,
        [layer.descriptor for layer in typed],
        media_type=DOCKER_MANIFEST if docker else OCI_MANIFEST,
        annotations=annotations,
    )
    manifest = parse_manifest(raw)
    return Image(manifest.descriptor(parsed.platform), manifest, parsed, typed)


def fit_history(history: Iterable[Mapping[str, Any]], layers: int) -> list[dict[str, Any]]:
    """Return a history with exactly `layers` rows that made a layer.

    A layer that no row speaks of gets a row at the end; a row too many is marked as having made none. Tools that
    show sizes beside history (and some that check images) rely on the numbers agreeing.
    """
    rows: list[dict[str, Any]] = []
    left = layers
    for row in history:
        row = dict(row)
        if not row.get("empty_layer"):
            if left:
                left -= 1
            else:
                row["empty_layer"] = True
        rows.append(row)
    created = next((row["created"] for row in reversed(rows) if row.get("created")), None)
    filler = {**FILLER, "created": created} if created else FILLER
    return rows + [dict(filler) for _ in range(left)]


def make_index(
    images: Sequence[Image],
    *,
    media_types: str = "oci",
    annotations: Mapping[str, str] | None = None,
    beside: Sequence[Descriptor] = (),
) -> ImageIndex:
    """Make an index of images for several platforms, in the order given.

    Args:
        beside: manifests that are no images, behind those that are.

    Raises:
        InputError: two images are for the same platform.
    """
    platforms = [image.platform for image in images]
    double = next((platform for platform in platforms if platforms.count(platform) > 1), None)
    if double is not None:
        raise InputError(f"two images for the platform {double}")
    descriptors = [replace(image.descriptor, platform=image.platform) for image in images]
    media_type = DOCKER_LIST if _is_docker(media_types) else OCI_INDEX
    raw = dump_index([*descriptors, *beside], media_type=media_type, annotations=annotations)
    return ImageIndex(Descriptor(media_type, sha256_digest(raw), len(raw)), raw)


def write_image(store: BlobSink, image: Image) -> Descriptor:
    """Put config and manifest into the store and return the manifest's descriptor; the layers are there already."""
    store.add(image.config.raw)
    store.add(image.manifest.raw)
    return image.descriptor


def write_index(store: BlobSink, index: ImageIndex) -> Descriptor:
    """Put the index into the store and return its descriptor."""
    store.add(index.raw)
    return index.descriptor


def _is_docker(media_types: str) -> bool:
    """Tell whose media types are asked for."""
    if media_types not in ("oci", "docker"):
        raise InputError(f"media types are 'oci' or 'docker', not {media_types[:80]!r}")
    return media_types == "docker"


def _typed(layer: LayerBlob, docker: bool) -> LayerBlob:
    """Return the layer under the media type of the family asked for, without what belongs to another manifest."""
    media_type = convert_layer_type(layer.descriptor.media_type, docker=docker)
    if media_type == layer.descriptor.media_type:
        return layer
    return replace(layer, descriptor=replace(layer.descriptor, media_type=media_type))
