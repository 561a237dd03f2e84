"""A cache in a registry, beside images: a repository's tag, and one more tag for each publication.

Registries offer no compare and swap, so what is written under one name by two runners keeps only the last. Therefore
every publication gets a tag of its own, `TAG.lamina-TIME-HASH`, that nobody else writes; readers take all of them.
A publication says in its annotations which earlier ones went into it; those are passed over and, where the registry
offers that, removed. The tag that the user named gets the same manifest, for BuildKit to read: there the last writer
wins.

An ordinary image may hold a cache too (`--cache-to type=inline`): then the document is in its config.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import BinaryIO

from lamina.cache.backend import CacheError, Found, Publication
from lamina.cache.backends.manifest import (
    CacheManifest,
    config_of,
    document_of,
    dump_cache_manifest,
    read_cache_manifest,
)
from lamina.cache.document import MAX_BYTES
from lamina.cache.spec import CacheSpec
from lamina.errors import InputError
from lamina.oci.config import MAX_CONFIG_BYTES
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest, sha256_digest
from lamina.oci.manifest import Index, parse_any
from lamina.oci.reference import Reference
from lamina.registry.client import Registry
from lamina.registry.download import BlobSink
from lamina.registry.failures import RegistryError

INLINE_FIELD = "dev.lamina.cache.v1"
_SUPERSEDES = "dev.lamina.cache.supersedes"
_HORIZON = "dev.lamina.cache.horizon"
_HORIZON_S = 86400
_MOST_READ = 64
_MOST_TOLD = 2000
_OWN_TAG = re.compile(r"([0-9a-f]{10})-[0-9a-f]{12}")
_NOTHING_THERE = frozenset({"not found", "denied", "unauthorized"})


class RegistryCache:
    """Reads and writes the caches under one reference."""

    def __init__(self, spec: CacheSpec, registry: Registry) -> None:
        self._spec, self._registry = spec, registry
        self.reference = Reference.parse(spec.attributes["ref"])
        self._prefix = f"{self.reference.tag[:90]}.lamina-"
        self._tokens: dict[str, str] = {}

    def load(self) -> list[Found]:
        """Return every publication that no other one contains, and what the tag itself holds."""
        try:
            return list(self._load())
        except RegistryError as error:
            raise CacheError(error.what, where=error.where, hint=error.hint) from error
        except InputError as error:
            raise CacheError(f"the cache cannot be read: {error.what}", where=str(self.reference)) from error

    def _load(self) -> Iterator[Found]:
        seen: set[Digest] = set()
        dead: set[str] = set()
        horizon, count = 0.0, 0
        for name in sorted(self._own_tags(), reverse=True):
            if name in dead or _time_of(name) < horizon or count >= _MOST_READ:
                continue
            found = self._publication(self._named(name), seen)
            if found is not None:
                count += 1
                manifest, publication = found
                self._tokens[publication.token] = name
                dead.update(filter(None, manifest.annotations.get(_SUPERSEDES, "").split(",")))
                horizon = max(horizon, _number(manifest.annotations.get(_HORIZON, "")))
                yield publication
        main = self._publication(self.reference, seen)
        if main is not None:
            yield main[1]

    def missing(self, blobs: Sequence[Descriptor]) -> list[Descriptor]:
        """Return all: a registry has no listing of blobs, and putting asks first."""
        return list(blobs)

    def put(self, blob: Descriptor, open_blob: Callable[[], BinaryIO]) -> None:
        """Push one blob unless it is there."""
        self._registry.push_blob(self.reference, blob, open_blob)

    def fetch(self, blob: Descriptor, sink: BlobSink) -> None:
        """Pull one blob."""
        try:
            self._registry.blob(self.reference, blob, sink)
        except RegistryError as error:
            raise CacheError(error.what, where=error.where, hint=error.hint) from error

    def publish(self, publication: Publication, seen: Sequence[Found]) -> bool:
        """Push under a tag of its own, then under the user's; remove what it contains. Never loses another's."""
        oci = self._spec.flag("oci-mediatypes", True)
        image_manifest = self._spec.flag("image-manifest", oci)
        if image_manifest and not oci:
            raise InputError("image-manifest=true needs oci-mediatypes=true")
        for blob, data in (
            (document_of(publication), publication.document),
            (config_of(publication), publication.config),
        ):
            self._registry.push_blob(self.reference, blob, lambda data=data: io.BytesIO(data))  # type: ignore[misc]
        now = time.time()
        old = sorted(name for found in seen if (name := self._tokens.get(found.token)))
        annotations = {
            # what is older than the horizon was listed and taken in, or superseded before: no need to name it for ever
            _SUPERSEDES: ",".join(name for name in old[-_MOST_TOLD:] if _time_of(name) >= now - 2 * _HORIZON_S),
            _HORIZON: str(int(now - _HORIZON_S)),
        }
        media_type, raw = dump_cache_manifest(
            publication, image_manifest=image_manifest, oci=oci, annotations=annotations
        )
        name = f"{self._prefix}{int(now):010x}-{sha256_digest(raw).hex[:12]}"
        self._registry.push_manifest(self._named(name), media_type, raw)
        self._registry.push_manifest(self.reference, media_type, raw)
        self._retire(seen, sha256_digest(raw))
        return True

    def close(self) -> None:
        """The registry client belongs to the caller."""

    def _retire(self, seen: Sequence[Found], own: Digest) -> None:
        """Remove publications that are contained in a newer one, where the registry lets us."""
        for found in seen:
            if found.token in self._tokens and found.token != own:
                try:
                    if not self._registry.delete_manifest(self._named("").with_digest(Digest(found.token))):
                        return
                except RegistryError:
                    return  # it is passed over anyway

    def _named(self, tag: str) -> Reference:
        return Reference(self.reference.registry, self.reference.repository, tag)

    def _own_tags(self) -> list[str]:
        try:
            names = self._registry.tags(self.reference, prefix=self._prefix)
        except RegistryError as error:
            if error.kind in _NOTHING_THERE or error.kind == "protocol":
                return []
            raise
        return [name for name in names if _OWN_TAG.fullmatch(name.removeprefix(self._prefix))]

    def _publication(self, reference: Reference, seen: set[Digest]) -> tuple[CacheManifest, Found] | None:
        """Return what one tag stands for, if it is a cache that was not seen yet."""
        try:
            descriptor, raw = self._registry.manifest(reference)
            if descriptor.digest in seen:
                return None
            seen.add(descriptor.digest)
            manifest = read_cache_manifest(raw, descriptor.media_type, str(reference))
            if manifest.document is not None:
                document = self._read(manifest.document, MAX_BYTES)
            elif manifest.config is None and (inline := self._inline(raw, descriptor.media_type)):
                document = inline
            else:
                return None
        except RegistryError as error:
            if error.kind in _NOTHING_THERE:
                return None  # never was, or was retired since the tags were listed
            raise
        return manifest, Found(document, descriptor.digest, manifest.blobs)

    def _inline(self, raw: bytes, media_type: str) -> bytes | None:
        """Return the document in an image's config; of an index, that of the first image that has one."""
        found = parse_any(raw, media_type, str(self.reference))
        if isinstance(found, Index):
            for child in found.manifests[:20]:
                pinned = Reference(self.reference.registry, self.reference.repository, "", child.digest)
                descriptor, below = self._registry.manifest(pinned)
                if document := (None if child.platform is None else self._inline(below, descriptor.media_type)):
                    return document
            return None
        if found.config.size > MAX_CONFIG_BYTES:
            return None
        try:
            text = json.loads(self._read(found.config, MAX_CONFIG_BYTES)).get(INLINE_FIELD)
            return base64.b64decode(text, validate=True) if isinstance(text, str) else None
        except (ValueError, AttributeError, RecursionError, binascii.Error):
            return None

    def _read(self, blob: Descriptor, most: int) -> bytes:
        if blob.size > most:
            raise InputError(f"a blob of {blob.size} bytes, at most {most} are taken", where=str(self.reference))
        sink = _Memory()
        self._registry.blob(self.reference, blob, sink)
        data = bytes(sink.data)
        if sha256_digest(data) != blob.digest:
            raise InputError("a blob does not have its digest", where=f"{self.reference} {blob.digest}")
        return data


class _Memory:
    """Takes a small blob into memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    @property
    def offset(self) -> int:
        """How much is there."""
        return len(self.data)

    def write(self, data: bytes) -> int:
        """Take bytes."""
        self.data += data
        return len(data)

    def restart(self) -> None:
        """Forget what is there."""
        self.data.clear()


def _time_of(name: str) -> float:
    return float(int(name.rpartition(".lamina-")[2][:10], 16))


def _number(text: str) -> float:
    return float(text) if text.isdecimal() and text.isascii() and len(text) < 16 else 0.0
