"""What a content key was made of, as rows: so that two keys can be compared path by path.

In: the same view, source and options as `content_digest`. Out: one row for each path that it reads, with everything
that it counts. Paths are those of the view (the build context's, the stage's), not those of the copy, since that is
where a person looks for them. Equal digests give equal rows; unequal ones differ in a row, but for how files share an
inode with files in another order.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from lamina.layer.recipe_source import find_sources, iter_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.layer.entry import Entry
    from lamina.layer.recipe_options import CopyOptions
    from lamina.layer.view import View

DIGEST_LENGTH = 16
"""Hexadecimal digits of a content's digest that a row keeps: enough to see that two differ."""


class Row(NamedTuple):
    """One path that counts in a content key.

    Attributes:
        path: in the view, "" for its root.
        kind: as `Entry.kind`.
        mode: what counts of the permission bits, in octal; "" where they do not.
        what: beginning of a file's sha256, a link's target, a device's numbers; "" for others.
        more: the rest that counts (owner, extended attributes, shared inodes, name of the copy), "" for nothing.
    """

    path: str
    kind: str
    mode: str
    what: str
    more: str


def content_rows(view: View, src: str, options: CopyOptions) -> Iterator[Row]:
    """Iterate over what `content_digest(view, src, options)` reads.

    Raises:
        InputError: nothing there, or a file that cannot be read.
    """
    for source in find_sources(view, src, options):
        contents_only = source.entry.kind == "d" and options.dir_copy_contents
        steps = [step for step in iter_source(view, source.entry, options) if step.path or not contents_only]
        digests = iter(view.digests([step.entry for step in steps if step.entry.kind == "f"]))
        groups: dict[str, str] = {}
        for step in steps:
            entry = step.entry
            digest = next(digests) if entry.kind == "f" else ""
            more = [f"{entry.uid}:{entry.gid}"] if options.owner is None and (entry.uid or entry.gid) else []
            if not step.path and source.name != entry.path.rpartition("/")[2]:
                more.append(f"as {source.name}")
            more += _rest(view, entry, groups)
            mode = f"{view.counted_mode(entry):o}" if not isinstance(options.mode, int) and entry.kind != "l" else ""
            yield Row(entry.path, entry.kind, mode, _what(entry, digest), " ".join(more))


def _what(entry: Entry, digest: str) -> str:
    if entry.kind == "f":
        return digest[:DIGEST_LENGTH]
    if entry.kind == "l":
        return entry.target
    return f"{entry.dev[0]}:{entry.dev[1]}" if entry.kind in "bc" else ""


def _rest(view: View, entry: Entry, groups: dict[str, str]) -> list[str]:
    """Return extended attributes (as a short digest) and the first name of a file that has several."""
    found = []
    if entry.xattrs:
        text = ",".join(f"{name}={value.hex()}" for name, value in entry.xattrs)
        found.append("xattrs " + hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:DIGEST_LENGTH])
    if entry.kind == "f" and not view.counting and (group := view.link_group(entry)):
        first = groups.setdefault(group, entry.path)
        if first != entry.path:
            found.append(f"same file as {first}")
    return found
