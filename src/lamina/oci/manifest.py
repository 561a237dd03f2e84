"""Manifests and indexes (image-spec manifest.md and image-index.md; docker's schema 2 and manifest lists).

Bytes in, values out, and back. `raw` is the truth: a digest is always over the bytes that arrived, and what we
do not know survives in them. Pure.

Invariants of a parsed value: its media type is known and was not contradicted by the one it was served with; a
text that could be read both as manifest and as index was refused (CVE-2021-41190).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lamina.errors import InputError
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest, sha256_digest
from lamina.oci.media_types import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
)
from lamina.oci.platform import Platform
from lamina.oci.strict_json import MAX_BYTES, check_known_keys, dump_json, parse_object

MAX_MANIFEST_BYTES = MAX_BYTES
MAX_LAYERS = 2000
MAX_MANIFESTS = 10_000

_KEYS = ("schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations")
_DESCRIPTOR_KEYS = ("mediaType", "digest", "size", "urls", "annotations", "platform", "data", "artifactType")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image for one platform: a config and its layers, bottom first.

    Attributes:
        raw: the exact bytes.
        media_type: OCI's or docker's manifest type.
        subject: the manifest this one is about, if any.
        artifact_type: what it carries when it is not a runnable image, "" otherwise.
    """

    raw: bytes = field(repr=False)
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    subject: Descriptor | None = None
    artifact_type: str = ""

    def descriptor(self, platform: Platform | None = None) -> Descriptor:
        """Return the pointer to these bytes."""
        return Descriptor(self.media_type, sha256_digest(self.raw), len(self.raw), platform=platform)


@dataclass(frozen=True, slots=True)
class Index:
    """A list of manifests, usually one per platform.

    Attributes:
        raw: the exact bytes.
        media_type: OCI's index type or docker's list type.
    """

    raw: bytes = field(repr=False)
    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    subject: Descriptor | None = None
    artifact_type: str = ""

    def descriptor(self) -> Descriptor:
        """Return the pointer to these bytes."""
        return Descriptor(self.media_type, sha256_digest(self.raw), len(self.raw))


def parse_any(raw: bytes, media_type: str = "", where: str = "") -> Manifest | Index:
    """Parse a manifest or an index, told apart by media type and content.

    Args:
        raw: the bytes, at most 4 MiB.
        media_type: what it was served or described as, "" when nothing said so; parameters are ignored.
        where: reference, digest or path for messages.

    Raises:
        InputError: too large, not JSON, ambiguous, contradicting media types, schema 1, or a field is wrong.
    """
    obj = parse_object(raw, where, max_bytes=MAX_MANIFEST_BYTES)
    check_known_keys(obj, _KEYS, where)
    found = _media_type(obj, media_type.partition(";")[0].strip(), where)
    annotations = _annotations(obj, where)
    subject = _descriptor(obj["subject"], where) if obj.get("subject") is not None else None
    artifact_type = obj.get("artifactType", "")
    artifact_type = artifact_type if isinstance(artifact_type, str) else ""
    if found in INDEX_TYPES:
        manifests = _descriptors(obj, "manifests", MAX_MANIFESTS, where)
        return Index(raw, found, manifests, annotations, subject, artifact_type)
    layers = _descriptors(obj, "layers", MAX_LAYERS, where)
    config = _descriptor(obj.get("config"), where)
    return Manifest(raw, found, config, layers, annotations, subject, artifact_type)


def parse_manifest(raw: bytes, media_type: str = "", where: str = "") -> Manifest:
    """Parse a manifest; an index is an error. Raises as `parse_any`."""
    found = parse_any(raw, media_type, where)
    if not isinstance(found, Manifest):
        raise InputError("expected an image manifest, found an index of several", where=where)
    return found


def parse_index(raw: bytes, media_type: str = "", where: str = "") -> Index:
    """Parse an index; a manifest is an error. Raises as `parse_any`."""
    found = parse_any(raw, media_type, where)
    if not isinstance(found, Index):
        raise InputError("expected an index, found an image manifest", where=where)
    return found


def dump_manifest(
    config: Descriptor,
    layers: Iterable[Descriptor],
    *,
    media_type: str = OCI_MANIFEST,
    annotations: Mapping[str, str] | None = None,
    subject: Descriptor | None = None,
    artifact_type: str = "",
) -> bytes:
    """Return the bytes of a manifest; the same arguments always give the same bytes."""
    obj: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type}
    if artifact_type:
        obj["artifactType"] = artifact_type
    obj["config"] = config.to_json()
    obj["layers"] = [layer.to_json() for layer in layers]
    return _dump_tail(obj, annotations, subject)


