"""Media types of images: OCI's and docker's, and how one turns into the other.

Sources: image-spec media-types.md; docker's "Image Manifest Version 2, Schema 2". Pure tables.
"""

from __future__ import annotations

from lamina.errors import InputError

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_FOREIGN_LAYER = "application/vnd.oci.image.layer.nondistributable.v1.tar"

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar"
DOCKER_SCHEMA1 = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)

MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})

COMPRESSIONS = ("uncompressed", "gzip", "zstd")
"""Compressions of layers, by the names that `--output compression=` takes."""

_OCI_SUFFIX = {"uncompressed": "", "gzip": "+gzip", "zstd": "+zstd"}
_DOCKER_SUFFIX = {"uncompressed": "", "gzip": ".gzip", "zstd": ".zstd"}


def layer_media_type(compression: str, *, docker: bool = False) -> str:
    """Return the media type of a layer with this compression (one of `COMPRESSIONS`)."""
    if docker:
        return DOCKER_LAYER + _DOCKER_SUFFIX[compression]
    return OCI_LAYER + _OCI_SUFFIX[compression]


def layer_compression(media_type: str) -> str:
    """Return the compression a layer's media type claims.

    Raises:
        InputError: it is not the media type of a file system layer.
    """
    base, _, suffix = media_type.partition("+")
    if base in (OCI_LAYER, OCI_FOREIGN_LAYER):
        compression = suffix or "uncompressed"
    else:
        compression = _docker_compression(media_type)
    if compression not in COMPRESSIONS:
        raise InputError(f"not the media type of a layer: {media_type[:140]!r}")
    return compression


def _docker_compression(media_type: str) -> str:
    """Return what follows docker's layer type, "" when it is not one."""
    for base in (DOCKER_LAYER, DOCKER_FOREIGN_LAYER):
        if media_type == base:
            return "uncompressed"
        if media_type.startswith(base + "."):
            return media_type[len(base) + 1 :]
    return ""


def is_layer(media_type: str) -> bool:
    """Tell whether this is the media type of a file system layer in a compression we know."""
    try:
        layer_compression(media_type)
    except InputError:
        return False
    return True


def is_foreign(media_type: str) -> bool:
    """Tell whether the layer may lie outside the registry (its descriptor has `urls`)."""
    return media_type.startswith((OCI_FOREIGN_LAYER, DOCKER_FOREIGN_LAYER))


def convert_layer_type(media_type: str, *, docker: bool) -> str:
    """Return the same layer's media type in the other family; foreign layers stay what they are."""
    if is_foreign(media_type):
        return media_type
    return layer_media_type(layer_compression(media_type), docker=docker)
