"""Rules of what to keep: one prune, or BuildKit's list of garbage collection policies. Pure.

In: the tables `[worker.oci]` of a buildkitd.toml (or `[gc]` of our own file) as plain values. Out: `Policies`.
How many bytes a rule keeps is worked out as BuildKit does: at most `max_used`, less if the disk has less than
`min_free` left, but never less than `reserved`. A rule without any of the three keeps nothing that its filters and its
`keep_s` do not keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lamina.engine.upkeep.amounts import NOTHING, Amount, parse_amount, parse_seconds
from lamina.engine.upkeep.filters import Filter, parse_filters
from lamina.engine.upkeep.records import CACHE_MOUNT, GIT, LOCAL, Record
from lamina.errors import InputError

_DAY_S = 86_400.0
_GB = 10**9


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that the store lies on, in bytes; `free_bytes` is what an ordinary program may use."""

    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Rule:
    """What one prune or one policy removes.

    Attributes:
        name: how explanations name it (`lamina prune --all`, `policy 2`).
        unneeded_only: just what nothing leads to; no later build loses a hit.
        all: what is internal too: answers to whole builds, digests of context files.
        filters: any of these must match; empty matches all.
        keep_s: keep what was used since so many seconds.
        reserved, max_used, min_free: see the module.
    """

    name: str
    unneeded_only: bool = False
    all: bool = False
    filters: tuple[Filter, ...] = ()
    keep_s: float = 0.0
    reserved: Amount = NOTHING
    max_used: Amount = NOTHING
    min_free: Amount = NOTHING

    def matches(self, record: Record, now: float) -> bool:
        """Tell whether the rule means this record."""
        if self.keep_s and record.used > now - self.keep_s:
            return False
        return not self.filters or any(one.matches(record, now) for one in self.filters)

    def keep_bytes(self, used_bytes: int, disk: Disk) -> int | None:
        """Return down to how many bytes the rule may go; None for no limit: all that matches goes."""
        if not (self.reserved or self.max_used or self.min_free):
            return None
        keep = self.max_used.of(disk.total_bytes) if self.max_used else used_bytes if self.min_free else 0
        lacking = self.min_free.of(disk.total_bytes) - disk.free_bytes
        if lacking > 0:
            keep = min(keep, used_bytes - lacking)
        return max(keep, self.reserved.of(disk.total_bytes), 0)


