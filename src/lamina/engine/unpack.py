"""Unpack a build context that comes as a tar archive: the strict reader of `layer`, into a fresh directory.

The archive is read once. Nothing is written outside the directory: every path is opened beneath it, links in a
path are refused. Owners are not kept, since they never count in a context; devices and fifos are passed over.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from lamina.cancel import Cancel
from lamina.exporter.files_out import export_tree
from lamina.exporter.protocol import Surroundings
from lamina.layer.compress import open_stream
from lamina.layer.entry import Entry, FileSlice, Item
from lamina.layer.tar_read import iter_entries

_IN_MEMORY = 1 << 20
"""Files up to this size go through memory, larger ones through a temporary file."""
_CHUNK = 1 << 20
_BLOCK = 512
GIT_ARCHIVE_MODE = 0o775
"""What `git archive` makes directories, unless told otherwise: its umask is 002, whatever the user's is."""


def unpack_context(head: bytes, stream: BinaryIO, directory: str, *, fill_up: bool = False) -> None:
    """Unpack the archive that begins with `head` and goes on in `stream` into `directory`, which it makes.

    The directory has the mode that the archive gives to its root; of an archive that says nothing, the one that
    `git archive` gives to directories. Both tell which umask the modes of the files come from.

    Args:
        fill_up: the last block may lack its padding, as in archives that docker's client has put a file into. Only
            for streams whose end is sure in another way: a file that was cut off in its last block goes unnoticed.

    Raises:
        InputError: the archive is malformed, or a path in it leads through a link.
        StorageError: something could not be written.
    """
    os.mkdir(directory, 0o700)
    root = [GIT_ARCHIVE_MODE]
    with tempfile.TemporaryDirectory(prefix="lamina-spool-", dir=os.path.dirname(directory)) as spool:
        read = open_stream(_rejoined(head, stream))
        items = _items(_filled_up(read) if fill_up else read, spool, root)
        export_tree(items, Path(directory), Surroundings(Cancel(), Path(directory)))
    os.chmod(directory, root[0] & 0o777 | 0o700)


def _rejoined(head: bytes, stream: BinaryIO) -> Callable[[int], bytes]:
    """Return a function that reads `head` and then the rest of `stream`."""
    rest = head

    def read(size: int) -> bytes:
        nonlocal rest
        if rest:
            data, rest = rest[:size], rest[size:]
            return data
        return stream.read(size)

    return read


def _filled_up(read: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """Return a function that adds what the last block lacks."""
    count = 0

    def filled(size: int) -> bytes:
        nonlocal count
        data = read(size) or bytes(min(size, -count % _BLOCK))
        count += len(data)
        return data

    return filled


def _items(read: Callable[[int], bytes], spool: str, root: list[int]) -> Iterator[Item]:
    """Yield the archive's entries with their content, and directories that it leaves out before what is in them.

    The mode that it gives to the root goes into `root`.
    """
    known = {""}
    for entry, reader in iter_entries(read, whiteouts=False):
        if not entry.path:
            root[0] = entry.mode
        if entry.kind in "cbp" or not entry.path:
            continue
        for parent in _parents(entry.path):
            if parent not in known:
                known.add(parent)
                yield Item(Entry(parent, "d", 0o755))
        if entry.kind == "d":
            known.add(entry.path)
        if entry.kind != "f":
            yield Item(entry)
        elif entry.size <= _IN_MEMORY:
            yield Item(entry, _read_all(reader))
        else:
            path = os.path.join(spool, "file")
            with open(path, "wb") as file:
                while data := reader(_CHUNK):
                    file.write(data)
            yield Item(entry, FileSlice(spool, "file"))


def _read_all(read: Callable[[int], bytes]) -> bytes:
    parts = []
    while data := read(_CHUNK):
        parts.append(data)
    return b"".join(parts)


def _parents(path: str) -> Iterator[str]:
    """Yield the directories that `path` lies in, outermost first."""
    end = path.find("/")
    while end >= 0:
        yield path[:end]
        end = path.find("/", end + 1)
