"""Signals to cancellation: the first Ctrl-C, SIGTERM or SIGHUP cancels in good order, the second ends at once.

Ending at once is safe by construction: the helper process that runs steps dies when our end of its pipe closes,
and takes mounts and processes along. Cancelling runs callbacks and takes locks, so it happens in a thread of its
own and never in the signal handler, which may have interrupted the very code that holds them.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lamina.cancel import Cancel

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOW_CURSOR = b"\x1b[?25h\n"


@contextmanager
def cancelling() -> Iterator[Cancel]:
    """Yield a token that signals cancel while the block runs; the handlers before are put back after it."""
    cancel = Cancel()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if cancel.is_cancelled() or state["asked"]:
            _end_now()
        state["asked"] = True
        threading.Thread(target=cancel.cancel, name="cancel", daemon=True).start()

    state = {"asked": False}
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        for number in _SIGNALS:
            if before[number] != signal.SIG_IGN:  # nohup: stay deaf
                signal.signal(number, handle)
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_now() -> None:
    """End the process without another step; give the terminal its cursor back."""
    try:
        if os.isatty(2):
            os.write(2, _SHOW_CURSOR)
    finally:
        os._exit(130)
