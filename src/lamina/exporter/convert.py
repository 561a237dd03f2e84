"""Layers in another compression, and the check that a compressed layer is what its diffID says.

A layer is compressed anew only when the output asks for another compression than it has (and for layers of base
images only when that is forced): bytes that exist at a registry already are worth more than uniform ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import BinaryIO

from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.exporter.outputs import OutputSpec
from lamina.exporter.protocol import Result, Surroundings
from lamina.image.assemble import Image, LayerBlob, assemble
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.media_types import is_foreign, layer_compression, layer_media_type
from lamina.store.errors import CorruptError
from lamina.store.store import Store

_CHUNK_BYTES = 1 << 20
_PARALLEL = 2


def convert_image(result: Result, image: Image, spec: OutputSpec, around: Surroundings) -> Image:
    """Return the image with the layers in the compression that `spec` asks for; new blobs are in the store.

    Raises:
        CorruptError: a layer does not have its diffID.
        StorageError: the store is full.
    """
    from lamina.exporter.images import ensure_blob

    if not spec.compression:
        return image
    wanted = {layer: layer for layer in image.layers if _must_convert(layer, result, spec)}
    if not wanted:
        return image
    for layer in wanted:
        ensure_blob(result, layer.descriptor)
    with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="convert") as pool:
        jobs = {
            layer: pool.submit(convert_layer, result.store, layer, spec.compression, spec.level, around.cancel)
            for layer in wanted
        }
        try:
            layers = [jobs[layer].result() if layer in jobs else layer for layer in image.layers]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return assemble(
        layers, image.config.fields, media_types=spec.media_types, annotations=dict(image.manifest.annotations)
    )


def convert_layer(store: Store, layer: LayerBlob, compression: str, level: int | None, cancel: Cancel) -> LayerBlob:
    """Return the layer in another compression; the same layer, compression and level give the same bytes.

    Raises:
        CorruptError: its content does not have the diffID; nothing is stored.
    """
    from lamina.layer.compress import Compression, compressor

    running = hashlib.new(layer.diff_id.algorithm)
    with store.open(layer.descriptor.digest) as file, store.ingest() as ingest:
        packer = compressor(Compression(compression, level))
        for chunk in _unpacked(file, cancel):
            running.update(chunk)
            ingest.write(packer.compress(chunk))
        ingest.write(packer.flush())
        _compare(running.hexdigest(), layer.diff_id, str(layer.descriptor.digest))
        digest, size = ingest.commit()
    docker = layer.descriptor.media_type.startswith("application/vnd.docker.")
    media_type = layer_media_type(compression, docker=docker)
    return replace(layer, descriptor=Descriptor(media_type, digest, size, layer.descriptor.annotations))


def check_diff_id(store: Store, layer: LayerBlob, cancel: Cancel, where: str = "") -> None:
    """Raise `InputError` unless the layer, uncompressed, has its diffID. Costs reading the layer once."""
    running = hashlib.new(layer.diff_id.algorithm)
    with store.open(layer.descriptor.digest) as file:
        for chunk in _unpacked(file, cancel):
            running.update(chunk)
    try:
        _compare(running.hexdigest(), layer.diff_id, where or str(layer.descriptor.digest))
    except CorruptError as exc:
        raise InputError(exc.what, where=exc.where, hint="the image is broken: build or pull it again") from None


def sniff_compression(store: Store, digest: Digest) -> str:
    """Return the compression that the first bytes of a blob show."""
    with store.open(digest) as file:
        head = file.read(4)
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    return "zstd" if head == b"\x28\xb5\x2f\xfd" else "uncompressed"


def _unpacked(file: BinaryIO, cancel: Cancel) -> Iterator[bytes]:
    """Yield the uncompressed bytes of a blob."""
    from lamina.layer.compress import open_stream

    read = open_stream(file.read)
    while chunk := read(_CHUNK_BYTES):
        cancel.check()
        yield chunk


def _must_convert(layer: LayerBlob, result: Result, spec: OutputSpec) -> bool:
    """Tell whether a layer must be compressed anew."""
    if is_foreign(layer.descriptor.media_type):
        return False
    if layer.descriptor.digest in result.base_layers and not spec.force:
        return False
    return layer_compression(layer.descriptor.media_type) != spec.compression


def _compare(found: str, diff_id: Digest, where: str) -> None:
    """Raise unless the content has the digest it must have."""
    if found != diff_id.hex:
        raise CorruptError(
            f"the layer has, uncompressed, the digest {diff_id.algorithm}:{found}, the config says {diff_id}",
            where=where,
        )
