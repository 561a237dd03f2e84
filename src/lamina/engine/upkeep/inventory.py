"""Everything on disk as values, read once: what planning, `du` and `--why` work on.

In: an open `Place`. Out: an `Inventory`. One pass over each table and one over each directory, so the cost grows with
the number of things; only cache mounts and repositories that changed since they were measured are walked.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lamina.engine.upkeep.policy import Disk
from lamina.errors import Error
from lamina.history.repeated import take_repeated
from lamina.oci.digest import Digest
from lamina.oci.manifest import MAX_MANIFEST_BYTES, parse_any
from lamina.oci.media_types import CONFIG_TYPES, INDEX_TYPES, MANIFEST_TYPES
from lamina.state import leases
from lamina.store.reach import walk

if TYPE_CHECKING:
    from lamina.engine.place import Place

_NOT_LAYERS = MANIFEST_TYPES | INDEX_TYPES | CONFIG_TYPES


@dataclass(frozen=True, slots=True)
class LayerFact:
    """A layer row. `blob` is its digest when the store has it; bytes are 0 for forms that are not here."""

    id: int
    parent: int | None
    blob: str
    blob_bytes: int
    tree_bytes: int
    index_bytes: int
    has_tree: bool
    remote: bool
    description: str
    created: float
    used: float


@dataclass(frozen=True, slots=True)
class NodeFact:
    """A cache record with the layers its results stand on."""

    id: int
    canon: str
    description: str
    seconds: float
    uses: int
    created: float
    used: float
    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FolderFact:
    """A cache mount or a repository: a directory that changes in place. `name` is the directory's."""

    name: str
    label: str
    bytes: int
    uses: int
    created: float
    used: float


@dataclass(frozen=True, slots=True)
class BlobFact:
    """A file of the store; `used` is when it was written or touched."""

    digest: str
    bytes: int
    used: float


@dataclass(frozen=True, slots=True)
class Inventory:
    """A store at one moment.

    Attributes:
        live: start of the oldest live build; what was used since is not to be touched.
        history: what builds left of themselves (`lamina history`); no prune takes it.
        images: for each blob that an image needs, the names of such images.
        bases: the same for manifests and configs of base images that tags were resolved to.
    """

    now: float
    live: float
    disk: Disk
    layers: dict[int, LayerFact] = field(default_factory=dict)
    nodes: dict[int, NodeFact] = field(default_factory=dict)
    mounts: tuple[FolderFact, ...] = ()
    repositories: tuple[FolderFact, ...] = ()
    blobs: dict[str, BlobFact] = field(default_factory=dict)
    history: FolderFact | None = None
    images: dict[str, tuple[str, ...]] = field(default_factory=dict)
    bases: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def used_bytes(self) -> int:
        """All that the store takes, each file once."""
        layers = sum(layer.tree_bytes + layer.index_bytes for layer in self.layers.values())
        folders = sum(folder.bytes for folder in (*self.mounts, *self.repositories))
        folders += self.history.bytes if self.history else 0
        return layers + folders + sum(blob.bytes for blob in self.blobs.values())


def take_inventory(place: Place, *, own_lease: bool = False, without: frozenset[Digest] = frozenset()) -> Inventory:
    """Read the whole store.

    Args:
        own_lease: whether this very process relies on things, too: it is building, not only looking.
        without: manifests of images that do not count: they are about to go.
    """
    live = live_bound(place, own_lease=own_lease)
    blobs = _blobs(place)
    nodes = _nodes(place)  # before the layers: what a result stands on is then among them, unless it was pruned
    layers = _layers(place, blobs)
    found = Inventory(
        now=time.time(),
        live=live,
        disk=read_disk(place.root),
        layers=layers,
        nodes=nodes,
        mounts=tuple(_mounts(place)),
        repositories=tuple(_repositories(place)),
        blobs=blobs,
        history=_history(place),
        images=_images(place, without),
        bases=_bases(place),
    )
    _note_sums(place, found)
    return found


def live_bound(place: Place, *, own_lease: bool = False) -> float:
    """Return the start of the oldest live build, now when there is none."""
    starts = [start for path, start in leases.live(place.root / "work") if own_lease or path != place.lease.directory]
    return min(starts, default=time.time())


def read_disk(root: Path) -> Disk:
    """Return size and free space of the file system below the store."""
    found = os.statvfs(root)
    return Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)


def folder_bytes(path: Path) -> int:
    """Return what the files below a directory take on the disk, hard links once; never follows links."""
    total = 0
    seen: set[tuple[int, int]] = set()
    pending = [os.fspath(path)]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
                        elif status.st_nlink > 1:
                            if (status.st_dev, status.st_ino) in seen:
                                continue
                            seen.add((status.st_dev, status.st_ino))
                        total += status.st_blocks * 512
                    except FileNotFoundError:
                        continue
        except OSError:
            continue
    return total


def _blobs(place: Place) -> dict[str, BlobFact]:
    found = {}
    for digest in place.store.digests():
        try:
            status = os.lstat(place.store.path(digest))
        except FileNotFoundError:
            continue
        found[str(digest)] = BlobFact(str(digest), status.st_size, status.st_mtime)
    return found


