"""What the store holds and why, and what may go: `du`, `why` and `prune` over a state directory.

In: an `Environment` and a rule. Out: plain values. Deciding is in `engine/upkeep/` and touches nothing; what is decided
is checked again under the locks before anything goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lamina.cache.listing import drop_unused
from lamina.cancel import Cancel
from lamina.engine.options import Environment
from lamina.engine.place import Place
from lamina.engine.upkeep.ballast import drop_ballast
from lamina.engine.upkeep.filters import Filter
from lamina.engine.upkeep.inventory import Inventory, live_bound, take_inventory, unnamed_images
from lamina.engine.upkeep.listing import list_records, totals
from lamina.engine.upkeep.plan import Plan, plan_rules
from lamina.engine.upkeep.policy import Rule
from lamina.engine.upkeep.records import Record, Totals
from lamina.engine.upkeep.sweep import Outcome, carry_out, drop_images, sweep_orphans
from lamina.engine.upkeep.why import Link, pinned_by
from lamina.remote import synced

EVERYTHING = Rule("`lamina prune --all`", all=True)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune did, or would do: the plan, and what really went (nothing for a dry run)."""

    plan: Plan
    outcome: Outcome


def du(environment: Environment, wanted: Filter | None = None) -> list[Record]:
    """List what is on disk, biggest first."""
    return survey(environment, wanted)[0]


def survey(environment: Environment, wanted: Filter | None = None) -> tuple[list[Record], Totals]:
    """Return what is on disk, biggest first, and the sums over what was asked for."""
    with Place(environment, Cancel()) as place:
        inventory = take_inventory(place)
    records = list_records(inventory)
    if wanted is not None:
        records = [record for record in records if wanted.matches(record, inventory.now)]
    return records, totals(inventory, records, _reclaimable(inventory, wanted))


def why(environment: Environment, name: str) -> list[Link]:
    """Return the chain that keeps one thing on disk.

    Raises:
        InputError: there is no such thing.
    """
    with Place(environment, Cancel()) as place:
        return pinned_by(take_inventory(place), name)


def prune(environment: Environment, *, everything: bool = False, older_than_s: float = 0.0) -> tuple[int, int]:
    """Remove what no image needs and no live build relies on; return how many things and bytes that freed.

    Args:
        everything: the cache of finished steps, cache mounts and git repositories too, not just what nothing leads to.
        older_than_s: keep what was used more recently than this.
    """
    name = "`lamina prune --all`" if everything else "`lamina prune`"
    rule = Rule(name, unneeded_only=not everything, all=everything, keep_s=older_than_s)
    outcome = prune_by(environment, [rule]).outcome
    return outcome.count, outcome.freed_bytes


def prune_by(
    environment: Environment,
    rules: Sequence[Rule],
    *,
    dry_run: bool = False,
    unnamed: bool = False,
    cancel: Cancel | None = None,
) -> Pruned:
    """Apply rules, one after the other.

    Args:
        dry_run: only say what would go.
        unnamed: images without a name do not count, and go first.

    Raises:
        StorageError: something could not be removed; all else was.
        CancelledError: stopped in between; the store is sound.
    """
    cancel = cancel or Cancel()
    if not dry_run:
        drop_ballast(environment.root)
    with Place(environment, cancel) as place:
        doomed = unnamed_images(place, live_bound(place)) if unnamed else frozenset()
        plan = plan_rules(take_inventory(place, without=doomed), rules)
        if dry_run:
            return Pruned(plan, Outcome(0, 0))
        drop_images(place, doomed)
        outcome = carry_out(place, plan, go_on=lambda: not cancel.is_cancelled())
        cancel.check()
        sweep_orphans(place)
        if any(rule.all and not rule.filters and not rule.keep_s for rule in rules):
            synced.sweep(place.root, 0.0)
        place.store.sweep_ingest()
        drop_unused(place.state)
        return Pruned(plan, outcome)


def _reclaimable(inventory: Inventory, wanted: Filter | None) -> int:
    rule = Rule("", all=True, filters=(wanted,) if wanted is not None else ())
    return plan_rules(inventory, [rule]).freed_bytes
