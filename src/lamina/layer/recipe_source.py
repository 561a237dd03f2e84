"""The source side of a copy: which paths a source text means, and what lies below one of them.

In: a `View`, a source text, `CopyOptions`. Out: matches, and for each the entries to copy in a fixed order (sorted
names, parents first). Both the copy itself and its content key go through here, so that they cannot disagree about
what is read. Must not: know the destination.

Wildcards follow Go's filepath.Match part by part; links among the matched parts are not followed, links in the
literal parts before them are. Include and exclude patterns follow moby's patternmatcher; a directory that matches no
include pattern comes along only when something below it does ("implied").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lamina.errors import InputError
from lamina.layer.union import clean_path
from lamina.patterns import IgnoreRules, glob_regex, has_glob

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.layer.entry import Entry
    from lamina.layer.recipe_options import CopyOptions
    from lamina.layer.view import View

_SHOWN_NAMES = 6


class Source(NamedTuple):
    """One thing to copy.

    Attributes:
        path: as the user wrote it or as it matched; its last part names the copy.
        entry: what lies there, links followed as asked.
    """

    path: str
    entry: Entry

    @property
    def name(self) -> str:
        """The last part of the path, "" for the root."""
        return self.path.rpartition("/")[2]


class Step(NamedTuple):
    """One entry below a source.

    Attributes:
        path: relative to the source, "" for the source itself.
        entry: as the view has it.
        implied: a directory that only comes along because something in it is copied.
    """

    path: str
    entry: Entry
    implied: bool = False


def find_sources(view: View, src: str, options: CopyOptions) -> list[Source]:
    """Return what `src` means in `view`, sorted.

    Raises:
        InputError: nothing is there (unless an empty wildcard is allowed); the message tells what may have been meant.
    """
    for path in map(clean_path, options.required):
        if view.lookup(view.resolve(path)) is None:
            raise missing(view, path)
    sources = _find(view, src, options)
    if options.required:
        _check_required(view, clean_path(src), sources, options)
    return sources


def _check_required(view: View, src: str, sources: list[Source], options: CopyOptions) -> None:
    """Raise InputError when patterns keep out what must be there: neither it nor anything below it is copied."""
    named = () if options.exclude else {clean_path(f"{src}/{pattern}") for pattern in options.include}
    for path in map(clean_path, options.required):
        # A path that is named itself, and that nothing keeps out, needs no walk: it is there.
        if path not in named and not any(_gives(view, source, path, options) for source in sources):
            raise InputError(
                f"/{path}: not found in {view.name} by what the patterns leave",
                where=f"/{path}",
                hint="it is there, but a pattern (--exclude) keeps it out",
            )


def _gives(view: View, source: Source, path: str, options: CopyOptions) -> bool:
    for step in iter_source(view, source.entry, options):
        full = f"{source.path}/{step.path}".strip("/")
        if step.path and (full == path or full.startswith(f"{path}/")):
            return True
    return source.path == path and source.entry.kind != "d"


def _find(view: View, src: str, options: CopyOptions) -> list[Source]:
    clean = clean_path(src)
    if options.allow_wildcard and has_glob(clean):
        paths = list(_match(view, clean))
        if not paths and not options.allow_empty_wildcard:
            raise missing(view, clean)
        return [source for path in paths if (source := _source(view, path, options)) is not None]
    source = _source(view, clean, options)
    if source is None:
        raise missing(view, clean)
    return [source]


def _source(view: View, path: str, options: CopyOptions) -> Source | None:
    entry = view.lookup(view.resolve(path, options.follow_symlink))
    if entry is None and options.allow_wildcard and view.lookup(path) is not None:
        raise InputError(
            f'"/{path}" is a symbolic link to nothing in {view.name}',
            where=f"/{path}",
            hint=view.why_missing(view.resolve(path)),
        )
    return None if entry is None else Source(path, entry)


def _match(view: View, pattern: str) -> Iterator[str]:
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if has_glob(part))
    start = view.resolve("/".join(parts[:first]))
    found = [start]
    for number, part in enumerate(parts[first:], first):
        matches = glob_regex(part).fullmatch
        last = number == len(parts) - 1
        found = [
            path
            for folder in found
            for name in view.children(folder)
            if matches(name)
            and (path := f"{folder}/{name}" if folder else name)
            and (last or ((entry := view.lookup(path)) is not None and entry.kind == "d"))
        ]
    return iter(found)


def missing(view: View, path: str) -> InputError:
    """Return the error for a source that is not there."""
    why = view.why_missing(path)
    what = f"/{path}: not found in {view.name}"
    if why:
        return InputError(what, hint=why)
    folder, name, is_last = _first_missing(view, path)
    prefix = f"/{folder}/" if folder else "/"
    import difflib

    there = view.children(folder)[:5000]
    similar = difflib.get_close_matches(name, there, n=3)
    if similar:
        question = f"did you mean {', '.join(prefix + other for other in similar)}?"
        return InputError(what, hint=question if is_last else f"there is no {prefix}{name}; {question}")
    names = sorted(there, key=lambda other: (other.startswith("."), other))
    shown = (", ".join(names[:_SHOWN_NAMES]) or "nothing") + (", ..." if len(names) > _SHOWN_NAMES else "")
    begin = f"/{folder} holds" if folder else f"paths begin at the top of {view.name}, which holds"
    return InputError(what, hint=f"{begin}: {shown}")


def _first_missing(view: View, path: str) -> tuple[str, str, bool]:
    """Return the deepest directory on the way to `path`, the name that is missing in it, and whether it is the last."""
    folder, parts = "", path.split("/")
    for number, name in enumerate(parts):
        try:
            below = view.resolve(f"{folder}/{name}" if folder else name)
            entry = view.lookup(below)
        except InputError:
            entry = None
        if entry is None or entry.kind != "d":
            return folder, name, number == len(parts) - 1
        folder = below
    return folder, "", True


class _Folder:
    """A directory on the way down, which may not have been told of yet."""

    __slots__ = ("entry", "parent", "path", "told")

    def __init__(self, path: str, entry: Entry, parent: _Folder | None, told: bool) -> None:
        self.path = path
        self.entry = entry
        self.parent = parent
        self.told = told


def iter_source(view: View, top: Entry, options: CopyOptions) -> Iterator[Step]:
    """Yield a source and all below it that is to be copied; parents before children, names sorted."""
    yield Step("", top)
    if top.kind != "d":
        return
    if options.include or options.exclude:
        yield from _iter_filtered(view, top, options)
        return
    pending = [(top.path, "", name) for name in reversed(view.children(top.path))]
    while pending:
        folder, relative, name = pending.pop()
        path = f"{folder}/{name}" if folder else name
        entry = view.lookup(path)
        if entry is None:
            continue
        relative = f"{relative}/{name}" if relative else name
        yield Step(relative, entry)
        if entry.kind == "d":
            pending.extend((path, relative, child) for child in reversed(view.children(path)))


def _iter_filtered(view: View, top: Entry, options: CopyOptions) -> Iterator[Step]:
    include = IgnoreRules(options.include) if options.include else None
    exclude = IgnoreRules(options.exclude) if options.exclude else None
    root = _Folder("", top, None, True)
    pending = [(root, name) for name in reversed(view.children(top.path))]
    while pending:
        folder, name = pending.pop()
        entry = view.lookup(f"{folder.entry.path}/{name}" if folder.entry.path else name)
        if entry is None:
            continue
        path = f"{folder.path}/{name}" if folder.path else name
        is_dir = entry.kind == "d"
        excluded = exclude is not None and exclude.ignored(path, is_dir)
        included = not excluded and (include is None or include.ignored(path, is_dir))
        if included:
            yield from _untold(folder)
            yield Step(path, entry)
        if is_dir and not (excluded and exclude is not None and not exclude.may_contain_exceptions(path)):
            here = _Folder(path, entry, folder, included)
            pending.extend((here, child) for child in reversed(view.children(entry.path)))


def _untold(folder: _Folder) -> list[Step]:
    """Return the parents that were not told of yet, top first, and mark them."""
    steps: list[Step] = []
    current: _Folder | None = folder
    while current is not None and not current.told:
        current.told = True
        steps.append(Step(current.path, current.entry, True))
        current = current.parent
    return steps[::-1]
