"""Room on the disk, asked for before it is written to: the ceiling that holds during a build.

Whoever writes blobs and trees calls `take` with the bytes to come. As long as they fit below the ceiling and on the
disk that is a subtraction. When they do not, things go, cheapest first (see `upkeep.worth`), never what a live build
or an image relies on; and when not enough may go, nothing does: the build fails, and says what holds the space.

What the store takes is known without looking at files: sums over rows, plus running sums of what has no rows, plus
what this process has taken and not accounted for yet.
"""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from lamina.engine.upkeep.amounts import Amount
from lamina.engine.upkeep.policy import Disk
from lamina.store.errors import DiskFullError, size_text

if TYPE_CHECKING:
    from lamina.engine.place import Place
    from lamina.engine.upkeep.plan import Pin, Plan

_STEP_BYTES = 64 << 20
"""How much is given out between two looks at the disk."""
_LEAST_STEP_BYTES = 1 << 20
_MOST_RESERVE_BYTES = 64 << 20
_SHOWN_PINS = 6

_SUMS = """SELECT
    (SELECT coalesce(sum(tree * tree_bytes + indexed * index_bytes), 0) FROM layer),
    (SELECT coalesce(sum(bytes), 0) FROM cachemount),
    (SELECT coalesce(sum(bytes), 0) FROM usage),
    (SELECT count(*) FROM usage WHERE kind = 'blobs')"""


class CeilingError(DiskFullError):
    """The store may not grow any more, and nothing in it may go."""


