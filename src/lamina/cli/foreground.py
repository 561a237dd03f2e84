"""A program in the foreground of the user's terminal: his signals go to it, his keys too, and the terminal comes back.

While a step runs in front of the user, signals are not ours but the program's. We keep an emergency exit: the second
SIGINT or SIGTERM kills it, the third ends us at once (by construction nothing is left over then), and some time after
a SIGTERM it is killed, as `docker stop` has it. Touches the terminal and signal handlers; puts both back.
"""

from __future__ import annotations

import os
import signal
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lamina.cancel import Cancel
from lamina.executor.attach import Attached

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_HANDLED = (*FORWARDED, signal.SIGWINCH, signal.SIGCONT)
_STDIN = 0
_DEFAULT_SIZE = (24, 80)


def window_size() -> tuple[int, int]:
    """Return (rows, columns) of the user's terminal, or what terminals had before windows."""
    for fd in (1, 2, _STDIN):
        try:
            size = os.get_terminal_size(fd)
        except OSError:
            continue
        if size.lines and size.columns:
            return size.lines, size.columns
    return _DEFAULT_SIZE


class Foreground:
    """What stands between the user and one program.

    Args:
        interactive: whether standard input is the program's.
        terminal: whether it has a terminal; with `interactive`, ours is made raw meanwhile.
        cancel: kills the program.
        stop_timeout_s: how long after a SIGTERM it may go on.

    Attributes:
        began: whether a program was ever there; a cancelled run ended it by SIGKILL then.
    """

    def __init__(self, *, interactive: bool, terminal: bool, cancel: Cancel, stop_timeout_s: float) -> None:
        self.began = False
        self._interactive, self._terminal = interactive, terminal
        self._cancel, self._stop_timeout_s = cancel, stop_timeout_s
        self._attached = Attached()
        self._asked = 0  # how often the user wanted an end
        self._timer: threading.Timer | None = None
        self._modes: list[Any] | None = None  # the terminal's, before

    @contextmanager
    def attach(self) -> Iterator[Attached]:
        """Connect the program that is about to start; afterwards all is as before."""
        size = window_size() if self._terminal else (0, 0)
        self._attached = Attached(_STDIN if self._interactive else -1, size)
        self.began = True
        before = {number: signal.getsignal(number) for number in _HANDLED}
        try:
            for number, handler in before.items():
                if handler != signal.SIG_IGN:  # nohup: stay deaf
                    signal.signal(number, self._handle)
            self._make_raw()
            yield self._attached
        finally:
            if self._timer is not None:
                self._timer.cancel()
            for number, handler in before.items():
                signal.signal(number, handler)
            self._restore()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGWINCH:
            self._resize()
            return
        if number == signal.SIGCONT:  # the shell had the terminal meanwhile
            self._make_raw()
            self._resize()
            return
        self._attached.send_signal(number)
        if number in (signal.SIGINT, signal.SIGTERM):
            self._asked += 1
            if self._asked == 2:
                threading.Thread(target=self._cancel.cancel, name="cancel", daemon=True).start()
            elif self._asked > 2:
                self._restore()
                os._exit(128 + number)
        if number == signal.SIGTERM and self._timer is None:
            self._timer = threading.Timer(self._stop_timeout_s, self._cancel.cancel)
            self._timer.daemon = True
            self._timer.start()

    def _resize(self) -> None:
        if self._terminal:
            self._attached.resize(*window_size())

    def _make_raw(self) -> None:
        """Pass every key on as it is: the program's own terminal makes lines and signals of them."""
        if not (self._interactive and self._terminal):
            return
        try:
            modes = termios.tcgetattr(_STDIN)
            if self._modes is None:
                self._modes = modes
            tty.setraw(_STDIN, termios.TCSANOW)
        except termios.error:
            pass  # it has gone; the program notices by itself

    def _restore(self) -> None:
        if self._modes is not None:
            try:
                termios.tcsetattr(_STDIN, termios.TCSADRAIN, self._modes)
            except termios.error:
                pass