def dump_index(
    manifests: Iterable[Descriptor],
    *,
    media_type: str = OCI_INDEX,
    annotations: Mapping[str, str] | None = None,
    subject: Descriptor | None = None,
) -> bytes:
    """Return the bytes of an index; the same arguments always give the same bytes."""
    obj: dict[str, Any] = {"schemaVersion": 2, "mediaType": media_type}
    obj["manifests"] = [manifest.to_json() for manifest in manifests]
    return _dump_tail(obj, annotations, subject)


def _dump_tail(obj: dict[str, Any], annotations: Mapping[str, str] | None, subject: Descriptor | None) -> bytes:
    """Add what manifests and indexes have in common, and dump."""
    if subject is not None:
        obj["subject"] = subject.to_json()
    if annotations and obj["mediaType"] not in (DOCKER_MANIFEST, DOCKER_LIST):  # docker's have none
        obj["annotations"] = dict(sorted(annotations.items()))
    return dump_json(obj)


def _media_type(obj: dict[str, Any], served: str, where: str) -> str:
    """Decide what `obj` is; every statement about it must agree with every other."""
    stated = obj.get("mediaType", "")
    version = obj.get("schemaVersion")
    if not isinstance(stated, str):
        raise InputError("mediaType must be text", where=where)
    if version == 1 or served in DOCKER_SCHEMA1 or stated in DOCKER_SCHEMA1:
        raise InputError(
            "docker manifest schema 1 is obsolete and not supported",
            where=where,
            hint="push the image again with a current docker or skopeo",
        )
    if version != 2:
        raise InputError(f"expected schemaVersion 2, got {str(version)[:80]!r}", where=where)
    known = MANIFEST_TYPES | INDEX_TYPES
    # a server that does not know better says application/json or text/plain: that is no statement about it
    if served and served not in known and served not in ("application/json", "text/plain", "application/octet-stream"):
        raise InputError(f"not a manifest or an index but {served[:140]!r}", where=where)
    if stated and (stated not in known or (served in known and served != stated)):
        raise InputError(f"media type {stated[:140]!r} in the text, {served or 'a manifest'!r} outside", where=where)
    has_manifests, has_layers = "manifests" in obj, "layers" in obj or "config" in obj
    if has_manifests == has_layers or "fsLayers" in obj:
        raise InputError("the text could be read both as manifest and as index, or as neither", where=where)
    found = stated or (served if served in known else "") or (OCI_INDEX if has_manifests else OCI_MANIFEST)
    if (found in INDEX_TYPES) != has_manifests:
        raise InputError(f"media type {found!r} does not fit the content", where=where)
    return found


def _descriptors(obj: dict[str, Any], key: str, limit: int, where: str) -> tuple[Descriptor, ...]:
    """Return the descriptors listed under `key`."""
    value = obj.get(key)
    if value is None:
        value = []
    if not isinstance(value, list):
        raise InputError(f"{key} must be a list", where=where)
    if len(value) > limit:
        raise InputError(f"{len(value)} {key}, more than the {limit} allowed", where=where)
    return tuple(_descriptor(item, where) for item in value)


def _descriptor(obj: Any, where: str) -> Descriptor:
    """Return one descriptor; embedded `data` must be what the digest says."""
    found = Descriptor.from_json(obj, where)
    check_known_keys(obj, _DESCRIPTOR_KEYS, where)
    if "data" in obj:
        _check_data(obj["data"], found, where)
    return found


def _check_data(data: Any, found: Descriptor, where: str) -> None:
    """Raise `InputError` unless embedded data (base64) has the digest and size of its descriptor."""
    import base64
    import hashlib

    try:
        content = base64.b64decode(data, validate=True)
    except (TypeError, ValueError):
        raise InputError("descriptor data is not base64", where=where) from None
    digest = Digest(f"{found.digest.algorithm}:{hashlib.new(found.digest.algorithm, content).hexdigest()}")
    if digest != found.digest or len(content) != found.size:
        raise InputError(f"descriptor data does not have the digest {found.digest}", where=where)


def _annotations(obj: dict[str, Any], where: str) -> dict[str, str]:
    """Return the annotations; they map text to text."""
    value = obj.get("annotations")
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise InputError("annotations must map text to text", where=where)
    return value
