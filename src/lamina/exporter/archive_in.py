"""`lamina load`: archives of `docker save`, `skopeo copy oci-archive:`, or our own, into the store.

The archive is read once, as a stream: every file in it goes through the store's ingest as it comes, and what it was
is decided at the end by `index.json` (OCI) or `manifest.json` (docker). Nothing is written at a path from the
archive, so there is none to escape from. Links inside (docker of old shares layers that way) are followed in a table.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.exporter.adopt import Found, adopt, merge_found, names_of
from lamina.exporter.convert import sniff_compression
from lamina.exporter.protocol import Progress, silent
from lamina.layer.compress import open_stream
from lamina.layer.tar_read import iter_entries
from lamina.oci.config import parse_config
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.manifest import dump_manifest
from lamina.oci.media_types import OCI_CONFIG, OCI_MANIFEST, layer_media_type
from lamina.oci.reference import Reference
from lamina.oci.strict_json import MAX_BYTES, parse_json
from lamina.store.index import parse_entries
from lamina.store.store import Store, StoredImage

MAX_FILES = 100_000
_MAX_LINKS = 8
_CHUNK_BYTES = 1 << 20
_KEPT = ("oci-layout", "index.json", "manifest.json")


@dataclass(slots=True)
class _Contents:
    """What was in the archive.

    Attributes:
        kept: bytes of the files that say what the rest is.
        blobs: digest and size of every other file, by its path.
        links: where links point, by their path.
    """

    kept: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, tuple[Digest, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def find(self, path: str, where: str) -> tuple[Digest, int]:
        """Return the file that a path leads to."""
        current = posixpath.normpath(path)
        for _ in range(_MAX_LINKS):
            if current in self.blobs:
                return self.blobs[current]
            if current not in self.links:
                break
            current = self.links[current]
        raise InputError(f"the archive has no file {path[:200]!r}, which its manifest names", where=where)


def load_archive(
    store: Store,
    read: Callable[[int], bytes],
    *,
    name: str = "",
    cancel: Cancel,
    progress: Progress = silent,
    where: str = "archive",
) -> list[StoredImage]:
    """Bring the images of an archive into the store.

    Args:
        store: where they go.
        read: returns up to that many bytes of the archive, b"" at its end; compressed archives are fine.
        name: reference for an image that brings none.
        cancel: stops it; what was stored is a garbage collection's to remove.
        progress: is told how far each file is.
        where: the archive's name, for messages.

    Raises:
        InputError: it is no archive of images, or an image in it is not sound.
        StorageError: the store cannot be written.
    """
    contents = _take_in(store, read, cancel, progress, where)
    if "index.json" in contents.kept and "oci-layout" in contents.kept:
        found = _from_layout(contents, where)
    elif "manifest.json" in contents.kept:
        found = _from_docker(store, contents, where)
    else:
        raise InputError(
            "neither an OCI archive nor one of docker save",
            where=where,
            hint="an archive of a plain file system becomes an image by: FROM scratch, ADD archive.tar /",
        )
    return adopt(store, merge_found(found), name, cancel, where)


def _take_in(store: Store, read: Callable[[int], bytes], cancel: Cancel, progress: Progress, where: str) -> _Contents:
    """Read the archive to its end and store every file."""
    contents = _Contents()
    for count, (entry, reader) in enumerate(iter_entries(open_stream(read), whiteouts=False)):
        cancel.check()
        if count > MAX_FILES:
            raise InputError(f"more than {MAX_FILES} files in the archive", where=where)
        path = entry.path
        if path in contents.kept or path in contents.blobs or path in contents.links:
            raise InputError(f"the archive has {path[:200]!r} twice", where=where)
        if entry.kind in "lh":
            base = posixpath.dirname(path) if entry.kind == "l" else ""
            contents.links[path] = posixpath.normpath(posixpath.join(base, entry.target))
        elif entry.kind == "f" and path in _KEPT:
            contents.kept[path] = _read_small(_chunks(reader, cancel), entry.size, where)
        elif entry.kind == "f":
            contents.blobs[path] = _store_file(store, path, entry.size, _chunks(reader, cancel), progress)
    return contents


def _read_small(chunks: Iterator[bytes], size: int, where: str) -> bytes:
    """Return the content of a file that is kept in memory."""
    if size > MAX_BYTES:
        raise InputError(f"a manifest of {size} bytes, more than the {MAX_BYTES} allowed", where=where)
    return b"".join(chunks)


def _store_file(store: Store, path: str, size: int, chunks: Iterator[bytes], progress: Progress) -> tuple[Digest, int]:
    """Store one file; one that is named by a digest must have it."""
    expected = None
    parts = path.split("/")
    if len(parts) == 3 and parts[0] == "blobs":
        expected = Descriptor("", Digest(f"{parts[1]}:{parts[2]}"), size)
    with store.ingest(expected) as ingest:
        for chunk in chunks:
            ingest.write(chunk)
            progress(path, ingest.offset, size)
        return ingest.commit()


def _chunks(reader: Callable[[int], bytes], cancel: Cancel) -> Iterator[bytes]:
    """Yield what a reader gives until its end."""
    while chunk := reader(_CHUNK_BYTES):
        cancel.check()
        yield chunk


def _from_layout(contents: _Contents, where: str) -> list[Found]:
    """Return what `index.json` lists."""
    entries = parse_entries(contents.kept["index.json"], where)
    return [Found(entry.descriptor, names_of(entry.descriptor)) for entry in entries]


def _from_docker(store: Store, contents: _Contents, where: str) -> list[Found]:
    """Return what docker's `manifest.json` lists, as images of ours; their configs stay byte for byte."""
    rows = parse_json(contents.kept["manifest.json"], where)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError("manifest.json must be a list of objects", where=where)
    return [_docker_image(store, contents, row, where) for row in rows]


def _docker_image(store: Store, contents: _Contents, row: dict[str, Any], where: str) -> Found:
    """Make a manifest for one row of `manifest.json`."""
    config_path, layer_paths, tags = row.get("Config"), row.get("Layers") or [], row.get("RepoTags") or []
    texts = [config_path, *layer_paths, *tags] if isinstance(layer_paths, list) and isinstance(tags, list) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise InputError("manifest.json: Config, Layers and RepoTags must be text and lists of text", where=where)
    digest, size = contents.find(str(config_path), where)
    config = parse_config(store.read(digest), where)
    config.check_layers(len(layer_paths), where)
    layers = []
    for path in layer_paths:
        layer, layer_size = contents.find(path, where)
        layers.append(Descriptor(layer_media_type(sniff_compression(store, layer)), layer, layer_size))
    raw = dump_manifest(Descriptor(OCI_CONFIG, digest, size), layers)
    manifest, manifest_size = store.add(raw)
    names = tuple(str(Reference.parse(tag)) for tag in tags)
    return Found(Descriptor(OCI_MANIFEST, manifest, manifest_size), names)
