"""`lamina context` as text and as JSON.

In: `Survey`s. Out: text for a terminal (names made harmless), or values for `print_json`. Sizes are what stat says,
every name of a file counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lamina.cli.terminal import clean_name, size_text, table
from lamina.engine.context_hints import Hint, hints
from lamina.engine.context_survey import MAIN, Survey
from lamina.source.ignore_why import Reasons
from lamina.source.listing import Listed

_TYPES = {"f": "file", "d": "directory", "l": "link", "c": "device", "b": "device", "p": "fifo", "s": "socket"}


@dataclass(slots=True)
class _Sum:
    """What lies at and below one path: files (all that is no directory), bytes, files that are read."""

    files: int = 0
    size: int = 0
    read: int = 0


def context_text(survey: Survey, depth: int, limit: int) -> str:
    """Return the report on one context.

    Args:
        depth: how deep paths are listed one by one; 0 for all.
        limit: most rows of each table, 0 for all.
    """
    kept, dropped = _sums(survey, True), _sums(survey, False)
    parts = [_head(survey, kept.get("", _Sum()), dropped.get("", _Sum()))]
    rows = [item for item in survey.listing.entries if item.kept and _shallow(item.path, depth)]
    if rows:
        cells = ((item, kept[item.path]) for item in rows if item.path in kept)
        body = [
            (size_text(total.size), str(total.files), _how_read(survey, total), _shown(item), _rule_text(survey, item))
            for item, total in _biggest(cells)
        ]
        parts.append("seen, biggest first\n" + _cut_table(("SIZE", "FILES", "READ", "PATH", "KEPT BY"), body, limit))
    tops = _dropped_tops(survey)
    if tops:
        lines = [
            (size_text(total.size), str(total.files), _shown(item), _rule_text(survey, item))
            for item, total in _biggest((item, dropped.get(item.path, _Sum())) for item in tops)
        ]
        parts.append("left out, biggest first\n" + _cut_table(("SIZE", "FILES", "PATH", "LEFT OUT BY"), lines, limit))
    said = [f"note: {clean_name(note)}" for note in _notes(survey)]
    said += [f"hint: {clean_name(_hint_text(survey, hint))}" for hint in hints(survey)]
    parts += ["\n".join(said)] if said else []
    return "\n\n".join(parts) + "\n"


def context_json(survey: Survey) -> dict[str, Any]:
    """Return all that is known of one context: every path that is seen, and the topmost of those left out."""
    kept, dropped = _sums(survey, True), _sums(survey, False)
    return {
        "name": survey.name,
        "root": survey.listing.root,
        "ignoreFile": survey.ignore_name or None,
        "seen": _total(kept.get("", _Sum())),
        "read": {"files": kept.get("", _Sum()).read} if survey.known else None,
        "leftOut": _total(dropped.get("", _Sum())),
        "paths": [_row(survey, item, kept.get(item.path, _Sum())) for item in survey.listing.entries if item.kept],
        "leftOutPaths": [_row(survey, item, dropped.get(item.path, _Sum())) for item in _dropped_tops(survey)],
        "notes": _notes(survey),
        "hints": [{"message": hint.message, "add": hint.add, "size": hint.size} for hint in hints(survey)],
    }


@dataclass(frozen=True, slots=True)
class Why:
    """What the rules say of one path.

    Attributes:
        kept: the build can see it (or could, if it were there).
        listed: it is there; None when it is not.
        rules: positions of the rules that match, in order; the last decides.
        for_below: a directory that is left out, and kept for the sake of what is in it.
    """

    path: str
    kept: bool
    listed: Listed | None
    rules: tuple[int, ...]
    for_below: bool


def why(survey: Survey, path: str) -> Why:
    """Return which rules match `path`, clean and relative to the context."""
    from lamina.patterns import IgnoreRules

    compiled = IgnoreRules(rule.pattern for rule in survey.rules)
    listed = next((item for item in survey.listing.entries if item.path == path), None)
    ignored = compiled.ignored(path)
    kept = listed.kept if listed is not None else not ignored
    return Why(path, kept, listed, tuple(Reasons(compiled).matching(path)), kept and ignored)


def why_text(survey: Survey, found: Why) -> str:
    """Return the answer for people: the verdict, then each rule that matches."""
    verdict = "is seen by the build" if found.kept else "is left out of the build context"
    line = survey.read.get(found.path, 0)
    lines = [f"{found.path} {verdict}" + (f", and read in line {line}" if line else "")]
    if found.listed is None:
        lines = [f"{found.path} is not there; if it were, it {'would be seen' if found.kept else 'would be left out'}"]
    elif found.listed.kind == "s":
        lines.append("  it is a socket, which no layer can hold")
    for number in found.rules:
        rule = survey.rules[number]
        effect = "keeps it" if rule.keeps else "leaves it out"
        decides = ", and decides: it is the last that matches" if number == found.rules[-1] else ""
        lines.append(f"  {survey.ignore_name}:{rule.line}  {rule.pattern}  {effect}{decides}")
    if found.for_below:
        lines.append("  it is a directory that comes along because something in it is kept")
    if not found.rules:
        lines.append(
            f"  no rule of {survey.ignore_name} matches" if survey.ignore_name else "  there is no ignore file"
        )
    return "\n".join(map(clean_name, lines)) + "\n"


def why_json(survey: Survey, found: Why) -> dict[str, Any]:
    """Return the answer for programs."""
    return {
        "path": found.path,
        "exists": found.listed is not None,
        "kept": found.kept,
        "readInLine": survey.read.get(found.path) or None,
        "rules": [
            {**_rule_json(survey, number), "keeps": survey.rules[number].keeps, "decides": number == found.rules[-1]}
            for number in found.rules
        ],
    }


def _sums(survey: Survey, kept: bool) -> dict[str, _Sum]:
    """Return the sums of what is kept (or not) for every path, "" for the whole."""
    found: dict[str, _Sum] = {}
    for item in survey.listing.entries:
        if item.kept is not kept:
            continue
        if item.kind == "d":
            found.setdefault(item.path, _Sum())
            continue
        path, read = item.path, item.path in survey.read
        while True:
            total = found.get(path)
            if total is None:
                total = found[path] = _Sum()
            total.files += 1
            total.size += item.size
            total.read += read
            if not path:
                break
            path = path.rpartition("/")[0]
    return found


def _dropped_tops(survey: Survey) -> list[Listed]:
    """Return the paths that are left out and lie in nothing that is."""
    gone: set[str] = set()
    tops = []
    for item in survey.listing.entries:  # directories come before what is in them
        if item.kept:
            continue
        if item.kind == "d":
            gone.add(item.path)
        if item.path.rpartition("/")[0] not in gone:
            tops.append(item)
    return tops


def _biggest(rows: Iterable[tuple[Listed, _Sum]]) -> list[tuple[Listed, _Sum]]:
    return sorted(rows, key=lambda row: (-row[1].size, -row[1].files, row[0].path))


def _shallow(path: str, depth: int) -> bool:
    return not depth or path.count("/") < depth


def _shown(item: Listed) -> str:
    return item.path + ("/" if item.kind == "d" else "")


def _head(survey: Survey, kept: _Sum, dropped: _Sum) -> str:
    rules = f"{survey.ignore_name}, {_count(len(survey.rules), 'rule')}" if survey.ignore_name else "no ignore file"
    name = "context" if survey.name == MAIN else f"context {survey.name}"
    read = f"{_count(kept.read, 'file')}" if survey.known else "not known"
    rows = [
        ("seen", str(kept.files), size_text(kept.size)),
        ("left out", str(dropped.files), size_text(dropped.size)),
    ]
    head = f"{name} {clean_name(survey.listing.root)} ({rules}); read by the Dockerfile: {read}"
    return head + "\n" + table(("", "FILES", "SIZE"), rows)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _how_read(survey: Survey, total: _Sum) -> str:
    if not survey.known:
        return "?"
    if not total.read:
        return "no" if total.files else ""
    return "yes" if total.read == total.files else "part"


def _rule_text(survey: Survey, item: Listed) -> str:
    if item.kind == "s":
        return "is a socket"
    if item.rule < 0 or (item.kept and not survey.rules[item.rule].keeps):
        return ""
    rule = survey.rules[item.rule]
    return f"{survey.ignore_name}:{rule.line} {rule.pattern}"


def _rule_json(survey: Survey, number: int) -> dict[str, Any]:
    return {
        "file": survey.ignore_name,
        "line": survey.rules[number].line,
        "pattern": survey.rules[number].pattern,
    }


def _row(survey: Survey, item: Listed, total: _Sum) -> dict[str, Any]:
    row: dict[str, Any] = {"path": item.path, "type": _TYPES[item.kind], "size": total.size}
    if item.kind == "d":
        row["files"] = total.files
    if item.rule >= 0:
        row["rule"] = _rule_json(survey, item.rule)
    if survey.known and item.kept:
        row["readInLine"] = survey.read.get(item.path) or None
    return row


def _total(total: _Sum) -> dict[str, int]:
    return {"files": total.files, "size": total.size}


def _cut_table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], limit: int) -> str:
    shown = rows[:limit] if limit else rows
    more = f"\n... {len(rows) - len(shown)} more (--all)" if len(shown) < len(rows) else ""
    return table(header, shown) + more


def _notes(survey: Survey) -> list[str]:
    unreadable = [f"/{path} cannot be listed: {why}" for path, why in survey.listing.unreadable]
    return [*survey.notes, *unreadable]


def _hint_text(survey: Survey, hint: Hint) -> str:
    size = f" ({size_text(hint.size)})" if hint.size else ""
    add = f": add the line {hint.add} to {survey.ignore_name or '.dockerignore'}" if hint.add else ""
    return f"{hint.message}{size}{add}"
