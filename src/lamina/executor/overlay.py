"""Mount one overlay of many directories, however long their names are together.

The options of mount(2) must fit in a page, so the mount is made from the deepest directory that all parts share,
with relative names; if that is still too long, the new mount API takes one lower at a time (Linux 6.7).
`redirect_dir=nofollow,metacopy=off,index=off` keep the upper directory meaningful on its own: it is a layer's tree
(nofollow and not off: off may still follow, and is refused together with `userxattr`).
`volatile` spares the sync of the upper at unmount: durability is the store's business (see `snapshot/`).

Runs in the helper only: it changes the working directory, which must be private to a single thread.
"""

from __future__ import annotations

import errno
import os
import shutil

from lamina.executor import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PAGE = 4096
_BASE = ("redirect_dir=nofollow", "metacopy=off", "index=off")
_ODD = (":", ",", "\\")  # would need quoting in an option string; the config API takes them as they are


def mount_overlay(
    target: str, lowers: Sequence[str], upper: str | None, work: str | None, *, userxattr: bool, flags: int = 0
) -> None:
    """Mount an overlay at `target`.

    Args:
        target: absolute path of an existing directory.
        lowers: absolute directories, topmost first; at least one, at least two without an upper.
        upper: directory that takes the writes, or None for a read-only view.
        work: empty directory on the same file system as `upper`; None goes with no upper.
        userxattr: keep whiteout marks in `user.` attributes (inside a user namespace).
        flags: mount flags such as MS_NODEV.

    Raises:
        OSError: as mount(2).
    """
    parts = [*lowers, *(part for part in (upper, work) if part is not None)]
    for part in parts:
        os.stat(part)  # says which one is missing; the mount itself would not
    common = os.path.commonpath(parts)
    if common in parts:
        common = os.path.dirname(common)
    os.chdir(common)
    try:
        _mount(target, [os.path.relpath(part, common) for part in parts], len(lowers), userxattr, flags)
    finally:
        os.chdir("/")


def _mount(target: str, names: list[str], lower_count: int, userxattr: bool, flags: int) -> None:
    lowers, rest = names[:lower_count], names[lower_count:]
    settings = [*_BASE, *(["userxattr"] if userxattr else [])]
    writable = [f"upperdir={rest[0]}", f"workdir={rest[1]}"] if rest else []
    # A mount made volatile twice on one work directory is refused; `clean_work` takes the mark away after use.
    for extra in (["volatile"], []) if rest else ([],):
        data = ",".join([*settings, *extra, "lowerdir=" + ":".join(lowers), *writable])
        try:
            if len(os.fsencode(data)) < _PAGE and not any(odd in name for odd in _ODD for name in names):
                kernel.mount("overlay", target, "overlay", flags, data)
            else:
                _mount_long(target, lowers, rest, [*settings, *extra], flags)
            return
        except OSError as error:
            if error.errno != errno.EINVAL or not extra:
                raise


def _mount_long(target: str, lowers: list[str], rest: list[str], settings: list[str], flags: int) -> None:
    pairs = [(key, value) for key, _, value in (setting.partition("=") for setting in settings)]
    # Relative names work here too: they are resolved when they are set.
    pairs += [("lowerdir+", name) for name in lowers]
    pairs += list(zip(("upperdir", "workdir"), rest, strict=False))
    kernel.mount_by_config("overlay", target, pairs, flags)


def clean_work(work: str) -> None:
    """Empty an overlay's work directory after unmounting, so that it may be used or removed by its owner."""
    try:
        names = os.listdir(work)
    except OSError:
        return  # its owner has removed it already
    for name in names:
        shutil.rmtree(os.path.join(work, name), ignore_errors=True)
