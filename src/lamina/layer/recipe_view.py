"""The tree as a plan leaves it so far, as a view: a FileOp's action may copy from what an earlier one made."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.layer.entry import Content, Entry
    from lamina.layer.recipe import Plan
    from lamina.layer.view import View


class PlanView:
    """The tree as a plan leaves it so far, as a source for further copies.

    Args:
        plan: the actions so far.
        below: the view of the plan's base, for contents that the plan did not make; None when there are none.
    """

    def __init__(self, plan: Plan, below: View | None, name: str = "this step's files") -> None:
        self._plan = plan
        self._below = below
        self._name = name

    @property
    def name(self) -> str:
        """What to call the view in messages."""
        return self._name

    @property
    def counting(self) -> str:
        """Say that everything counts as it is."""
        return ""

    def counted_mode(self, entry: Entry) -> int:
        """Return the mode."""
        return entry.mode

    def lookup(self, path: str) -> Entry | None:
        """Return the entry at `path`."""
        return self._plan.lookup(path)

    def children(self, path: str) -> list[str]:
        """Return the sorted names in a directory."""
        return self._plan.children(path)

    def resolve(self, path: str, follow_last: bool = True) -> str:
        """Return `path` with links followed inside the root."""
        return self._plan.resolve(path, follow_last)

    def content(self, entry: Entry) -> Content:
        """Return a file's content: the plan's own, or from below."""
        if self._plan.made(entry.path) or self._below is None:
            return self._plan.content(entry.path)
        return self._below.content(entry)

    def digest(self, entry: Entry) -> str:
        """Return the digest of a file.

        Raises:
            InputError: it cannot be read.
        """
        if entry.digest:
            return entry.digest
        return self._plan.digest(entry.path) if self._plan.made(entry.path) else self._digest_below(entry)

    def digests(self, entries: Sequence[Entry]) -> list[str]:
        """Return the digests of many files."""
        return [self.digest(entry) for entry in entries]

    def link_group(self, entry: Entry) -> str:
        """Return the common name of hard links."""
        if self._plan.made(entry.path):
            return self._plan.link_group(entry.path)
        return "" if self._below is None else self._below.link_group(entry)

    def why_missing(self, path: str) -> str:
        """Return "": nothing is hidden."""
        return ""

    def _digest_below(self, entry: Entry) -> str:
        return "" if self._below is None else self._below.digest(entry)
