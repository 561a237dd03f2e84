"""Mount points that are missing in a root file system, made in a throw-away layer instead of the step's own.

A mount needs something to lie on. If the runtime made it, it would stay in the upper directory and so in the image.
So the missing files and directories are built beforehand in a *stub layer* that goes between the trees and the
upper: the mounts find their place, nothing is created, nothing is copied up. A directory of the stub layer hides
the metadata of the same directory below, so each carries the owner, mode, times and xattrs of the original.

The trees looked at here are still: nobody else can write to them while a step is being set up, which is why plain
path walks are safe in `resolve`. Runs in the helper.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

_MAX_LINKS = 40
_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")


class SetupError(Exception):
    """A step's root or one of its mounts cannot be set up as the step asks; the text is for the user."""


class MachineSetupError(SetupError):
    """What the step asks for cannot be had on this machine."""


class Found(NamedTuple):
    """Where a path leads in a tree.

    Attributes:
        parts: names from the root, links resolved.
        existing: how many of them are there.
        is_dir: whether the whole path is there and is a directory.
    """

    parts: tuple[str, ...]
    existing: int
    is_dir: bool

    @property
    def path(self) -> str:
        """The resolved path, absolute in the tree."""
        return "/" + "/".join(self.parts)

    @property
    def missing(self) -> bool:
        """Whether anything of it has to be made."""
        return self.existing < len(self.parts)


class Want(NamedTuple):
    """A mount point to be there: what the step asked for, where it is, and what it must be."""

    asked: str
    found: Found
    is_dir: bool


def resolve(root: str, path: str) -> Found:
    """Follow `path` in the tree at `root`, links and ".." staying inside; parts beyond the first missing one are kept.

    Raises:
        SetupError: too many links, or something other than a directory on the way.
    """
    todo = path.split("/")[::-1]
    done: list[str] = []
    existing = 0  # the first `existing` names of `done` are there
    mode = stat.S_IFDIR
    links = 0
    while todo:
        part = todo.pop()
        if part in ("", "."):
            continue
        if part == "..":
            done = done[:-1]
            existing = min(existing, len(done))
            mode = stat.S_IFDIR
            continue
        if existing < len(done):
            done.append(part)
            continue
        if not stat.S_ISDIR(mode):
            raise SetupError(f"mount target {path}: /{'/'.join(done)} is not a directory")
        here = os.path.join(root, *done, part)
        try:
            mode = os.lstat(here).st_mode
        except FileNotFoundError:
            done.append(part)
            continue
        if not stat.S_ISLNK(mode):
            done.append(part)
            existing += 1
            continue
        mode = stat.S_IFDIR
        links += 1
        if links > _MAX_LINKS:
            raise SetupError(f"mount target {path}: too many symbolic links")
        target = os.readlink(here)
        if target.startswith("/"):
            done, existing = [], 0
        todo.extend(target.split("/")[::-1])
    return Found(tuple(done), existing, existing == len(done) and stat.S_ISDIR(mode))


def check_kind(want: Want) -> None:
    """Refuse a directory on a file and a file on a directory.

    Raises:
        SetupError: they do not match.
    """
    if not want.found.missing and want.found.is_dir != want.is_dir:
        have, need = ("directory", "file") if want.found.is_dir else ("file", "directory")
        mend = f"name a file in it, {want.asked.rstrip('/')}/NAME" if need == "file" else "name another place"
        what = f"mount target {want.asked} is a {have} in the root file system, the mount is a {need}"
        raise SetupError(f"{what}: {mend}")


def build(look: str, stub: str, wants: list[Want]) -> bool:
    """Make the stub layer for what is missing.

    Args:
        look: the tree as it is seen without stubs.
        stub: empty directory to build in.
        wants: mount points, resolved in `look`.

    Returns:
        False when nothing was missing and `stub` is still empty.
    """
    originals: dict[str, str] = {}
    for want in wants:
        check_kind(want)
        if want.found.missing:
            originals.update(_make(look, stub, want))
    # Deepest first, for making a child changes its parent's times.
    for path in sorted(originals, key=lambda path: path.count("/"), reverse=True):
        copy_metadata(originals[path], path)
    return bool(originals)


def _make(look: str, stub: str, want: Want) -> dict[str, str]:
    """Make one mount point and return its copied parents, stub path to original."""
    originals = {stub: look}
    here = stub
    parts = want.found.parts
    for number, part in enumerate(parts[:-1], start=1):
        here = os.path.join(here, part)
        if not os.path.isdir(here):
            try:
                os.mkdir(here, 0o755)
            except FileExistsError:
                raise SetupError(f"mount target {want.asked}: another mount makes a file of its parent") from None
        if number <= want.found.existing:
            originals[here] = os.path.join(look, *parts[:number])
    place = os.path.join(here, parts[-1])
    if not os.path.lexists(place):
        if want.is_dir:
            os.mkdir(place, 0o755)
        else:
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
    elif os.path.isdir(place) != want.is_dir:
        raise SetupError(f"mount target {want.asked} is wanted as a file and as a directory")
    return originals


def copy_metadata(original: str, copy: str) -> None:
    """Give a directory the owner, mode, xattrs and times of another."""
    status = os.stat(original)
    os.chown(copy, status.st_uid, status.st_gid)
    os.chmod(copy, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(original):
        if not name.startswith(_OVERLAY_XATTRS):
            try:
                os.setxattr(copy, name, os.getxattr(original, name))
            except OSError:
                pass  # a memory file system of an older kernel has no user xattrs
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