def _layers(place: Place, blobs: dict[str, BlobFact]) -> dict[int, LayerFact]:
    rows = place.state.execute(
        """SELECT id, parent, blob, tree_bytes, index_bytes, tree, indexed, origin <> '', description, created, used
        FROM layer"""
    )
    found = {}
    for layer, parent, blob, tree_bytes, index_bytes, tree, indexed, remote, description, created, used in rows:
        here = blobs.get(blob) if blob else None
        found[layer] = LayerFact(
            layer,
            parent,
            here.digest if here else "",
            here.bytes if here else 0,
            tree_bytes if tree else 0,
            index_bytes if indexed else 0,
            bool(tree),
            bool(remote),
            description,
            created,
            used,
        )
    return found


def _nodes(place: Place) -> dict[int, NodeFact]:
    layers: dict[int, list[int]] = {}
    for node, layer in place.state.execute("SELECT node, layer FROM result WHERE layer IS NOT NULL ORDER BY node"):
        layers.setdefault(node, []).append(layer)
    rows = place.state.execute("SELECT id, canon, description, seconds, uses, created, used FROM node")
    again = _repeated(place)
    found = {}
    for node, canon, description, seconds, uses, created, used in rows:
        when, times = again.get(canon, (0.0, 0))
        stands_on = tuple(layers.get(node, ()))
        found[node] = NodeFact(node, canon, description, seconds, uses + times, created, max(used, when), stands_on)
    return found


def _repeated(place: Place) -> dict[str, tuple[float, int]]:
    """Return when and how often records were found again by builds that never looked at them (see `engine.fast`)."""
    take_repeated(place.state, place.root)
    rows = place.state.execute(
        """SELECT step.canon, max(again.started), sum(again.times) FROM
            (SELECT same_as, max(started) AS started, count(*) AS times FROM build WHERE same_as <> '' GROUP BY same_as)
            AS again JOIN build ON build.id = again.same_as JOIN step ON step.build = build.seq
        WHERE step.canon <> '' GROUP BY step.canon"""
    )
    return {canon: (started, times) for canon, started, times in rows}


def _history(place: Place) -> FolderFact | None:
    folder = place.root / "builds"
    if not any(files for _path, _folders, files in os.walk(folder)):
        return None
    size = folder_bytes(folder)
    when = folder.stat().st_mtime
    return FolderFact("builds", "records and logs of builds", size, 0, when, when)


def _mounts(place: Place) -> list[FolderFact]:
    found = []
    rows = place.state.execute("SELECT id, name, bytes, uses, created, used, measured FROM cachemount").fetchall()
    for name, label, size, uses, created, used, measured in rows:
        if measured <= used:
            size = measure_mount(place, name)
        found.append(FolderFact(name, label, size, uses, created, used))
    return found


def measure_mount(place: Place, name: str) -> int:
    """Walk a cache mount, note its size and return it."""
    now = time.time()
    size = folder_bytes(place.root / "caches" / name)
    place.state.execute("UPDATE cachemount SET bytes = ?, measured = ? WHERE id = ?", (size, now, name))
    return size


def _repositories(place: Place) -> list[FolderFact]:
    from lamina.source.git_kept import kept_repositories

    return [
        FolderFact(kept.name, kept.address, folder_bytes(kept.path), 1, kept.path.stat().st_ctime, kept.used)
        for kept in kept_repositories(place.root / "git")
    ]


def unnamed_images(place: Place, bound: float) -> frozenset[Digest]:
    """Return the manifests of images without a name that were not made or touched since `bound`."""
    images = place.store.images()
    named = {image.descriptor.digest for image in images if image.name}
    found = set()
    for digest in {image.descriptor.digest for image in images} - named:
        try:
            if os.lstat(place.store.path(digest)).st_mtime < bound:
                found.add(digest)
        except FileNotFoundError:
            continue
    return frozenset(found)


def _images(place: Place, without: frozenset[Digest]) -> dict[str, tuple[str, ...]]:
    """Return for each blob that images need their names; what several names share is walked once."""
    names: dict[Digest, list[str]] = {}
    roots = {}
    for image in place.store.images():
        digest = image.descriptor.digest
        if digest not in without:
            names.setdefault(digest, []).append(image.name or f"{digest[:19]} (no name)")
            roots[digest] = image.descriptor
    found: dict[str, list[str]] = {}
    for digest, root in roots.items():
        for descriptor, _error in walk(place.store, [root]):
            found.setdefault(str(descriptor.digest), []).extend(names[digest])
    return {digest: tuple(names) for digest, names in found.items()}


def _bases(place: Place) -> dict[str, tuple[str, ...]]:
    """Return manifests and configs that say what a tag stood for, so that builds need not ask a registry again."""
    found: dict[str, tuple[str, ...]] = {}
    for key, value in place.state.execute("SELECT key, value FROM memo WHERE key LIKE 'pin:%'").fetchall():
        name = key.split(":", 1)[1].rpartition(":")[0]
        try:
            top = Digest(json.loads(value)["digest"])
            raw = place.store.read(top, MAX_MANIFEST_BYTES)
            root = parse_any(raw, "", name).descriptor()
            for descriptor, error in walk(place.store, [root]):
                if error is None and descriptor.media_type in _NOT_LAYERS:
                    found[str(descriptor.digest)] = (name,)
        except (ValueError, KeyError, Error):
            continue
    return found


def _note_sums(place: Place, found: Inventory) -> None:
    """Correct the running sums that builds go by."""
    sums = {
        "blobs": sum(blob.bytes for blob in found.blobs.values()),
        "git": sum(folder.bytes for folder in found.repositories),
    }
    with place.state.transaction() as connection:
        connection.executemany(
            "INSERT OR REPLACE INTO usage VALUES (?, ?, ?)", [(kind, size, found.now) for kind, size in sums.items()]
        )
