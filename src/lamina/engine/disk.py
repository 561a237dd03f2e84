"""What the store holds and why: `du` and `prune`.

A thing is kept because an image needs it, because a cache record leads to it, or because a live build relied on
it (its `used` stamp is not older than the oldest live lease). Pruning checks that again under the state file's
write lock before anything is deleted; rows go first, files after, so that a crash leaves only unnamed files.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lamina.cache.facts import note_pruned
from lamina.cache.listing import drop_unused
from lamina.cancel import Cancel
from lamina.engine.options import Environment
from lamina.engine.place import Place
from lamina.layer.tree import remove_tree
from lamina.oci.digest import Digest
from lamina.snapshot.rows import LayerRow
from lamina.state import leases
from lamina.store.reach import reachable


@dataclass(frozen=True, slots=True)
class Usage:
    """One thing on disk.

    Attributes:
        kind: "layer", "cache mount", "git repository", "blob".
        name: id or digest.
        size_bytes: what removing it would free.
        in_use: a live build relies on it.
        reason: why it is kept.
        used: when it was last relied on, seconds since the epoch.
    """

    kind: str
    name: str
    description: str
    size_bytes: int
    created: float
    used: float
    in_use: bool
    reason: str


def du(environment: Environment) -> list[Usage]:
    """List what is on disk, biggest first."""
    with Place(environment, Cancel()) as place:
        live = leases.oldest_live(place.root / "work")
        found = [*_layers(place, live), *_cache_mounts(place, live), *_repositories(place, live), *_blobs(place)]
    return sorted(found, key=lambda usage: -usage.size_bytes)


def prune(environment: Environment, *, everything: bool = False, older_than_s: float = 0.0) -> tuple[int, int]:
    """Remove what no image needs and no live build relies on; return how many things and bytes that freed.

    Args:
        everything: the cache of finished steps, cache mounts and git repositories too, not just what nothing leads to.
        older_than_s: keep what was used more recently than this.
    """
    with Place(environment, Cancel()) as place:
        limit = time.time() - older_than_s
        count, freed = _prune_records(place, limit, everything=everything)
        if everything:
            mounts, bytes_freed = _prune_cache_mounts(place, limit)
            count, freed = count + mounts, freed + bytes_freed
            repositories, bytes_freed = _prune_repositories(place, limit)
            count, freed = count + repositories, freed + bytes_freed
        blobs, bytes_freed = _prune_blobs(place, limit)
        place.store.sweep_ingest()
        drop_unused(place.state)
        return count + blobs, freed + bytes_freed


def _layers(place: Place, live: float) -> Iterable[Usage]:
    rows = place.state.execute(
        """SELECT layer.id, layer.description, layer.size, layer.created, layer.used,
            (SELECT count(*) FROM result WHERE result.layer = layer.id),
            (SELECT count(*) FROM layer AS child WHERE child.parent = layer.id)
        FROM layer WHERE tree = 1"""
    ).fetchall()
    for layer, description, size, created, used, records, children in rows:
        reason = "cache of a step" if records else f"below {children} other layers" if children else "unpacked image"
        yield Usage("layer", str(layer), description, size, created, used, used >= live, reason)


def _cache_mounts(place: Place, live: float) -> Iterable[Usage]:
    for name, label, created, used in place.state.execute("SELECT id, name, created, used FROM cachemount").fetchall():
        size = _tree_bytes(place.root / "caches" / name)
        yield Usage("cache mount", name[:12], label, size, created, used, used >= live, "RUN --mount=type=cache")


def _repositories(place: Place, live: float) -> Iterable[Usage]:
    from lamina.source.git_kept import kept_repositories

    for kept in kept_repositories(place.root / "git"):
        size, created = _tree_bytes(kept.path), kept.path.stat().st_ctime
        in_use = kept.used >= live
        yield Usage("git repository", kept.name[:12], kept.address, size, created, kept.used, in_use, "git sources")


def _blobs(place: Place) -> Iterable[Usage]:
    named = _reachable_from_images(place)
    for digest in place.store.digests():
        path = place.store.path(digest)
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        reason = "image" if digest in named else "packed layer of the cache"
        yield Usage("blob", digest, "", status.st_size, status.st_ctime, status.st_mtime, False, reason)


def _reachable_from_images(place: Place) -> set[Digest]:
    return set(reachable(place.store, [image.descriptor for image in place.store.images()]))


def _prune_records(place: Place, limit: float, *, everything: bool) -> tuple[int, int]:
    """Drop results (all that may go, or just those nothing leads to), then layers that nothing needs."""
    doomed: list[LayerRow] = []
    with place.state.transaction() as connection:
        bound = min(limit, _live_bound(place))
        if everything:
            note_pruned(connection, "`lamina prune --all`", "used < ?", (bound,))
            connection.execute("DELETE FROM node WHERE used < ?", (bound,))
            connection.execute("DELETE FROM memo WHERE used < ?", (bound,))
            connection.execute("DELETE FROM statcache WHERE used < ?", (bound,))
        while True:
            found = connection.execute(
                """SELECT id FROM layer WHERE used < ? AND id NOT IN (SELECT layer FROM result WHERE layer IS NOT NULL)
                AND id NOT IN (SELECT parent FROM layer WHERE parent IS NOT NULL)""",
                (bound,),
            ).fetchall()
            if not found:
                break
            for (layer,) in found:
                doomed.append(place.layers.rows.get(layer))
                connection.execute("DELETE FROM layer WHERE id = ?", (layer,))
    freed = 0
    for row in doomed:
        tree = place.layers.tree_path(row.id)
        if tree.exists():
            freed += row.size
            remove_tree(tree)
        place.layers.index_path(row.id).unlink(missing_ok=True)
    return len(doomed), freed


def _live_bound(place: Place) -> float:
    """Return the start of the oldest live build other than this very call."""
    starts = [start for path, start in leases.live(place.root / "work") if path != place.lease.directory]
    return min(starts, default=time.time())


def _prune_cache_mounts(place: Place, limit: float) -> tuple[int, int]:
    bound = min(limit, _live_bound(place))
    count = freed = 0
    rows = place.state.execute("SELECT id FROM cachemount WHERE used < ?", (bound,)).fetchall()
    for (name,) in rows:
        number = name.partition("-")[2] or "0"
        fd = place.locks.try_acquire(f"cache:{name.partition('-')[0]}:{number}")
        if fd is None:
            continue  # a step has it mounted
        try:
            path = place.root / "caches" / name
            freed += _tree_bytes(path)
            if path.exists():
                doomed = place.layers.scratch("x")
                os.rename(path, doomed)
                remove_tree(doomed)
            place.state.execute("DELETE FROM cachemount WHERE id = ?", (name,))
            count += 1
        finally:
            os.close(fd)
    return count, freed


def _prune_repositories(place: Place, limit: float) -> tuple[int, int]:
    """Drop what was fetched by git; what a build needs of it again is fetched again."""
    from lamina.source.git_kept import remove_unused

    sizes = [
        _tree_bytes(kept.path)
        for kept in remove_unused(place.root / "git", place.locks, min(limit, _live_bound(place)))
    ]
    return len(sizes), sum(sizes)


def _prune_blobs(place: Place, limit: float) -> tuple[int, int]:
    """Delete blobs that neither an image nor a layer row names and no live build has touched."""
    count = freed = 0
    keep: set[str] = set(_reachable_from_images(place))
    keep |= {blob for (blob,) in place.state.execute("SELECT blob FROM layer WHERE blob IS NOT NULL")}
    bound = min(limit, _live_bound(place))
    for digest in list(place.store.digests()):
        if digest in keep:
            continue
        size = place.store.size(digest)
        if place.store.delete(digest, unused_since=bound):
            count, freed = count + 1, freed + size
    return count, freed


def _tree_bytes(path: Path) -> int:
    total = 0
    for directory, _names, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512
            except OSError:
                continue
    return total
