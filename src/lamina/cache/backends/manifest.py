"""A publication as an OCI image manifest or index, as BuildKit's registry and local caches are kept. Pure.

The config is BuildKit's cache config; the document is one more blob beside the layers, which BuildKit passes over.
Sources: image-spec manifest.md and image-index.md; BuildKit's docs on the registry cache's `image-manifest`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lamina.cache.backend import Publication
from lamina.cache.buildkit_config import BUILDKIT_MEDIA_TYPE
from lamina.cache.document import MEDIA_TYPE
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest, sha256_digest
from lamina.oci.manifest import Manifest, parse_any
from lamina.oci.media_types import DOCKER_LIST, OCI_INDEX, OCI_MANIFEST


@dataclass(frozen=True, slots=True)
class CacheManifest:
    """What a manifest says: the document's descriptor (None in BuildKit's own), BuildKit's config, all blobs."""

    document: Descriptor | None
    config: Descriptor | None
    blobs: frozenset[Digest]
    annotations: Mapping[str, str]


def document_of(publication: Publication) -> Descriptor:
    """Return the descriptor of the publication's document."""
    return Descriptor(MEDIA_TYPE, sha256_digest(publication.document), len(publication.document))


def config_of(publication: Publication) -> Descriptor:
    """Return the descriptor of the publication's BuildKit config."""
    return Descriptor(BUILDKIT_MEDIA_TYPE, sha256_digest(publication.config), len(publication.config))


def dump_cache_manifest(
    publication: Publication, *, image_manifest: bool, oci: bool, annotations: Mapping[str, str]
) -> tuple[str, bytes]:
    """Return media type and bytes of the manifest (or index) that stands for a publication."""
    blobs = [blob.to_json() for blob in (*publication.blobs, document_of(publication))]
    config = config_of(publication).to_json()
    media_type = OCI_MANIFEST if image_manifest else OCI_INDEX if oci else DOCKER_LIST
    obj: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type}
    if image_manifest:
        obj |= {"config": config, "layers": blobs}
    else:
        obj |= {"manifests": [*blobs, config]}
    if annotations:
        obj["annotations"] = dict(sorted(annotations.items()))
    return media_type, json.dumps(obj, separators=(",", ":")).encode()


def read_cache_manifest(raw: bytes, media_type: str = "", where: str = "") -> CacheManifest:
    """Return what a manifest or index says; one that is no cache has neither document nor config.

    Raises:
        InputError: it is malformed.
    """
    found = parse_any(raw, media_type, where)
    if isinstance(found, Manifest):
        blobs, config = found.layers, found.config if found.config.media_type == BUILDKIT_MEDIA_TYPE else None
    else:
        blobs = found.manifests
        config = next((blob for blob in blobs if blob.media_type == BUILDKIT_MEDIA_TYPE), None)
    document = next((blob for blob in blobs if blob.media_type == MEDIA_TYPE), None)
    return CacheManifest(document, config, frozenset(blob.digest for blob in blobs), found.annotations)
