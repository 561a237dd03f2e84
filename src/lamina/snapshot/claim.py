"""Trees ask for their space while they are written: what an entry takes on a disk, claimed in steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from lamina.layer.entry import Content, Entry
from lamina.layer.tree import TreeWriter
from lamina.store.space import Space

_CLAIM_BYTES = 1 << 20


class Claim:
    """What is claimed for one tree while it is written, returned when its row says it (or it is gone)."""

    def __init__(self, space: Space) -> None:
        self._space, self._taken, self._small = space, 0, 0

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_error: object) -> None:
        self._space.give(self._taken)

    def more(self, size_bytes: int) -> None:
        """Claim bytes."""
        self._space.take(size_bytes)
        self._taken += size_bytes

    def entry(self, entry: Entry) -> None:
        """Claim what an entry takes; small ones are gathered first."""
        self._small += _entry_bytes(entry)
        if self._small >= _CLAIM_BYTES:
            self.more(self._small)
            self._small = 0


class ClaimingWriter(TreeWriter):
    """Claims what it writes before it writes it."""

    claim: Claim

    def add(self, entry: Entry, content: Content | Callable[[int], bytes] = None) -> Entry:
        """Claim and write one entry."""
        self.claim.entry(entry)
        return super().add(entry, content)


def disk_bytes(entries: Iterable[Entry]) -> int:
    """Return about what a tree of these entries takes on a disk: whole blocks for each file and directory."""
    return sum(map(_entry_bytes, entries))


def _entry_bytes(entry: Entry) -> int:
    return (entry.size + 4095) & -4096 if entry.kind == "f" else 4096 if entry.kind == "d" else 0