class Room:
    """The space of one store, as one `Place` uses it. Thread-safe.

    Args:
        place: the store. Nothing is read before something is taken.
        ceiling: what the store may take in all; nothing when only the disk counts.
    """

    def __init__(self, place: Place, ceiling: Amount) -> None:
        self._place, self._amount = place, ceiling
        self._lock = threading.RLock()
        self._left = 0
        self._pending = 0
        self._pool: ThreadPoolExecutor | None = None
        self._measuring: list[Future[None]] = []

    @property
    def limited(self) -> bool:
        """Whether there is a ceiling."""
        return bool(self._amount)

    def take(self, size_bytes: int) -> None:
        """Claim bytes that are about to be written; 0 just checks.

        Raises:
            CeilingError: the store would pass its ceiling, and nothing may go.
            DiskFullError: the disk has no room, and nothing may go.
        """
        with self._lock:
            self._pending += size_bytes
            self._left -= size_bytes
            if self._left >= 0 and size_bytes:
                return
            try:
                self._look(size_bytes)
            except BaseException:
                self._pending -= size_bytes
                raise

    def start(self) -> None:
        """Bring the store below its ceiling before a build; where that fails, the first write says so."""
        if self.limited:
            try:
                self.take(0)
            except DiskFullError:
                pass

    def give(self, size_bytes: int) -> None:
        """Return bytes that were not written after all, or that rows account for from now on."""
        with self._lock:
            self._pending -= size_bytes

    def used_bytes(self) -> int:
        """Return what the store takes, by its sums."""
        layers, mounts, others, counted = self._place.state.execute(_SUMS).fetchone()
        if not counted:
            others += self._count_blobs()
        return int(layers + mounts + others + self._pending)

    def mount_used(self, name: str) -> None:
        """Measure a cache mount that a step has just used; at once where there is a ceiling, else beside the build.

        Raises:
            CeilingError: with what the step wrote the store passes its ceiling, and nothing may go.
        """
        if self.limited:
            self._measure(name)
            self.take(0)
            return
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="measure")
            self._measuring.append(self._pool.submit(self._measure, name))

    def close(self) -> None:
        """Note what was added. Idempotent."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None
        with self._lock:
            added, self._pending = self._pending, 0
        if added:
            self._place.state.execute("UPDATE usage SET bytes = max(0, bytes + ?) WHERE kind = 'blobs'", (added,))

    # -- inside

    def _look(self, coming: int) -> None:
        """Compare what is used with what may be, make room if need be, and say how much may be given out unseen."""
        disk = _disk(self._place)
        reserve = min(disk.total_bytes // 50, _MOST_RESERVE_BYTES)
        below_ceiling = self._amount.of(disk.total_bytes) - self.used_bytes() if self._amount else None
        over = -below_ceiling if below_ceiling is not None else 0
        must = max(over, coming - disk.free_bytes)
        wish = max(must, coming + reserve - disk.free_bytes)
        if wish > 0:
            self._make_room(must, wish, over, coming, disk)
            disk = _disk(self._place)
            below_ceiling = self._amount.of(disk.total_bytes) - self.used_bytes() if self._amount else None
        free = max(disk.free_bytes - coming - reserve, (disk.free_bytes - coming) // 2)
        allowed = min(_STEP_BYTES, max(free, 0) if wish <= 0 else max(free, _LEAST_STEP_BYTES))
        self._left = allowed if below_ceiling is None else max(0, min(allowed, below_ceiling))

    def _make_room(self, must: int, wish: int, over: int, coming: int, disk: Disk) -> None:
        """Let things go until `wish` bytes are free, or at least those that must be."""
        from lamina.engine.upkeep.inventory import take_inventory
        from lamina.engine.upkeep.plan import plan_limit
        from lamina.engine.upkeep.sweep import carry_out

        inventory = take_inventory(self._place, own_lease=True)
        name = "the ceiling of the store" if over > 0 else "the disk was full"
        slack = min(_STEP_BYTES, inventory.used_bytes // 20)
        plan: Plan | None = None
        for wanted in (wish + slack, wish, must):
            if wanted <= 0:
                return
            plan = plan_limit(inventory, inventory.used_bytes - wanted, name)
            if plan.reached and inventory.used_bytes >= wanted:
                carry_out(self._place, plan)
                return
        assert plan is not None
        raise _refusal(plan.pinned, self._amount.of(disk.total_bytes) if over > 0 else 0, coming, disk, self._place)

    def _measure(self, name: str) -> None:
        from lamina.engine.upkeep.inventory import measure_mount

        measure_mount(self._place, name)

    def _count_blobs(self) -> int:
        """Count the blobs file by file: the first time, and after a crash."""
        total = 0
        for digest in self._place.store.digests():
            try:
                total += os.lstat(self._place.store.path(digest)).st_size
            except FileNotFoundError:
                continue
        # what this process wrote is among the files already
        total = max(0, total - self._pending)
        self._place.state.execute("INSERT OR REPLACE INTO usage VALUES ('blobs', ?, 0)", (total,))
        return total


def _disk(place: Place) -> Disk:
    from lamina.engine.upkeep.inventory import read_disk

    return read_disk(place.root)


def _refusal(pins: tuple[Pin, ...], ceiling: int, coming: int, disk: Disk, place: Place) -> DiskFullError:
    """Return the error for a store that may not grow, with what holds the space."""
    held = "; ".join(
        f"{size_text(pin.bytes)} {pin.kind} {pin.name[:19]}: {pin.reason[:80]}" for pin in pins[:_SHOWN_PINS]
    )
    more = f"; and {len(pins) - _SHOWN_PINS} more" if len(pins) > _SHOWN_PINS else ""
    told = f", and all that is left is needed: {held}{more}" if pins else ", and nothing is left that may go"
    if ceiling:
        return CeilingError(
            f"the store would pass its ceiling of {size_text(ceiling)}{told}",
            where=str(place.root),
            hint="remove images (lamina rmi; lamina prune --images for all without a name), "
            "or allow more with --max-storage or LAMINA_MAX_STORAGE",
        )
    return DiskFullError(
        f"no space left: {size_text(disk.free_bytes)} are free, {size_text(coming)} more are needed{told}",
        where=str(place.root),
        hint="free some space elsewhere, remove images (lamina rmi; lamina prune --images for all without a name), "
        "or move the state directory (LAMINA_ROOT)",
    )
