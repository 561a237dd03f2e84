"""What every display offers, and the choice among them.

A display takes events (`sink`, from any thread, never for long) and is closed once, with the error that ended
the build or None. `close` tells whether it has shown the failing step's output, so that it is not shown twice.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Protocol, TextIO

from lamina.progress import Event


class Display(Protocol):
    """A display of one build's progress."""

    def sink(self, event: Event) -> None:
        """Take one event; callable from any thread."""

    def close(self, error: BaseException | None, names: Sequence[str] = ()) -> bool:
        """Show what is left to show; return True when the failing step's output was shown."""


class Quiet:
    """A display that shows nothing."""

    def sink(self, event: Event) -> None:
        """Drop the event."""

    def close(self, error: BaseException | None, names: Sequence[str] = ()) -> bool:
        """Show nothing; the error's own text tells the rest."""
        return False


def open_display(kind: str, stream: TextIO | None = None) -> Display:
    """Return the display of this kind (`auto`, `tty`, `plain`, `rawjson`, `quiet`, `none`), on standard error."""
    stream = stream if stream is not None else sys.stderr
    if kind in ("quiet", "none"):
        return Quiet()
    if kind == "auto":
        kind = "tty" if stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb") else "plain"
    if kind == "rawjson":
        from lamina.cli.progress.rawjson import RawJson

        return RawJson(stream)
    if kind == "tty":
        from lamina.cli.progress.tty import Tty

        return Tty(stream, color=not os.environ.get("NO_COLOR"))
    from lamina.cli.progress.plain import Plain

    return Plain(stream)
