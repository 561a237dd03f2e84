"""Which paths differ between two lists of what was read. Pure; linear in the lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lamina.cache.changes import SHOWN, Change, PathChange, clip
from lamina.cache.listing import Row
from lamina.solver.protocol import Counted

_KINDS = {
    "f": "file", "d": "directory", "l": "link", "p": "fifo", "c": "device", "b": "device", "h": "hard link",
}  # fmt: skip
MAX_PATHS = 10_000
"""Paths that one explanation keeps; the sentence has their true number."""
CONTEXT = "the build context"
INLINE = "the inline document"


def compare_rows(old: Iterable[Row], new: Iterable[Row]) -> tuple[PathChange, ...]:
    """Return what differs, sorted by path. A path that both lists have with several rows is compared in order."""
    before, after = _by_path(old), _by_path(new)
    found: list[PathChange] = []
    for path in sorted(before.keys() | after.keys()):
        left, right = before.get(path, []), after.get(path, [])
        if left == right:
            continue
        shown = path or "/"
        if not left or not right:
            found.append(PathChange(shown, "removed" if left else "added"))
        elif len(left) != len(right):
            found.append(PathChange(shown, "times it is read", str(len(left)), str(len(right))))
        else:
            pairs = zip(left, right, strict=True)
            found += dict.fromkeys(_difference(shown, a, b) for a, b in pairs if a != b)
    return tuple(found)


def _by_path(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.path, []).append(row)
    return found


def _difference(path: str, old: Row, new: Row) -> PathChange:
    """Return the most telling difference between two rows of one path that are not equal."""
    if old.kind != new.kind:
        return PathChange(path, "type", _KINDS.get(old.kind, old.kind), _KINDS.get(new.kind, new.kind))
    if old.what != new.what and old.mode != new.mode:
        return PathChange(path, "content and mode", old.mode, new.mode)
    if old.what != new.what:
        return PathChange(path, "target", old.what, new.what) if old.kind == "l" else PathChange(path, "content")
    if old.mode != new.mode:
        return PathChange(path, "mode", old.mode, new.mode)
    return PathChange(path, "owner or attributes", old.more, new.more)


def files_change(counted: Counted, old: Sequence[Row] | None, new: Sequence[Row] | None) -> Change:
    """Return the change of an input that counts by content; its digests are known to differ."""
    place = place_of(counted.name)
    if old is None or new is None:
        sentence = f"what it reads from {place} changed (the list of files is not kept any more)"
        return Change("files", place, sentence)
    paths = compare_rows(old, new)
    if not paths:
        return Change("files", place, f"what it reads from {place} changed (how files share their content)")
    return Change("files", place, _sentence(place, paths), paths=paths[:MAX_PATHS])


def modes_aside(change: Change, *, exact: bool) -> list[Change]:
    """Return what to say of a context's files when the rule by which their modes count is another one.

    Every digest differs then, and so may every mode that is told: what is left are other differences, behind the rule.

    Args:
        change: as `files_change` returns it.
        exact: modes count as they are now.
    """
    if not change.what.startswith(CONTEXT):
        return [change]
    rule = "as they are now (--exact-modes)" if exact else "as git has them now (without --exact-modes)"
    found = [Change("modes", "exact modes", f"file modes count {rule}")]
    paths = tuple(path for path in change.paths if path.how != "mode")
    if paths:
        found.append(Change("files", change.what, _sentence(change.what, paths), paths=paths))
    return found


def place_of(name: str) -> str:
    """Return how to call what an input is, given the name of its step."""
    if name == "[internal] load build context":
        return CONTEXT
    if name.startswith("[context ") and name.endswith("] load from client"):
        return f"{CONTEXT} {name[9:-18]}"
    if name.endswith("] preparing inline document"):
        return INLINE
    return f'"{clip(name)}"'


def _sentence(place: str, paths: Sequence[PathChange]) -> str:
    hows = {path.how for path in paths}
    if len(paths) == 1:
        (path,) = paths
        if place == INLINE:
            return f"{place} {clip(path.path)} changed"
        if path.how == "added":
            return f"{clip(path.path)} was added to {place}"
        if path.how == "removed":
            return f"{clip(path.path)} was removed from {place}"
        values = f" {clip(path.old, 40)} -> {clip(path.new, 40)}" if path.old or path.new else ""
        return f"{clip(path.path)} changed in {place} ({path.how}{values})"
    more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
    if len(hows) == 1 and hows <= {"added", "removed"}:
        names = ", ".join(clip(path.path) for path in paths[:SHOWN])
        word = "added to" if "added" in hows else "removed from"
        return f"{len(paths)} paths were {word} {place}: {names}{more}"
    return f"{len(paths)} paths changed in {place}: {', '.join(map(str, paths[:SHOWN]))}{more}"
