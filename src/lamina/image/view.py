"""Images as they lie in a store: from a descriptor and a platform to manifest, config and layers, checked.

Reads manifests and configs, verified by digest; opens no layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from lamina.errors import InputError
from lamina.image.assemble import Image, LayerBlob
from lamina.oci.config import ImageConfig, parse_config
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.manifest import Manifest, parse_any
from lamina.oci.media_types import CONFIG_TYPES
from lamina.oci.platform import Platform, choose_platform

MAX_DEPTH = 8


class BlobReader(Protocol):
    """The part of a store that image views read."""

    def read(self, digest: Digest, max_bytes: int = ...) -> bytes:
        """Return a blob's content, verified."""


def load_image(store: BlobReader, descriptor: Descriptor, platform: Platform | None = None, where: str = "") -> Image:
    """Return the image that `descriptor` leads to.

    Args:
        store: where it lies.
        descriptor: a manifest, or an index to choose from.
        platform: which one of an index; None takes the only one, or the one for this machine.
        where: its name, for messages.

    Raises:
        InputError: no image for the platform (the message lists what there is), or it is damaged.
        StorageError: a blob is missing or damaged.
    """
    where = where or str(descriptor.digest)
    chosen = choose_manifest(store, descriptor, platform, where)
    parsed = parse_any(store.read(chosen.digest), chosen.media_type, where)
    if not isinstance(parsed, Manifest):  # cannot be: choose_manifest went through all indexes
        raise InputError("expected an image manifest", where=where)
    return image_of(store, parsed, chosen, where)


def image_of(store: BlobReader, manifest: Manifest, descriptor: Descriptor, where: str = "") -> Image:
    """Return the image of a parsed manifest; config and layers must agree in number. Raises as `load_image`."""
    if manifest.config.media_type not in CONFIG_TYPES:
        kind = manifest.artifact_type or manifest.config.media_type
        raise InputError(f"not an image that can run but an artifact of type {kind[:140]!r}", where=where)
    config = parse_config(store.read(manifest.config.digest), where)
    config.check_layers(len(manifest.layers), where)
    layers = tuple(LayerBlob(d, diff_id) for d, diff_id in zip(manifest.layers, config.diff_ids, strict=True))
    return Image(replace(descriptor, platform=config.platform), manifest, config, layers)


def choose_manifest(
    store: BlobReader, descriptor: Descriptor, platform: Platform | None = None, where: str = ""
) -> Descriptor:
    """Return the descriptor of the manifest that fits `platform`. Arguments and errors as for `load_image`."""
    offers = list(iter_manifests(store, descriptor, where))
    if not offers:
        raise InputError("the index holds no image", where=where)
    if len(offers) == 1 and platform is None:
        return offers[0]
    from lamina.oci.platform import host_platform

    wanted = platform or host_platform()
    platforms = {offer.digest: _platform_of(store, offer, where) for offer in offers}
    found = choose_platform(wanted, offers, lambda offer: platforms[offer.digest])
    if found is None:
        there = ", ".join(sorted({str(p) for p in platforms.values() if p})) or "none with a platform"
        raise InputError(f"no image for the platform {wanted}", where=where, hint=f"there is: {there}")
    return found


def iter_manifests(store: BlobReader, descriptor: Descriptor, where: str = "") -> Iterator[Descriptor]:
    """Iterate over the image manifests below `descriptor`, in order, without attestations.

    Raises:
        InputError: nested too deeply, or damaged.
        StorageError: an index or manifest is missing.
    """
    stack: list[tuple[Descriptor, int]] = [(descriptor, 0)]
    seen: set[Digest] = set()
    while stack:
        current, depth = stack.pop()
        if current.digest in seen or _is_attestation(current):
            continue
        seen.add(current.digest)
        if depth > MAX_DEPTH:
            raise InputError("an index nested more deeply than any real one", where=where)
        parsed = parse_any(store.read(current.digest), current.media_type, where)
        if isinstance(parsed, Manifest):
            yield Descriptor(
                parsed.media_type, current.digest, current.size, current.annotations, current.platform,
                current.artifact_type,
            )  # fmt: skip
        else:
            stack += [(child, depth + 1) for child in reversed(parsed.manifests)]


def _is_attestation(descriptor: Descriptor) -> bool:
    """Tell whether an index entry is a statement about another entry, as buildx stores them."""
    platform = descriptor.platform
    return "vnd.docker.reference.type" in descriptor.annotations or (platform is not None and platform.os == "unknown")


def _platform_of(store: BlobReader, offer: Descriptor, where: str) -> Platform | None:
    """Return the platform that the index states, else the config's; None when there is none."""
    if offer.platform is not None:
        return offer.platform
    parsed = parse_any(store.read(offer.digest), offer.media_type, where)
    if not isinstance(parsed, Manifest) or parsed.config.media_type not in CONFIG_TYPES:
        return None
    return _config(store, parsed, where).platform


def _config(store: BlobReader, manifest: Manifest, where: str) -> ImageConfig:
    """Return the parsed config of a manifest."""
    return parse_config(store.read(manifest.config.digest), where)
