"""One token per build that stops whatever blocks.

Every blocking call takes a `Cancel`. Code that loops calls `check()` per chunk or entry; code that blocks in
the kernel registers with `closing(callback)` what would wake it (shut a socket, kill a process group).
Invariant: a callback runs at most once, and after `cancel()` every later registration runs at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lamina.errors import CancelledError


class Cancel:
    """A cancellation token. Thread-safe; cancelling twice is the same as once.

    Args:
        parent: a token whose cancellation cancels this one too.
    """

    def __init__(self, parent: Cancel | None = None) -> None:
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._next = 0
        self.reason: BaseException | None = None
        self.root: Cancel = parent.root if parent is not None else self
        """The token that this one hangs from in the end: that of the whole build."""
        if parent is not None:
            parent.on_cancel(lambda: self.cancel(parent.reason))

    def cancel(self, reason: BaseException | None = None) -> None:
        """Cancel, wake every waiter, and run the registered callbacks in this thread."""
        with self._lock:
            if self._event.is_set():
                return
            self.reason = reason
            self._event.set()
            callbacks = list(self._callbacks.values())
            self._callbacks.clear()
        for callback in callbacks:
            callback()

    def is_cancelled(self) -> bool:
        """Tell whether `cancel()` was called."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise `CancelledError` if cancelled; cheap enough to call per chunk."""
        if self._event.is_set():
            raise CancelledError

    def wait(self, timeout_s: float) -> bool:
        """Sleep for at most `timeout_s`; return True (at once) when cancelled."""
        return self._event.wait(timeout_s)

    def on_cancel(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Register `callback` for cancellation and return a function that takes it back."""
        with self._lock:
            if not self._event.is_set():
                token = self._next
                self._next += 1
                self._callbacks[token] = callback

                def forget() -> None:
                    with self._lock:
                        self._callbacks.pop(token, None)

                return forget
        callback()
        return lambda: None

    @contextmanager
    def closing(self, callback: Callable[[], None]) -> Iterator[None]:
        """Run `callback` if cancelled while the block runs."""
        forget = self.on_cancel(callback)
        try:
            yield
        finally:
            forget()
