"""The files of an image as it lies in a store, read with nothing of lamina's: manifest, layers, whiteouts."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

Tree = dict[str, tuple[str, int, int, int, str]]
"""Path to kind, mode, owner, group, and the content's digest or the link's target."""


def image_tree(root: Path, digest: str) -> Tree:
    """Return what a container of the image in the state directory `root` would see; times left out."""
    manifest = json.loads(_blob(root, digest).read_bytes())
    tree: Tree = {}
    for layer in manifest["layers"]:
        with tarfile.open(_blob(root, layer["digest"])) as archive:
            _apply(archive, tree)
    return tree


def _blob(root: Path, digest: str) -> Path:
    return root / "oci" / "blobs" / "sha256" / digest.partition(":")[2]


def _apply(archive: tarfile.TarFile, tree: Tree) -> None:
    for member in archive:
        path = member.name.strip("/").removeprefix("./")
        parent, _, name = path.rpartition("/")
        if name == ".wh..wh..opq":
            _remove(tree, parent, itself=False)
            continue
        if name.startswith(".wh."):
            _remove(tree, f"{parent}/{name[4:]}" if parent else name[4:])
            continue
        if member.islnk():
            tree[path] = tree[member.linkname.strip("/").removeprefix("./")]
            continue
        kind, what = "d", ""
        if member.isreg():
            content = archive.extractfile(member)
            assert content is not None
            kind, what = "f", hashlib.sha256(content.read()).hexdigest()[:16]
        elif member.issym():
            kind, what = "l", member.linkname
        if kind != "d":
            _remove(tree, path)
        tree[path] = (kind, member.mode, member.uid, member.gid, what)


def _remove(tree: Tree, path: str, *, itself: bool = True) -> None:
    prefix = f"{path}/" if path else ""
    for known in [known for known in tree if known.startswith(prefix) or (itself and known == path)]:
        del tree[known]
