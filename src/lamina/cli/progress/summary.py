"""What displays say at the end: the output of failing steps, and the warnings. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from lamina.cli.progress.board import Vertex
from lamina.cli.terminal import clean_name
from lamina.progress import WarningEvent


def failure_text(vertex: Vertex, last: int = 0) -> str:
    """Return a failing step's name and output between rules; `last` lines of it, or 0 for all that was kept."""
    lines = [line for _, line in vertex.kept]
    left_out = vertex.cut
    if last and len(lines) > last:
        left_out += len(lines) - last
        lines = list(islice(lines, len(lines) - last, None))
    note = [f"[{left_out} earlier lines not repeated]"] if left_out else []
    rule = "-" * 6
    return "\n".join([rule, f" > {vertex.name}:", *note, *lines, rule])


def warnings_text(warnings: Sequence[WarningEvent]) -> str:
    """Return all warnings, one per line, with the line of the Dockerfile they are about."""
    count = len(warnings)
    lines = [f"{count} warning{'' if count == 1 else 's'}:"]
    for warning in warnings:
        where = f" ({warning.source.file}:{warning.source.start})" if warning.source is not None else ""
        lines.append(f" - {clean_name(warning.short)}{clean_name(where)}")
    return "\n".join(lines)
