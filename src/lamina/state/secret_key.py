"""The key of secrets' fingerprints: 32 random bytes of this state directory, or a file that machines share.

A fingerprint is HMAC-SHA256 of a secret's id and value. It may stand in cache keys and records, and travel with them:
without the key nobody can test a guess against it. So the key stays out of the state file, of records and of exports;
it is made when first asked for, readable by its owner only, and never printed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from pathlib import Path

from lamina.errors import InputError, StorageError

FILE = "secret.key"
"""Its name in the state directory."""
LENGTH = 32
_MOST = 64 << 10


def own_key(root: Path) -> bytes:
    """Return the key of a state directory, made now if there is none. Processes that race come to the same one.

    Raises:
        StorageError: it cannot be read or written, or is damaged.
    """
    path = root / FILE
    try:
        found = _read(path)
        if found is None:
            _make(path)
            found = _read(path)
    except OSError as error:
        raise StorageError(f"the key for secrets cannot be used: {error.strerror}", where=str(path)) from error
    if found is None or len(found) != LENGTH:
        raise StorageError(
            "the key for secrets is damaged",
            where=str(path),
            hint="remove it: a new one is made, and steps whose secrets count run once more",
        )
    return found


def shared_key(path: str) -> bytes:
    """Return the key that a file of the user's holds: any bytes, as long as there are enough to be past guessing.

    Raises:
        InputError: it cannot be read, or is too short or too long.
    """
    try:
        found = _read(Path(path))
    except OSError as error:
        raise InputError(f"the key for secrets cannot be read: {error.strerror}", where=path) from error
    if found is None:
        raise InputError("no such file", where=path, hint="for --secret-key; make one: openssl rand -hex 32 > FILE")
    if not LENGTH <= len(found.strip()) <= _MOST:
        raise InputError(
            f"a key for secrets has {LENGTH} bytes or more (at most {_MOST >> 10} KiB)",
            where=path,
            hint="make one: openssl rand -hex 32 > FILE",
        )
    return hashlib.sha256(found).digest()


def _read(path: Path) -> bytes | None:
    """Return a regular file's bytes (one more than allowed at most), None when there is none; ours is kept private."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "not a regular file")
        if path.name == FILE and stat.S_IMODE(status.st_mode) & 0o077 and status.st_uid == os.geteuid():
            os.fchmod(fd, 0o600)
        return file.read(_MOST + 1)


def _make(path: Path) -> None:
    """Write a new key and give it its name, unless another process was faster."""
    making = path.with_name(f"{FILE}.{secrets.token_hex(8)}")
    fd = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o600)
            file.write(secrets.token_bytes(LENGTH))
            file.flush()
            os.fsync(fd)
        try:
            os.link(making, path)
        except FileExistsError:
            return
    finally:
        making.unlink()
