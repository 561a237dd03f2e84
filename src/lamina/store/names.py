"""Names of images, read and set without the weight of the rest: for the build in which nothing changed.

Reads `index.json` by way of the derived file `names`, whose first line says which `index.json` (device, inode,
time, size) it was made from; when that does not fit, `index.json` itself is parsed. Writes nothing but `names`.
Must import neither `json` nor `dataclasses` at the top.

    names = read_names("/var/lib/lamina/oci")     # {"docker.io/library/app:latest": "sha256:..."}
    if not is_tagged(root, name, digest): Store(root).tag(name, descriptor)
"""

from __future__ import annotations

import os

from lamina.store.files import read_capped, replace_file

REF_NAME = "org.opencontainers.image.ref.name"
MAX_INDEX_BYTES = 64 * 1024 * 1024
_VERSION = "names 1"


def read_names(root: str | os.PathLike[str]) -> dict[str, str]:
    """Return digest by name for all named images of the store; empty when there is no store yet.

    Raises:
        StorageError: `index.json` is there but cannot be read.
    """
    base = os.fspath(root)
    stamp = index_stamp(base)
    if not stamp:
        return {}
    try:
        with open(os.path.join(base, "names"), encoding="utf-8", errors="surrogateescape") as file:
            if file.readline() == f"{_VERSION} {stamp}\n":
                # digests have no space, so the rest of the line is the name
                return {line[:-1].partition(" ")[2]: line.partition(" ")[0] for line in file}
    except OSError:
        pass
    return parse_names(read_capped(os.path.join(base, "index.json"), MAX_INDEX_BYTES), base)


def is_tagged(root: str | os.PathLike[str], name: str, digest: str) -> bool:
    """Tell whether `name` (a full reference) already stands for `digest` and its manifest is here."""
    if read_names(root).get(name) != digest:
        return False
    return os.path.isfile(os.path.join(os.fspath(root), "blobs", *digest.split(":", 1)))


def index_stamp(base: str) -> str:
    """Return what tells this `index.json` from every other one, "" when there is none."""
    try:
        found = os.stat(os.path.join(base, "index.json"))
    except OSError:
        return ""
    return f"{found.st_dev} {found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_size}"


def parse_names(raw: bytes, where: str) -> dict[str, str]:
    """Return digest by name from the bytes of an `index.json`."""
    from lamina.store.index import parse_entries

    return {entry.name: str(entry.descriptor.digest) for entry in parse_entries(raw, where) if entry.name}


def save_names(base: str, names: dict[str, str]) -> None:
    """Write the derived file; the caller holds the store's lock. A failure is ignored: it is only a shortcut."""
    from lamina.errors import StorageError

    stamp = index_stamp(base)
    lines = [f"{_VERSION} {stamp}"] + [f"{digest} {name}" for name, digest in names.items() if "\n" not in name]
    try:
        data = "\n".join([*lines, ""]).encode("utf-8", "surrogateescape")
        replace_file(os.path.join(base, "names"), data, durable=False, spool=os.path.join(base, "ingest"))
    except StorageError:
        pass
