"""Shows what `--call` found: a table for people, or JSON as buildx prints it."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamina.dockerfile.outline import Outline, Taken, Target
    from lamina.errors import SourceRange


def show_outline(found: Outline, data: bytes, format_: str) -> str:
    """Return the text of an outline; `data` is the Dockerfile, which JSON holds in base64."""
    if format_ == "json":
        value: dict[str, Any] = {"name": found.name, "description": found.description}
        value["args"] = [_taken(one, description=one.description, value=one.value) for one in found.args]
        value["secrets"] = [_taken(one, required=one.required) for one in found.secrets]
        value["ssh"] = [_taken(one, required=one.required) for one in found.ssh]
        return _dump({key: part for key, part in value.items() if part}, data)
    parts = []
    if found.name:
        parts.append(_table([("TARGET:", found.name), ("DESCRIPTION:", found.description)], 2))
    if found.args:
        rows = [(one.name, one.value, one.description) for one in found.args]
        parts.append(_table([("BUILD ARG", "VALUE", "DESCRIPTION"), *rows]))
    for title, group in (("SECRET", found.secrets), ("SSH", found.ssh)):
        if group:
            parts.append(_table([(title, "REQUIRED"), *((one.name, "true" if one.required else "") for one in group)]))
    return "\n".join(parts) or "this target takes no arguments, secrets or agents\n"


def show_targets(found: Sequence[Target], data: bytes, format_: str) -> str:
    """Return the text of a list of targets."""
    if format_ == "json":
        rows = []
        for one in found:
            row = {"name": one.name, "default": one.default, "description": one.description, "base": one.base}
            row |= {"platform": one.platform}
            rows.append({key: value for key, value in row.items() if value} | {"location": _location(one.source)})
        return _dump({"targets": rows}, data)
    names = [f"{one.name} (default)".strip() if one.default else one.name for one in found]
    lines = [(name, one.description) for name, one in zip(names, found, strict=True)]
    return _table([("TARGET", "DESCRIPTION"), *lines])


_CALLS = (
    ("outline", "1.0.0", "What the target can be given: arguments, secrets, agents"),
    ("targets", "1.0.0", "The stages that can be built"),
    ("lint", "1.0.0", "What could be better in the Dockerfile"),
    ("convertllb", "0.1.0", "The graph that the Dockerfile becomes"),
    ("subrequests.describe", "1.0.0", "What can be asked for instead of a build"),
)


def show_calls(format_: str) -> str:
    """Return the text of the list of what can be asked for."""
    if format_ == "json":
        fields = ("name", "version", "description")
        rows = [{**dict(zip(fields, row, strict=True)), "name": f"frontend.{row[0]}", "type": "rpc"} for row in _CALLS]
        return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    return _table([("NAME", "VERSION", "DESCRIPTION"), *_CALLS], 1)


def _taken(one: Taken, **more: Any) -> dict[str, Any]:
    return {"name": one.name, **{key: value for key, value in more.items() if value}, "location": _location(one.source)}


def _location(source: SourceRange) -> dict[str, Any]:
    return {"ranges": [{"start": {"line": source.start}, "end": {"line": source.end}}]}


def _dump(value: dict[str, Any], data: bytes) -> str:
    return json.dumps({**value, "sources": [base64.b64encode(data).decode()]}, indent=2, ensure_ascii=False) + "\n"


def _table(rows: Sequence[Sequence[str]], gap: int = 3) -> str:
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]
    lines = ((" " * gap).join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "".join(line.rstrip() + "\n" for line in lines)
