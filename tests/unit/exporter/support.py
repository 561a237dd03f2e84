"""A small image made without Lamina's own layer code, as a result for exporters."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamina.cancel import Cancel
from lamina.exporter.protocol import PlatformResult, Result, Surroundings
from lamina.image.assemble import Image, LayerBlob, assemble
from lamina.layer.entry import Entry, Item
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import sha256_digest
from lamina.oci.media_types import layer_media_type
from lamina.oci.platform import Platform
from lamina.store import Store

NAME = "docker.io/library/app:1"


def tar_of(files: Mapping[str, bytes]) -> bytes:
    """Return a tar with these files; a name that ends in "/" is a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mode = 0o755 if name.endswith("/") else 0o644
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def add_layer(store: Store, files: Mapping[str, bytes], compression: str = "gzip") -> LayerBlob:
    """Store a layer with these files."""
    raw = tar_of(files)
    packed = gzip.compress(raw, mtime=0) if compression == "gzip" else raw
    digest, size = store.add(packed)
    return LayerBlob(Descriptor(layer_media_type(compression), digest, size), sha256_digest(raw))


def config_of(architecture: str = "amd64") -> dict[str, Any]:
    """Return an image config without rootfs."""
    return {
        "architecture": architecture,
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/hello"]},
        "history": [
            {"created_by": "COPY base"},
            {"created_by": "ENV X", "empty_layer": True},
            {"created_by": "COPY a"},
        ],
    }


def make_image(store: Store, media_types: str = "oci", architecture: str = "amd64", **options: Any) -> Image:
    """Return an image of two layers, the layers stored."""
    layers = [
        add_layer(store, {"bin/": b"", "bin/hello": b"#!/bin/sh\necho hello\n"}),
        add_layer(store, {"etc/": b"", "etc/app": architecture.encode() * 10_000}, "uncompressed"),
    ]
    return assemble(layers, config_of(architecture), media_types=media_types, **options)


FILES = (
    Item(Entry("", "d", 0o755)),
    Item(Entry("bin", "d", 0o755, mtime_ns=1_000_000_000_000_000_000)),
    Item(Entry("bin/alias", "h", 0o755, target="bin/hello")),
    Item(Entry("bin/hello", "f", 0o755, mtime_ns=1_100_000_000_123_456_789, size=5), b"hello"),
    Item(Entry("etc", "d", 0o500)),
    Item(Entry("etc/link", "l", 0o777, target="../bin/hello")),
    Item(Entry("etc/secret", "f", 0o4640, 0, 0, size=2, xattrs=(("user.note", b"v"),)), b"ab"),
    Item(Entry("run", "d", 0o1777)),
    Item(Entry("run/pipe", "p", 0o600)),
)


def make_result(store: Store, *architectures: str, **options: Any) -> Result:
    """Return a result for one or several platforms."""
    platforms = []
    for architecture in architectures or ("amd64",):

        def image(media_types: str, annotations: Mapping[str, str], architecture: str = architecture) -> Image:
            return make_image(store, media_types, architecture, annotations=annotations)

        platforms.append(PlatformResult(Platform("linux", architecture), image, lambda: FILES))
    return Result(tuple(platforms), store, **{"names": (NAME,), **options})


def surroundings(directory: Path, **options: Any) -> Surroundings:
    """Return surroundings with a fresh token."""
    return Surroundings(Cancel(), directory, **options)
