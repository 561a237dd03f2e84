"""Carries a plan out: rows first, files after, everything checked once more under the locks that decide.

A thing that was used since the plan was made stays. A crash at any point leaves a valid store: rows never name what was
removed before them, and files without a row (`sweep_orphans`) go the next time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamina.cache.facts import note_pruned
from lamina.engine.upkeep.plan import BLOB, LAYER, MOUNT, REPOSITORY, TREE, Plan, Removal
from lamina.errors import StorageError
from lamina.layer.tree import remove_tree
from lamina.oci.digest import Digest
from lamina.snapshot.layers import DIGITS
from lamina.store.reach import reachable

if TYPE_CHECKING:
    from lamina.engine.place import Place

_MOST_MARKS = 500


@dataclass(frozen=True, slots=True)
class Outcome:
    """What really went: things and bytes."""

    count: int
    freed_bytes: int


def carry_out(place: Place, plan: Plan, *, go_on: Callable[[], bool] = lambda: True) -> Outcome:
    """Remove what a plan names, as far as it still may go.

    Args:
        go_on: asked before each thing; False stops early, with everything sound.

    Raises:
        StorageError: something could not be removed; all else was.
    """
    return _Sweep(place, plan, go_on).run()


class _Sweep:
    def __init__(self, place: Place, plan: Plan, go_on: Callable[[], bool]) -> None:
        self._place, self._plan, self._go_on = place, plan, go_on
        self._count = self._freed = 0
        self._trouble: StorageError | None = None

    def run(self) -> Outcome:
        """Do it all."""
        by_kind: dict[str, list[Removal]] = {}
        for removal in self._plan.removals:
            by_kind.setdefault(removal.kind, []).append(removal)
        self._trees(by_kind.get(TREE, []))
        self._layers(by_kind.get(LAYER, []))
        self._blobs({removal.name for removal in by_kind.get(BLOB, [])})
        for removal in by_kind.get(MOUNT, []):
            self._folder(removal, self._drop_mount)
        for removal in by_kind.get(REPOSITORY, []):
            self._folder(removal, self._drop_repository)
        if self._trouble is not None:
            raise self._trouble
        return Outcome(self._count, self._freed)

    def _done(self, freed_bytes: int) -> None:
        self._count += 1
        self._freed += freed_bytes

    # -- layers

    def _layers(self, removals: list[Removal]) -> None:
        """Drop records and rows in one transaction, then their files, then the blobs that nothing names any more."""
        doomed: list[tuple[Removal, str | None]] = []
        with self._place.state.transaction() as connection:
            if self._plan.answers:
                self._drop_answers(connection)
            self._note(connection, removals)
            for removal in removals:
                if not self._go_on():
                    break
                blob = connection.execute("SELECT blob FROM layer WHERE id = ?", (int(removal.name),)).fetchone()
                if blob is not None and self._drop_row(connection, removal):
                    doomed.append((removal, blob[0]))
        blobs = set()
        for removal, blob in doomed:
            layer = int(removal.name)
            self._discard_tree(layer)
            self._place.layers.index_path(layer).unlink(missing_ok=True)
            self._done(removal.bytes)
            if blob is not None:
                blobs.add(blob)
        self._delete_blobs(blobs)

    def _note(self, connection: Any, removals: list[Removal]) -> None:
        """Keep what a later miss is explained with: of what goes, by which rule, and what its key was made of."""
        by_rule: dict[str, list[int]] = {}
        for removal in removals:
            by_rule.setdefault(removal.rule, []).extend(removal.nodes)
        for rule, nodes in by_rule.items():
            for start in range(0, len(nodes), _MOST_MARKS):
                some = [*nodes[start : start + _MOST_MARKS], self._plan.bound]
                note_pruned(connection, rule, f"id IN ({','.join('?' * (len(some) - 1))}) AND used < ?", some)

    def _drop_row(self, connection: Any, removal: Removal) -> bool:
        """Drop one layer with the records that lead to it, unless somebody came to need them."""
        layer, bound = int(removal.name), self._plan.bound
        marks = ",".join("?" * len(removal.nodes))
        (busy,) = connection.execute(
            f"""SELECT (SELECT count(*) FROM layer WHERE id = ? AND used >= ?)
                + (SELECT count(*) FROM layer WHERE parent = ?)
                + (SELECT count(*) FROM node WHERE id IN ({marks}) AND used >= ?)
                + (SELECT count(*) FROM result WHERE layer = ? AND node NOT IN ({marks}))""",
            (layer, bound, layer, *removal.nodes, bound, layer, *removal.nodes),
        ).fetchone()
        if busy:
            return False
        if removal.nodes:
            connection.execute(f"DELETE FROM node WHERE id IN ({marks})", removal.nodes)
        connection.execute("DELETE FROM layer WHERE id = ?", (layer,))
        return True

    def _drop_answers(self, connection: Any) -> None:
        bound = (self._plan.bound,)
        empty = "used < ? AND id NOT IN (SELECT node FROM result WHERE layer IS NOT NULL)"
        note_pruned(connection, "`lamina prune --all`", empty, bound)
        connection.execute("DELETE FROM memo WHERE used < ?", bound)
        connection.execute("DELETE FROM statcache WHERE used < ?", bound)
        connection.execute(f"DELETE FROM node WHERE {empty}", bound)

    def _trees(self, removals: list[Removal]) -> None:
        """Drop trees whose layers stay as blobs. The lock keeps whoever unpacks the same layer again apart."""
        for removal in removals:
            layer = int(removal.name)
            fd = self._place.locks.try_acquire(f"tree:{layer}") if self._go_on() else None
            if fd is None:
                continue
            try:
                with self._place.state.transaction() as connection:
                    (blob,) = connection.execute("SELECT blob FROM layer WHERE id = ?", (layer,)).fetchone() or (None,)
                    if blob is None or not self._place.store.has(Digest(blob)):
                        continue
                    done = connection.execute(
                        "UPDATE layer SET tree = 0, tree_bytes = 0 WHERE id = ? AND tree = 1 AND used < ?",
                        (layer, self._plan.bound),
                    )
                if done.rowcount:
                    self._discard_tree(layer)
                    self._done(removal.bytes)
            finally:
                os.close(fd)

    def _discard_tree(self, layer: int) -> None:
        """Move a tree out of the way at once, then remove it."""
        self._discard(self._place.layers.tree_path(layer))

    def _discard(self, path: Any) -> None:
        doomed = self._place.layers.scratch("x")
        try:
            os.rename(path, doomed)
            remove_tree(doomed)
        except FileNotFoundError:
            pass
        except (OSError, StorageError) as error:
            self._trouble = self._trouble or (
                error if isinstance(error, StorageError) else StorageError(f"cannot remove: {error}", where=str(path))
            )

    # -- blobs

    def _blobs(self, digests: set[str]) -> None:
        for size in self._delete_blobs(digests):
            self._done(size)

    def _delete_blobs(self, digests: Iterable[str]) -> list[int]:
        """Delete blobs that no row and no image names, and return their sizes.

        Under both locks: rows that name a blob are added under the first, images get their names under the second.
        """
        freed: list[int] = []
        if not digests:
            return freed
        place = self._place
        with place.state.transaction() as connection, place.store.lock():
            named = {str(one) for one in reachable(place.store, [image.descriptor for image in place.store.images()])}
            for text in digests:
                if text in named or connection.execute("SELECT 1 FROM layer WHERE blob = ?", (text,)).fetchone():
                    continue
                digest = Digest(text)
                if not place.store.has(digest):
                    continue
                size = place.store.size(digest)
                if place.store.delete(digest, unused_since=self._plan.bound):
                    freed.append(size)
            connection.execute("UPDATE usage SET bytes = max(0, bytes - ?) WHERE kind = 'blobs'", (sum(freed),))
        return freed

    # -- cache mounts and repositories

    def _folder(self, removal: Removal, drop: Callable[[Removal], bool]) -> None:
        if self._go_on() and drop(removal):
            self._done(removal.bytes)

    def _drop_mount(self, removal: Removal) -> bool:
        key, _, number = removal.name.partition("-")
        fd = self._place.locks.try_acquire(f"cache:{key}:{number or '0'}")
        if fd is None:
            return False  # a step has it mounted
        try:
            gone = self._place.state.execute(
                "DELETE FROM cachemount WHERE id = ? AND used < ?", (removal.name, self._plan.bound)
            )
            if not gone.rowcount:
                return False
            self._discard(self._place.root / "caches" / removal.name)
            return True
        finally:
            os.close(fd)

    def _drop_repository(self, removal: Removal) -> bool:
        from lamina.source.git_kept import lock_name

        path = self._place.root / "git" / removal.name
        fd = self._place.locks.try_acquire(lock_name(removal.name))
        if fd is None:
            return False
        try:
            if (path / "HEAD").stat().st_mtime >= self._plan.bound:
                return False
            shutil.rmtree(path, ignore_errors=True)
            return True
        except FileNotFoundError:
            return False
        finally:
            os.close(fd)


def drop_images(place: Place, digests: frozenset[Digest]) -> None:
    """Forget images that still have no name; their blobs are then like any others."""
    if not digests:
        return
    with place.store.lock():
        named = {image.descriptor.digest for image in place.store.images() if image.name}
        for digest in digests - named:
            place.store.untag_digest(digest)


def sweep_orphans(place: Place) -> int:
    """Remove trees and index files that no row names: a crash between a row and its files leaves them.

    The directories are listed before the rows are read: a row is there before its files, and ids are never used again.
    """
    listed = {name: os.listdir(place.root / name) for name in ("trees", "indexes")}
    known = {row[0]: bool(row[1]) for row in place.state.execute("SELECT id, tree FROM layer")}
    count = 0
    for folder, names in listed.items():
        for name in names:
            layer = _number(name.partition(".")[0])
            if layer is None or layer in known:
                continue
            path = place.root / folder / name
            doomed = place.layers.scratch("x")
            try:
                os.rename(path, doomed)
            except OSError:
                continue
            remove_tree(doomed)
            count += 1
    return count


def _number(name: str) -> int | None:
    """Return the id that a file is named by, None for a name that is not of ours."""
    if not name or any(character not in DIGITS for character in name):
        return None
    return int(name, 36)
