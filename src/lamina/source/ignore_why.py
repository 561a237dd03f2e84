"""Which rule of an ignore file decides about a path, and which others match it.

In: the rules of `patterns.IgnoreRules`. Out: their positions among `rules.patterns`, from 0. The verdicts themselves
are those of `IgnoreRules`, which does not remember which of many rules it was: here the rules are halved until one is
left, so a question costs the logarithm of their number. Pure.

Invariant: the sign of the rule that `decides` is the verdict of `IgnoreRules.ignored` (property-tested).
"""

from __future__ import annotations

from lamina.patterns import IgnoreRules


class Reasons:
    """Answers why about the rules of one ignore file. Compiles what it is asked for, when it is asked."""

    def __init__(self, rules: IgnoreRules) -> None:
        self._numbers = [number for number, pattern in enumerate(rules.patterns) if pattern.strip("!")]
        self._bare = [_without_sign(rules.patterns[number]) for number in self._numbers]
        self._halves: dict[tuple[int, int], IgnoreRules] = {}

    def decides(self, path: str) -> int:
        """Return the last rule that matches `path` or a directory above it; -1 when none does."""
        low, high = 0, len(self._bare)
        if not self._any(low, high, path):
            return -1
        while high - low > 1:
            middle = (low + high) // 2
            if self._any(middle, high, path):
                low = middle
            else:
                high = middle
        return self._numbers[low]

    def matching(self, path: str) -> list[int]:
        """Return every rule that matches `path` or a directory above it, in order."""
        found: list[int] = []
        todo = [(0, len(self._bare))]
        while todo:
            low, high = todo.pop()
            if not self._any(low, high, path):
                continue
            if high - low == 1:
                found.append(self._numbers[low])
            else:
                middle = (low + high) // 2
                todo += [(middle, high), (low, middle)]
        return found

    def _any(self, low: int, high: int, path: str) -> bool:
        """Tell whether one of these rules matches, whatever its sign."""
        if low >= high:
            return False
        rules = self._halves.get((low, high))
        if rules is None:
            rules = self._halves[low, high] = IgnoreRules(self._bare[low:high])
        return rules.ignored(path)


def _without_sign(pattern: str) -> str:
    """Return the pattern of a rule, such that it is never taken for an exception."""
    bare = pattern.removeprefix("!")
    return "\\" + bare if bare.startswith("!") else bare
