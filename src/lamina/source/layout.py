"""Finds an image in an OCI layout that the user names: `DIRECTORY[:TAG][@DIGEST]`. Source: image-layout.md of OCI."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from lamina.errors import InputError
from lamina.oci.digest import Digest
from lamina.oci.reference import Reference
from lamina.store.files import read_capped
from lamina.store.index import parse_entries
from lamina.store.names import MAX_INDEX_BYTES, REF_NAME


def split_layout(text: str) -> tuple[str, str, Digest | None]:
    """Return directory, tag ("" when not given) and digest of what stands behind `oci-layout://`."""
    rest, at, digest = text.partition("@")
    directory, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        directory, tag = rest, ""
    return directory, tag, Digest(digest) if at else None


def find_in_layout(path: Path, tag: str, digest: Digest | None) -> Reference:
    """Return a reference, pinned by digest, whose name stands for this layout within one build.

    Without tag and digest the tag `latest` is meant, or the only image there is.

    Raises:
        InputError: no layout, or no such image; the message lists what there is.
    """
    where = os.fspath(path)
    if not (path / "oci-layout").is_file():
        raise InputError("not an OCI layout: there is no oci-layout file in it", where=where)
    name = "layout-" + hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:16]
    if digest is not None:
        return Reference.parse(f"{name}@{digest}")
    entries = parse_entries(read_capped(os.path.join(path, "index.json"), MAX_INDEX_BYTES), where)
    tags = {entry.descriptor.annotations.get(REF_NAME, ""): entry.descriptor.digest for entry in entries}
    found = tags.get(tag or "latest")
    if found is None and not tag and len(set(tags.values())) == 1:
        found = next(iter(tags.values()))
    if found is None:
        there = ", ".join(sorted(filter(None, tags))) or "none with a tag"
        raise InputError(f"the layout has no image {tag or 'latest'!r}", where=where, hint=f"there is: {there}")
    return Reference.parse(f"{name}@{found}")