@dataclass(frozen=True, slots=True)
class _Capped(Amount):
    """A share of the disk, up to a number of bytes."""

    cap: int = 0

    def of(self, total_bytes: int) -> int:
        """Return the bytes on a file system of `total_bytes`."""
        return min(total_bytes * self.percent // 100, self.cap)


def _tiers(reserved: Amount, max_used: Amount, min_free: Amount) -> list[Rule]:
    cheap = tuple(parse_filters([f"type={type_}"]) for type_ in (LOCAL, CACHE_MOUNT, GIT))
    limited = Rule("policy 3 (too much)", reserved=reserved, max_used=max_used, min_free=min_free)
    return [
        Rule("policy 1 (easily made again)", filters=cheap, keep_s=2 * _DAY_S, max_used=Amount(512 * 10**6)),
        replace(limited, name="policy 2 (unused for 60 days)", keep_s=60 * _DAY_S),
        limited,
        replace(limited, name="policy 4 (too much, all)", all=True),
    ]


def default_rules(
    reserved: Amount | None = None, max_used: Amount | None = None, min_free: Amount | None = None
) -> tuple[Rule, ...]:
    """Return BuildKit's tiers; without any limit given, with its default limits."""
    if not (reserved or max_used or min_free):
        return tuple(_tiers(_Capped(percent=10, cap=10 * _GB), _Capped(percent=80, cap=100 * _GB), Amount(percent=20)))
    return tuple(_tiers(reserved or Amount(), max_used or Amount(), min_free or Amount()))


@dataclass(frozen=True, slots=True)
class Policies:
    """Everything that a store is told about its size.

    Attributes:
        enabled: whether garbage is collected after builds at all.
        rules: in the order in which they are applied.
        max_storage: the ceiling that no build may pass; nothing when there is none.
    """

    enabled: bool = True
    rules: tuple[Rule, ...] = field(default_factory=default_rules)
    max_storage: Amount = NOTHING


def parse_policies(worker: Mapping[str, Any], what: str = "gc") -> Policies:
    """Return what a table says.

    Known are `gc`, `reservedSpace` (`gckeepstorage`), `maxUsedSpace`, `minFreeSpace`, `gcpolicy`, and our own
    `maxStorage`. Other names are left to whoever reads the rest of the table.

    Raises:
        InputError: a value that is not what its name needs.
    """
    enabled = worker.get("gc", True)
    if not isinstance(enabled, bool):
        raise InputError(f"{what}: gc must be true or false")
    tables = worker.get("gcpolicy", [])
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        raise InputError(f"{what}: gcpolicy must be a list of tables")
    reserved, max_used, min_free = _limits(worker, what, ("gckeepstorage",))
    rules = tuple(_rule(table, number, what) for number, table in enumerate(tables, 1))
    ceiling = parse_amount(worker.get("maxStorage", ""), f"{what}: maxStorage")
    return Policies(enabled, rules or default_rules(reserved, max_used, min_free), ceiling)


def parse_rule(
    *,
    name: str,
    everything: bool = False,
    filters: Sequence[str] = (),
    keep_duration: str = "",
    reserved_space: str = "",
    max_used_space: str = "",
    min_free_space: str = "",
) -> Rule:
    """Return the rule of one `prune` from its options.

    Raises:
        InputError: an option cannot be understood.
    """
    limits = {
        "reserved": parse_amount(reserved_space, "--reserved-space"),
        "max_used": parse_amount(max_used_space, "--max-used-space"),
        "min_free": parse_amount(min_free_space, "--min-free-space"),
    }
    chosen = bool(everything or filters or keep_duration or any(limits.values()))
    return Rule(
        name,
        unneeded_only=not chosen,
        all=everything,
        filters=(parse_filters(filters),) if filters else (),
        keep_s=parse_seconds(keep_duration, "--keep-duration"),
        **limits,
    )


def _limits(table: Mapping[str, Any], what: str, aliases: Sequence[str]) -> tuple[Amount, Amount, Amount]:
    reserved = next((table[name] for name in ("reservedSpace", *aliases) if name in table), "")
    return (
        parse_amount(reserved, f"{what}: reservedSpace"),
        parse_amount(table.get("maxUsedSpace", ""), f"{what}: maxUsedSpace"),
        parse_amount(table.get("minFreeSpace", ""), f"{what}: minFreeSpace"),
    )


def _rule(table: Mapping[str, Any], number: int, what: str) -> Rule:
    where = f"{what}: gcpolicy {number}"
    known = {"reservedSpace", "keepBytes", "maxUsedSpace", "minFreeSpace", "keepDuration", "filters", "all"}
    if unknown := sorted(set(table) - known):
        raise InputError(f"{where}: unknown name {unknown[0]!r}", hint=f"known: {', '.join(sorted(known))}")
    filters = table.get("filters", [])
    if not isinstance(filters, list) or not all(isinstance(text, str) for text in filters):
        raise InputError(f"{where}: filters must be a list of texts")
    everything = table.get("all", False)
    if not isinstance(everything, bool):
        raise InputError(f"{where}: all must be true or false")
    reserved, max_used, min_free = _limits(table, where, ("keepBytes",))
    return Rule(
        f"policy {number}",
        all=everything,
        filters=tuple(parse_filters([text], f"{where}: filters") for text in filters),
        keep_s=parse_seconds(table.get("keepDuration", ""), f"{where}: keepDuration"),
        reserved=reserved,
        max_used=max_used,
        min_free=min_free,
    )
