"""Backends and small documents for tests of caches that travel."""

from __future__ import annotations

import io
from pathlib import Path

from lamina.cache.backend import CacheBackend
from lamina.cache.backends.azblob import open_azblob
from lamina.cache.backends.gha import open_gha
from lamina.cache.backends.local import LocalCache
from lamina.cache.backends.registry import RegistryCache
from lamina.cache.backends.s3 import open_s3
from lamina.cache.document import CacheLayer, CacheRecord, Document, merge, parse
from lamina.cache.export import CacheExport
from lamina.cache.gather import Gathered
from lamina.cache.spec import CacheSpec, parse_spec
from lamina.cancel import Cancel
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import sha256_digest
from lamina.registry.client import Registry
from lamina.registry.options import RegistryOptions
from lamina.snapshot.rows import LayerRow
from support.azure import spec as azure_spec
from support.gha import TOKEN, Service
from support.s3 import spec as s3_spec


def local(folder: Path, extra: str = "") -> tuple[CacheSpec, CacheBackend]:
    """Return a cache in a directory."""
    spec = parse_spec(f"type=local,dest={folder}{extra}", export=True)
    return spec, LocalCache(spec, Cancel())


def registry(address: str, extra: str = "") -> tuple[CacheSpec, CacheBackend]:
    """Return a cache in a registry."""
    spec = parse_spec(f"type=registry,ref={address}/app:cache{extra}", export=True)
    client = Registry(RegistryOptions(), lambda _host: None, Cancel())
    return spec, RegistryCache(spec, client)


def s3(url: str, extra: str = "") -> tuple[CacheSpec, CacheBackend]:
    """Return a cache on an S3 server."""
    spec = parse_spec(s3_spec(url) + extra, export=True)
    return spec, open_s3(spec, {}, Cancel())


def azblob(url: str, extra: str = "") -> tuple[CacheSpec, CacheBackend]:
    """Return a cache in Azure's blob storage."""
    spec = parse_spec(azure_spec(url) + extra, export=True)
    return spec, open_azblob(spec, {}, Cancel())


def gha(service: Service, extra: str = "") -> tuple[CacheSpec, CacheBackend]:
    """Return a cache in GitHub's service."""
    spec = parse_spec("type=gha" + extra, export=True)
    variables = {"ACTIONS_RESULTS_URL": service.url + "/", "ACTIONS_RUNTIME_TOKEN": TOKEN}
    return spec, open_gha(spec, variables, RegistryOptions(), Cancel())


def gathered(name: str, *, used: float = 1.0) -> tuple[Gathered, bytes]:
    """Return one record on one layer, and the layer's bytes."""
    data = f"blob of {name}".encode() * 50
    blob = Descriptor("application/vnd.oci.image.layer.v1.tar+gzip", sha256_digest(data), len(data))
    canon = sha256_digest(name.encode())
    record = CacheRecord((canon,), canon, (0,), name, used=used)
    row = LayerRow(1, None, None, None, blob.digest, blob.size, blob.media_type, "", 0, 0, 0, name, 0.0)
    document = Document((CacheLayer(blob, sha256_digest(b"d" + data), -1),), (record,))
    return Gathered(document, {blob.digest: row}), data


def export(spec: CacheSpec, backend: CacheBackend, name: str, used: float = 1.0) -> None:
    """Export one record as a build would."""
    found, data = gathered(name, used=used)
    writer = CacheExport(spec, lambda: backend, lambda _row: io.BytesIO(data), Cancel())
    try:
        writer.finish(found)
    finally:
        writer.close()


def held(backend: CacheBackend) -> Document:
    """Return all that a reader sees."""
    return merge([parse(found.document) for found in backend.load()], ttl_s=1e12, limit=10_000)
