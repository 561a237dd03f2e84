"""Garbage collection after a build, beside its last steps, and only when something is due.

Whether it is due costs one query and one `statvfs`. A policy with a limit is due when the store is past it; one that
goes by age once a day. What could not be brought below its limit is not tried again before the store has grown.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import TYPE_CHECKING

from lamina.engine.upkeep.policy import Disk, Policies
from lamina.errors import Error

if TYPE_CHECKING:
    from lamina.engine.place import Place

_EVERY_S = 86_400.0
_GROWN = 1.02
_MEMORY = "collected"


def is_due(policies: Policies, used_bytes: int, disk: Disk, last: tuple[float, int], now: float) -> bool:
    """Tell whether the policies have something to do. Pure.

    Args:
        last: when garbage was last collected (seconds since the epoch), and what the store then took.
    """
    if not policies.enabled or not policies.rules:
        return False
    when, then_bytes = last
    if now - when >= _EVERY_S:
        return True
    limits = [rule.keep_bytes(used_bytes, disk) for rule in policies.rules if not (rule.keep_s or rule.filters)]
    past = any(limit is not None and used_bytes > limit for limit in limits)
    return past and used_bytes > then_bytes * _GROWN


def collect_garbage(place: Place) -> None:
    """Collect in a thread of this process if that is due; closing the place waits for it a while, then stops it."""
    from lamina.engine.upkeep.inventory import read_disk

    policies, now = place.environment.gc, time.time()
    if not policies.enabled:
        return
    used = place.room.used_bytes()
    found = place.state.execute("SELECT value FROM meta WHERE name = ?", (_MEMORY,)).fetchone()
    if found is None:
        _remember(place, now, 0)  # a new store: its first day begins
    last = tuple(json.loads(found[0])) if found is not None else (now, 0)
    if is_due(policies, used, read_disk(place.root), (float(last[0]), int(last[1])), now):
        stop = threading.Event()
        thread = threading.Thread(target=_collect, args=(place, policies, stop), name="collect")
        place.beside(thread, stop)
        thread.start()


def _collect(place: Place, policies: Policies, stop: threading.Event) -> None:
    from lamina.engine.upkeep.inventory import take_inventory
    from lamina.engine.upkeep.plan import plan_rules
    from lamina.engine.upkeep.sweep import carry_out, sweep_orphans

    try:
        plan = plan_rules(take_inventory(place, own_lease=True), policies.rules)
        carry_out(place, plan, go_on=lambda: not stop.is_set())
        if not stop.is_set():
            sweep_orphans(place)
            _remember(place, time.time(), plan.left_bytes)
    except Error as error:
        logging.getLogger(__name__).warning("garbage was not collected: %s", error)


def _remember(place: Place, now: float, used_bytes: int) -> None:
    place.state.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (_MEMORY, json.dumps([now, used_bytes])))
