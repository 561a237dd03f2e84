"""What a fully cached build shows, without the machinery of a live display. Imported on the fast path: keep it light.

The steps come from the memo of the build before: names in order. The look is the one of the plain display.
"""

from __future__ import annotations

import sys

from lamina.cli.terminal import clean_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def show_cached(progress: str, steps: Sequence[str], warnings: Sequence[str], names: Sequence[str]) -> None:
    """Write every step as cached to standard error, then the warnings and the image's names."""
    if progress in ("quiet", "none"):
        return
    lines = []
    if progress == "plain" or (progress == "auto" and not sys.stderr.isatty()):
        for number, step in enumerate(steps, 1):
            lines += [f"#{number} {clean_name(step)}", f"#{number} CACHED", ""]
    else:
        lines += [f" => CACHED {clean_name(step)}" for step in steps]
    if warnings:
        lines.append(f"{len(warnings)} warning{'' if len(warnings) == 1 else 's'}:")
        lines += [f" - {clean_name(warning)}" for warning in warnings]
    lines += [f"image: {clean_name(name)}" for name in names]
    sys.stderr.write("".join(line + "\n" for line in lines))
