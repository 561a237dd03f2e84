"""`type=oci` and `type=docker`: images as an OCI layout, in an archive or a directory, for other tools to load.

The docker form is the same layout with a `manifest.json` beside it, which is what `docker load` reads (layers may be
compressed). Archives begin with the files that say what is in them, so that they can be read as a stream.

Names are written twice into `index.json`: the tag alone as `org.opencontainers.image.ref.name`, which skopeo and umoci
select by, and in full as `io.containerd.image.name`, which docker and containerd read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lamina.errors import InputError
from lamina.exporter.archive import ArchiveWriter
from lamina.exporter.images import ImageSet, ensure_blob
from lamina.exporter.outputs import OutputSpec
from lamina.exporter.protocol import Keep, Outcome, Result, Surroundings
from lamina.exporter.target import open_target
from lamina.image.assemble import Image
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.manifest import dump_index
from lamina.oci.reference import Reference
from lamina.oci.strict_json import dump_json
from lamina.store.errors import CorruptError, storage_error
from lamina.store.index import IndexEntry, IndexFile
from lamina.store.names import MAX_INDEX_BYTES, REF_NAME
from lamina.store.store import Store

CONTAINERD_NAME = "io.containerd.image.name"
LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Bundle:
    """What goes into one layout.

    Attributes:
        entries: descriptors for `index.json`, with their names as annotations.
        small: manifests, indexes and configs by digest.
        layers: layers, and other blobs to be read from the store, without doubles.
        docker: rows of `manifest.json`, None for a layout without one.
    """

    entries: tuple[Descriptor, ...]
    small: Mapping[Digest, bytes]
    layers: tuple[Descriptor, ...]
    docker: tuple[dict[str, Any], ...] | None = None


def export_layout(result: Result, spec: OutputSpec, images: ImageSet, around: Surroundings) -> Outcome:
    """Write the images as a layout to the destination.

    Raises:
        InputError: several platforms for docker, or the destination cannot be used.
        StorageError: it could not be written, or a layer is missing.
    """
    bundle = make_bundle([images], docker=spec.type == "docker")
    for layer in bundle.layers:
        around.cancel.check()
        ensure_blob(result, layer)
    if around.keep is not None and not spec.tar:
        give_blobs(bundle, result.store, around.keep, around)
    elif spec.tar:
        write_archive(bundle, result.store, spec.dest, around)
    else:
        write_directory(bundle, result.store, around.directory / spec.dest, around)
    return Outcome(spec.type, images.descriptor, images.image_id, images.names, spec.dest or "-")


def make_bundle(sets: Sequence[ImageSet], *, docker: bool = False) -> Bundle:
    """Return what goes into a layout of these images.

    Raises:
        InputError: `docker`, and one of them is for several platforms.
    """
    entries: list[Descriptor] = []
    small: dict[Digest, bytes] = {}
    layers: dict[Digest, Descriptor] = {}
    rows: list[dict[str, Any]] = []
    for images in sets:
        entries += name_entries(images.descriptor, images.names)
        for image in images.images:
            small[image.id] = image.config.raw
            small[image.descriptor.digest] = image.manifest.raw
            layers.update({layer.descriptor.digest: layer.descriptor for layer in image.layers})
        for attached in images.attestations:
            small |= attached.blobs
            small[attached.descriptor.digest] = attached.raw
        if images.index is not None:
            small[images.index.descriptor.digest] = images.index.raw
        if docker:
            rows.append(_docker_row(images))
    return Bundle(tuple(entries), small, tuple(layers.values()), tuple(rows) if docker else None)


def write_archive(bundle: Bundle, store: Store, dest: str, around: Surroundings) -> None:
    """Write a layout as a tar archive to `dest` ("-": standard output). Raises as `export_layout`."""
    with open_target(dest, around) as write:
        archive = ArchiveWriter(write)
        archive.file("oci-layout", LAYOUT)
        archive.file("index.json", dump_index(bundle.entries))
        if bundle.docker is not None:
            archive.file("manifest.json", dump_json(list(bundle.docker)))
        folders = {digest.algorithm for digest in (*bundle.small, *(layer.digest for layer in bundle.layers))}
        for folder in ("blobs", *(f"blobs/{name}" for name in sorted(folders))):
            archive.directory(folder)
        for digest, raw in bundle.small.items():
            archive.file(_blob_path(digest), raw)
        for layer in bundle.layers:
            archive.stream(_blob_path(layer.digest), layer.size, _blob_chunks(store, layer, around))
        archive.close()


def give_blobs(bundle: Bundle, store: Store, keep: Keep, around: Surroundings) -> None:
    """Hand the blobs of a layout to whoever keeps it, layers first. Raises as `export_layout`."""
    for layer in bundle.layers:
        keep(layer, _blob_chunks(store, layer, around))
    for digest, raw in bundle.small.items():
        keep(Descriptor("", digest, len(raw)), [raw])


def write_directory(bundle: Bundle, store: Store, root: Path, around: Surroundings) -> None:
    """Write a layout into a directory, beside what another layout has there. Raises as `export_layout`.

    Blobs are verified as they are copied; `index.json` is replaced last.
    """
    if os.path.lexists(root) and not root.is_dir():
        raise InputError("the destination is not a directory", where=str(root))
    if root.is_dir() and any(root.iterdir()) and not (root / "index.json").is_file():
        raise InputError("the destination is a directory with something else in it", where=str(root))
    target = Store(root, durable=False)  # an output can be made again
    try:
        for digest, raw in bundle.small.items():
            with target.ingest(Descriptor("", digest, len(raw))) as ingest:
                ingest.write(raw)
                ingest.commit()
        for layer in bundle.layers:
            if target.has(layer.digest) and target.size(layer.digest) == layer.size:
                continue
            with target.ingest(layer) as ingest:
                for chunk in _blob_chunks(store, layer, around):
                    ingest.write(chunk)
                ingest.commit()
        if bundle.docker is not None:
            _replace(root / "manifest.json", dump_json(list(bundle.docker)), target)
        with target.lock():
            path = root / "index.json"
            index = IndexFile.parse(_read(path), os.fspath(path))
            _merge(index, bundle.entries)
            _replace(path, index.dump(), target)
    finally:
        _tidy(root)


def name_entries(descriptor: Descriptor, names: Iterable[str]) -> list[Descriptor]:
    """Return the entries of an `index.json` for one image: one for each full reference, or one without a name."""
    entries = []
    for name in names:
        annotations = {**descriptor.annotations, CONTAINERD_NAME: name, REF_NAME: Reference.parse(name).tag}
        entries.append(replace(descriptor, annotations={key: value for key, value in annotations.items() if value}))
    return entries or [descriptor]


def _docker_row(images: ImageSet) -> dict[str, Any]:
    """Return the row of docker's `manifest.json` for one image."""
    if len(images.images) != 1:
        raise InputError(
            "a docker archive holds one platform", hint="choose one with --platform, or use type=oci for several"
        )
    image: Image = images.images[0]
    return {
        "Config": _blob_path(image.id),
        "RepoTags": [Reference.parse(name).familiar() for name in images.names if Reference.parse(name).tag],
        "Layers": [_blob_path(layer.descriptor.digest) for layer in image.layers],
    }


