"""A file that comes through the client's session although it is named by a URL (`http://buildkit-session/...`).

In comes a stream of pieces; out comes a new file with its digest. Such a URL is good for one reading.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from lamina.cancel import Cancel
from lamina.errors import StorageError
from lamina.source.http_file import Answer, Watcher

HOST = "buildkit-session"
"""Stands for the client in URLs."""
_STEP = 1 << 20


def take_upload(pieces: Iterable[bytes], into: Path, cancel: Cancel, watcher: Watcher) -> Answer:
    """Write a stream into the new file `into`; nothing is left there after an error.

    Raises:
        StorageError: no room for it.
    """
    digest, size, told = hashlib.sha256(), 0, 0
    try:
        with open(into, "xb") as file:
            for piece in pieces:
                cancel.check()
                file.write(piece)
                digest.update(piece)
                size += len(piece)
                if size - told >= _STEP:
                    told = size
                    watcher.on_bytes(size, 0)
    except OSError as error:
        into.unlink(missing_ok=True)
        raise StorageError(f"cannot keep what the client sends: {error.strerror}", where=str(into.parent)) from error
    except BaseException:
        into.unlink(missing_ok=True)
        raise
    watcher.on_bytes(size, size)
    return Answer(False, digest.hexdigest(), size)
