"""One entry of a layer, the place its bytes come from, and both together.

These are the values that all three forms of a layer share: a recipe lists `Item`s, a tree is walked into
`Item`s, a blob is read into `Item`s; the index keeps the `Entry` of each. Pure values.

Invariants: `path` is relative to the layer's root with "/" between parts, without leading, trailing or doubled
"/" and without "." or ".." parts; the root directory itself is "". Text is decoded from bytes with
surrogateescape, so that names that are not UTF-8 survive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

Xattrs = tuple[tuple[str, bytes], ...]


class Entry(NamedTuple):
    """What a layer says about one path.

    Attributes:
        path: see the module's invariants.
        kind: "f" file, "d" directory, "l" symbolic link, "h" hard link, "c" character device, "b" block device,
            "p" fifo, "w" whiteout (the path is deleted from the layers below).
        mode: permission bits with setuid, setgid, sticky (0o7777).
        uid: numeric owner, 0..2**32-2.
        gid: numeric group, 0..2**32-2.
        mtime_ns: modification time, nanoseconds since the epoch.
        size: length in bytes, files only.
        target: text of a symbolic link; for a hard link the path of the name that holds the data in this layer.
        dev: major and minor number of a device.
        xattrs: extended attributes sorted by name, without those of the snapshotter.
        digest: sha256 of a file's content in hex, "" when not known yet.
        opaque: a directory that hides all that the layers below have in it.
    """

    path: str
    kind: str
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    target: str = ""
    dev: tuple[int, int] = (0, 0)
    xattrs: Xattrs = ()
    digest: str = ""
    opaque: bool = False


@dataclass(frozen=True, slots=True)
class FileSlice:
    """Bytes that lie in a file on disk.

    Attributes:
        root: absolute host directory that the path may not leave.
        path: path below `root`; opened beneath it, symbolic links in any part refused.
        offset: where the bytes start.
        digest: sha256 hex the bytes must have, "" when it is not known; whoever copies them checks it.
    """

    root: str
    path: str
    offset: int = 0
    digest: str = ""


Content = bytes | FileSlice | None
"""Where a file's bytes come from; None for entries that are not files."""


class Item(NamedTuple):
    """An entry with its content: what recipes, trees and blobs are converted through."""

    entry: Entry
    content: Content = None
