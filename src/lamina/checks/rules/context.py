"""Rules about the build context."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from lamina.checks.values import Hit, rule
from lamina.checks.view import View
from lamina.dockerfile.instructions import Add, Copy

_REMOTE = re.compile(r"https?://|git@|git://|ssh://")
_EVERYTHING = ("*", "**", "**/*")


@rule("CopyIgnoredFile", "COPY and ADD should not name what the ignore file leaves out", buildkit=True)
def copy_ignored_file(view: View) -> Iterator[Hit]:
    """What is ignored is not in the build context, and the step will fail, or copy less than it says.

    An ignore file with exceptions (`!`) is not judged: they may bring back what the other lines leave out.
    """
    ignore = view.options.ignore
    if ignore is None or any(pattern.startswith("!") for pattern in ignore.patterns):
        return
    everything = any(pattern in _EVERYTHING for pattern in ignore.patterns)
    for step in view.steps(Copy, Add):
        if isinstance(step.item, Copy) and step.item.from_:
            continue
        for source in step.values:
            if isinstance(step.item, Add) and _REMOTE.match(source):
                continue
            path = posixpath.normpath(source)
            if path in (".", "/", "//"):
                if not everything:
                    continue
                path = "."
            if path == "." or ignore.ignored(path.lstrip("/")):
                yield Hit(
                    f"{step.item.keyword} names '{path}', which the ignore file leaves out of the build context: "
                    "change one of them",
                    step.item.source,
                )
