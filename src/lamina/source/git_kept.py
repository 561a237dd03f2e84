"""The bare repositories that git sources keep: what there is, and how one goes.

One lies in `<root>/git/<name>`, `<name>` being a hash of object format and address. Its file `description` holds the
address for people; the time of its `HEAD` says when it was last used. Who reads or writes one holds `lock_name`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lamina.git_url import GitRemote
from lamina.state.locks import Locks

_MAX_ADDRESS = 16 << 10


@dataclass(frozen=True, slots=True)
class KeptRepository:
    """One repository on disk.

    Attributes:
        address: where it was fetched from, without secrets.
        used: seconds since the epoch.
    """

    name: str
    path: Path
    address: str
    used: float


def name_of(remote: GitRemote, object_format: str) -> str:
    """Return the name of a remote's repository; it depends on nothing secret."""
    return hashlib.sha256(f"{object_format} {remote.address}".encode()).hexdigest()[:32]


def lock_name(name: str) -> str:
    """Return the name of the lock of a repository."""
    return f"git:{name}"


def mark_used(path: Path) -> None:
    """Note that a repository was needed just now."""
    try:
        os.utime(path / "HEAD")
    except FileNotFoundError:
        pass


def kept_repositories(directory: Path) -> Iterator[KeptRepository]:
    """Yield what is kept; nothing for a directory that is not there."""
    for head in sorted(directory.glob("*/HEAD")):
        try:
            used = head.stat().st_mtime
            address = (head.parent / "description").read_bytes()[:_MAX_ADDRESS].decode("utf-8", "replace").strip()
        except OSError:
            continue
        yield KeptRepository(head.parent.name, head.parent, address, used)


def remove_unused(directory: Path, locks: Locks, before: float) -> Iterator[KeptRepository]:
    """Remove what was last used before a time (seconds) and nobody uses now; yield each just before it goes."""
    for found in kept_repositories(directory):
        fd = locks.try_acquire(lock_name(found.name)) if found.used < before else None
        if fd is None:
            continue
        try:
            if (found.path / "HEAD").stat().st_mtime < before:
                yield found
                shutil.rmtree(found.path, ignore_errors=True)
        except FileNotFoundError:
            continue
        finally:
            os.close(fd)
