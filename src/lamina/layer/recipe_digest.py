"""The content key of a copy: a digest of just what it reads.

In: the same view, source and options as the copy. Out: sha256 in hex over the sorted records of what will be copied.
In it: relative path, kind, mode, owner where it is kept, link target, device numbers, xattrs, which names share a
file, content. Never in it: modification times, the order of the directory, host owners (a context reports 0:0), or
what the options override. Equal keys mean equal layers but for times - and, of a live directory, but for what its
rule (`View.counting`) leaves out: modes that only tell of a umask, and which names share a file.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from lamina.layer.recipe_options import CopyOptions
from lamina.layer.recipe_source import Source, find_sources, iter_source

if TYPE_CHECKING:
    from lamina.layer.entry import Entry
    from lamina.layer.view import View

_VERSION = b"lamina content 2 "


def content_digest(view: View, src: str, options: CopyOptions) -> str:
    """Return the content key of copying `src` from `view`.

    With `dir_copy_contents` the source directory's own mode, owner and xattrs do not count, as such a copy never
    shows them; without, its name and they do.

    Raises:
        InputError: nothing there, or a file that cannot be read.
    """
    state = hashlib.sha256(b"%s%s\n" % (_VERSION, view.counting.encode()))
    for source in find_sources(view, src, options):
        state.update(_records(view, source, options))
        state.update(b"\n\0")
    return state.hexdigest()


def _records(view: View, source: Source, options: CopyOptions) -> bytes:
    contents_only = source.entry.kind == "d" and options.dir_copy_contents
    steps = list(iter_source(view, source.entry, options))
    files = [step.entry for step in steps if step.entry.kind == "f"]
    digests = iter(view.digests(files))
    with_mode, with_owner, with_links = not isinstance(options.mode, int), options.owner is None, not view.counting
    counted_mode = view.counted_mode
    groups: dict[str, str] = {}
    records = ["" if contents_only else source.name]
    for step in steps:
        entry = step.entry
        if not step.path and contents_only:
            continue
        kind = entry.kind
        # A fixed number of fields that cannot hold a NUL: no two lists of entries give the same bytes.
        what = next(digests) if kind == "f" else entry.target if kind == "l" else f"{entry.dev}" if kind in "bc" else ""
        mode = f"{counted_mode(entry):o}" if with_mode and kind != "l" else ""
        owner = f"{entry.uid}:{entry.gid}" if with_owner else ""
        first = _first_name(view, entry, step.path, groups) if with_links and kind == "f" else ""
        records.append(f"{step.path}\0{kind}{'-' if step.implied else ''}\0{mode}\0{owner}\0{what}\0{first}")
        records.append("".join(f"{name}={value.hex()}," for name, value in entry.xattrs))
    return "\0".join(records).encode("utf-8", "surrogateescape")


def _first_name(view: View, entry: Entry, path: str, groups: dict[str, str]) -> str:
    """Return the first name of a file that was met under another one, "" for all others."""
    group = view.link_group(entry)
    if not group:
        return ""
    first = groups.setdefault(group, path)
    return "" if first == path else f"={first}"
