"""How many steps run at once in this process, shared fairly by the builds that are under way.

Who waits is served in turns: one step of each build, whatever their number; so a build of two hundred steps does not
keep one of three waiting. Thread-safe.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager

from lamina.cancel import Cancel


class Slots:
    """A number of slots.

    Args:
        limit: how many there are; 0 for as many as are asked for.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._free = limit, limit
        self._waiting: OrderedDict[object, deque[threading.Event]] = OrderedDict()
        self._guard = threading.Lock()

    @contextmanager
    def held(self, owner: object, cancel: Cancel) -> Iterator[None]:
        """Hold a slot for the block.

        Args:
            owner: whose turn it is; a build.

        Raises:
            CancelledError: cancelled before there was one.
        """
        if not self._limit:
            yield
            return
        self._take(owner, cancel)
        try:
            yield
        finally:
            self._give()

    def _take(self, owner: object, cancel: Cancel) -> None:
        with self._guard:
            if self._free and not self._waiting:
                self._free -= 1
                return
            mine = threading.Event()
            self._waiting.setdefault(owner, deque()).append(mine)
        with cancel.closing(mine.set):
            mine.wait()
        if not cancel.is_cancelled():
            return
        with self._guard:
            waiting = self._waiting.get(owner)
            given = waiting is None or mine not in waiting
            if waiting is not None and not given:
                waiting.remove(mine)
                if not waiting:
                    del self._waiting[owner]
        if given:
            self._give()
        cancel.check()

    def _give(self) -> None:
        """Hand a slot to the next build in turn."""
        with self._guard:
            if not self._waiting:
                self._free += 1
                return
            owner, waiting = self._waiting.popitem(last=False)
            waiting.popleft().set()
            if waiting:
                self._waiting[owner] = waiting  # at the end: the others come first
