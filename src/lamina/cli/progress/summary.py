"""What displays say at the end: the output of failing steps, and the warnings. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from lamina.cli.progress.board import Vertex
from lamina.cli.terminal import clean_name
from lamina.errors import SourceRange
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


MAX_SHOWN = 30
"""Most warnings that are shown at the end of a build."""


def warnings_text(warnings: Sequence[WarningEvent]) -> str:
    """Return the warnings, each with the line of the Dockerfile it is about and where to read more."""
    count = len(warnings)
    lines = [f"{count} warning{'' if count == 1 else 's'}:"]
    for warning in warnings[:MAX_SHOWN]:
        where = f" ({warning.source.file}:{warning.source.start})" if warning.source is not None else ""
        lines.append(f" - {clean_name(warning.short)}{clean_name(where)}")
        if warning.source is not None and (written := _first_line(warning.source)):
            lines.append(f"   {warning.source.start:4d} | {clean_name(written)}")
        if warning.url:
            lines.append(f"          {clean_name(warning.url)}")
    if count > MAX_SHOWN:
        lines.append(f" and {count - MAX_SHOWN} more: `lamina build --check` shows all")
    return "\n".join(lines)


def _first_line(source: SourceRange) -> str:
    """Return the first of the lines that `source` names, shortened; "" when its text is not at hand."""
    lines = source.text.split("\n", source.start)
    line = lines[source.start - 1].rstrip() if 0 < source.start <= len(lines) else ""
    return line if len(line) <= _WIDTH else line[: _WIDTH - 3] + "..."


_WIDTH = 110