def _blob_path(digest: Digest) -> str:
    """Return where a layout keeps a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _blob_chunks(store: Store, descriptor: Descriptor, around: Surroundings) -> Iterator[bytes]:
    """Yield a blob's bytes, exactly as many as its descriptor says."""
    left = descriptor.size
    around.progress(str(descriptor.digest), 0, descriptor.size)
    with store.open(descriptor.digest) as file:
        while left:
            around.cancel.check()
            chunk = file.read(min(left, _CHUNK_BYTES))
            if not chunk:
                break
            left -= len(chunk)
            yield chunk
            around.progress(str(descriptor.digest), descriptor.size - left, descriptor.size)
        if left or file.read(1):
            raise CorruptError(
                f"this blob does not have the {descriptor.size} bytes its descriptor says",
                where=str(store.path(descriptor.digest)),
            )


def _merge(index: IndexFile, entries: Iterable[Descriptor]) -> None:
    """Add entries to an index; what has the same name is replaced, and so is what has none by what has none."""
    new = [IndexEntry(entry, entry.to_json()) for entry in entries]
    keys = {_key(entry.descriptor) for entry in new}
    index.entries = [entry for entry in index.entries if _key(entry.descriptor) not in keys] + new


def _key(descriptor: Descriptor) -> str:
    """Return what tells one entry of a directory from another: its full name, else its tag."""
    return descriptor.annotations.get(CONTAINERD_NAME) or descriptor.annotations.get(REF_NAME, "")


def _read(path: Path) -> bytes:
    """Return the bytes of an `index.json`."""
    from lamina.store.files import read_capped

    return read_capped(os.fspath(path), MAX_INDEX_BYTES)


def _replace(path: Path, data: bytes, target: Store) -> None:
    """Replace a file of the layout."""
    from lamina.store.files import replace_file

    replace_file(os.fspath(path), data, durable=False, spool=os.fspath(target.root / "ingest"))


def _tidy(root: Path) -> None:
    """Remove what a store keeps beside the layout; others would wonder about it."""
    for name in ("names", "index.lock"):
        try:
            os.unlink(root / name)
        except FileNotFoundError:
            pass
        except OSError as exc:
            raise storage_error(exc, root / name) from exc
    try:
        os.rmdir(root / "ingest")
    except OSError:
        pass  # something is being written there, or was left: a later sweep's business
