"""How long to wait before the next attempt, and when to give up. Pure: jitter and times come from outside.

One `Patience` belongs to one operation (a manifest, a blob). Invariants: attempts without progress are at most
`Retries.attempts`, and the waits of one operation add up to at most `Retries.budget_s`.
"""

from __future__ import annotations

from collections.abc import Callable

from lamina.registry.options import Retries

MEANINGFUL_PROGRESS = 1 << 20
"""Bytes after which a download's attempts start to count anew; less could be a server that drips forever."""


class Patience:
    """Counts the failed attempts of one operation.

    Args:
        retries: the limits.
        jitter: returns a number in [0, 1), such as `random.random`.
    """

    def __init__(self, retries: Retries, jitter: Callable[[], float]) -> None:
        self._retries = retries
        self._jitter = jitter
        self.failures = 0
        self.waited_s = 0.0

    def next_wait(self, after_s: float | None = None) -> float | None:
        """Count a failure; return the seconds to wait before the next attempt, or None to give up.

        Args:
            after_s: what the server asked for by `Retry-After`, if it did.
        """
        self.failures += 1
        if self.failures >= self._retries.attempts:
            return None
        # Half of the wait is fixed, half random: clients that failed together do not come back together.
        full: float = min(self._retries.most_s, self._retries.first_s * 2.0 ** (self.failures - 1))
        wait = full * (0.5 + self._jitter() / 2)
        if after_s is not None:
            wait = max(wait, min(after_s, self._retries.retry_after_cap_s))
        if self.waited_s + wait > self._retries.budget_s:
            return None
        self.waited_s += wait
        return wait

    def progressed(self, count: int) -> None:
        """Note that an attempt brought `count` bytes before it failed."""
        if count >= MEANINGFUL_PROGRESS:
            self.failures = 0
