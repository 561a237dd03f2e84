"""Directories of clients as they sent them last: where they lie, who has one, and which may go.

A directory lies below `synced/` in the state directory, under a name made by hashing what tells it from others; beside
its `files` lies a `lock` that a build holds as long as it reads them.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from lamina.errors import StorageError
from lamina.layer.tree_remove import remove_tree

FOLDER = "synced"
KEPT_S = 14 * 86_400.0
"""How long a directory that no build asks for is kept, in seconds."""
_MOST_COPIES = 64


def take(root: Path, key: str, shown: str) -> tuple[Path, int]:
    """Return a directory for a key, and the descriptor that holds its lock; another one where a build has it.

    Raises:
        StorageError: too many builds have one.
    """
    for number in range(_MOST_COPIES):
        directory = root / FOLDER / f"{key}-{number}"
        (directory / "files").mkdir(parents=True, exist_ok=True)
        lock = _try_lock(directory)
        if lock is None:
            continue
        if not (directory / "files").is_dir():  # somebody swept it before it was locked
            os.close(lock)
            continue
        os.utime(directory)  # when it was last relied on
        return directory / "files", lock
    raise StorageError(f"{_MOST_COPIES} builds hold the directory {shown!r} of one client")


def sweep(root: Path, kept_s: float = KEPT_S) -> int:
    """Remove what no build has and nobody asked for in so many seconds; return how many directories that were."""
    count = 0
    try:
        names = os.listdir(root / FOLDER)
    except FileNotFoundError:
        return 0
    for name in names:
        directory = root / FOLDER / name
        try:
            if time.time() - directory.stat().st_mtime < kept_s:
                continue
            lock = _try_lock(directory)
        except OSError:
            continue
        if lock is None:
            continue
        try:
            remove_tree(directory / "files")
            remove_tree(directory)
            count += 1
        finally:
            os.close(lock)
    return count


def _try_lock(directory: Path) -> int | None:
    try:
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None  # swept this very moment
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock
