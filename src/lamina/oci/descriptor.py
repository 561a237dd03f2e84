"""Descriptors: typed pointers to blobs (image-spec descriptor.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lamina.errors import InputError
from lamina.oci.digest import Digest
from lamina.oci.platform import Platform

MAX_SIZE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Media type, digest and size in bytes of a blob, with annotations and platform where given."""

    media_type: str
    digest: Digest
    size: int
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    platform: Platform | None = None
    artifact_type: str = ""
    urls: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object, without empty fields, keys in the order the specification lists them."""
        out: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.urls:
            out["urls"] = list(self.urls)
        if self.annotations:
            out["annotations"] = dict(sorted(self.annotations.items()))
        if self.platform is not None:
            out["platform"] = platform_to_json(self.platform)
        if self.artifact_type:
            out["artifactType"] = self.artifact_type
        return out

    @classmethod
    def from_json(cls, obj: Any, where: str = "") -> Descriptor:
        """Check and convert one JSON object.

        Raises:
            InputError: a field is missing or has the wrong type, the size is negative or not whole.
        """
        if not isinstance(obj, dict):
            raise InputError("a descriptor must be a JSON object", where=where)
        media_type, size, digest = obj.get("mediaType", ""), obj.get("size"), obj.get("digest")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_SIZE:
            raise InputError(f"descriptor has an impossible size: {size!r}", where=where)
        if not isinstance(digest, str) or not isinstance(media_type, str):
            raise InputError("descriptor lacks a digest or a media type", where=where)
        annotations = obj.get("annotations") or {}
        if not isinstance(annotations, dict) or not all(isinstance(v, str) for v in annotations.values()):
            raise InputError("descriptor annotations must map text to text", where=where)
        urls = obj.get("urls") or ()
        platform = obj.get("platform")
        artifact_type = obj.get("artifactType", "")
        return cls(
            media_type=media_type,
            digest=Digest(digest),
            size=size,
            annotations=annotations,
            platform=platform_from_json(platform, where) if platform is not None else None,
            artifact_type=artifact_type if isinstance(artifact_type, str) else "",
            urls=tuple(u for u in urls if isinstance(u, str)) if isinstance(urls, list) else (),
        )


def platform_to_json(platform: Platform) -> dict[str, str]:
    """Return the JSON object of an index entry's `platform`."""
    out = {"architecture": platform.architecture, "os": platform.os}
    if platform.os_version:
        out["os.version"] = platform.os_version
    if platform.variant:
        out["variant"] = platform.variant
    return out


def platform_from_json(obj: Any, where: str = "") -> Platform:
    """Check and convert an index entry's `platform`, in normal form."""
    if not isinstance(obj, dict):
        raise InputError("platform must be a JSON object", where=where)
    values = [obj.get(key, "") for key in ("os", "architecture", "variant", "os.version")]
    if not all(isinstance(value, str) for value in values):
        raise InputError("platform fields must be text", where=where)
    os_name, architecture, variant, os_version = values
    return Platform.normal(os_name, architecture, variant, os_version)
