"""A small file that is given up when the disk is full, so that `prune` can work: removing rows needs space, too.

Made when there is plenty, sized by the disk; whoever looks after the store on a full disk removes it first, and the
next build makes it again.
"""

from __future__ import annotations

import os
from pathlib import Path

_NAME = "ballast"
_MOST_BYTES = 4 << 20
_SHARE = 64
_PLENTY = 4


def keep_ballast(root: Path) -> None:
    """Make the file if it is missing and the disk has several times its size left."""
    path = root / _NAME
    if path.exists():
        return
    disk = os.statvfs(root)
    size = min(_MOST_BYTES, disk.f_blocks * disk.f_frsize // _SHARE)
    if size <= 0 or disk.f_bavail * disk.f_frsize < _PLENTY * size:
        return
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError:
        path.unlink(missing_ok=True)
    finally:
        os.close(fd)


def drop_ballast(root: Path) -> None:
    """Give the file up."""
    try:
        (root / _NAME).unlink(missing_ok=True)
    except OSError:
        pass
