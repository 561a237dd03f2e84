"""ADD of a local archive: its entries as items, the contents spooled into one file.

In: a file of a view, a directory for the spool. Out: items in the order of the archive, None when the file is no tar
archive (docker's rule: by content, and its first entry must be readable; plain, gzip, bzip2, xz, zstd). The archive is
the user's input but may come from anywhere: the codec checks every entry, sizes are capped, sparse holes included.
Names that are whiteouts in layers are refused by the copy, as they would turn into real ones in the layer.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from lamina.errors import StorageError
from lamina.layer.compress import open_stream
from lamina.layer.entry import FileSlice, Item
from lamina.layer.errors import CompressionError, LayerError
from lamina.layer.tar_header import BLOCK, ZERO_BLOCK, parse_header
from lamina.layer.tar_read import iter_entries
from lamina.rooted import open_beneath, open_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.cancel import Cancel
    from lamina.layer.entry import Entry
    from lamina.layer.recipe_copy import Unpack
    from lamina.layer.tar_read import Read
    from lamina.layer.view import View

MAX_BYTES = 64 << 30
"""The most bytes an archive may have when decompressed."""
MAX_RATIO = 2000
"""How many times its own size it may have."""
_CHUNK = 1 << 20


def unpacker(spool: str, cancel: Cancel | None = None, max_bytes: int = MAX_BYTES) -> Unpack:
    """Return a function that reads archives for `Plan`.

    Args:
        spool: absolute directory that holds the contents until the layer is written; the caller removes it.
        cancel: looked at for each chunk.
        max_bytes: the most an archive may have when decompressed.

    The function raises `LayerError` for an archive that breaks a rule after its first entry, `StorageError` when the
    spool cannot be written.
    """

    def unpack(view: View, entry: Entry) -> list[Item] | None:
        with ExitStack() as stack:
            read = _open(view, entry, stack)
            entries = iter_entries(
                open_stream(read, max_bytes=max_bytes, max_ratio=MAX_RATIO, where=f"/{entry.path}"), whiteouts=False
            )
            try:
                first = next(entries, None)
            except LayerError as error:
                if isinstance(error, CompressionError) and _begins_as_archive(view, entry):
                    raise
                return None
            if first is None:
                return None
            return list(_spooled(first, entries, spool, cancel, stack))

    return unpack


def _begins_as_archive(view: View, entry: Entry) -> bool:
    """Tell whether gzip data that cannot be read to its end begins with the header of a tar entry.

    The usual reader takes large pieces, and of one that is cut short it gives nothing. What is damaged is told; copied
    as it is, it would be found out when the image runs.
    """
    import zlib

    with ExitStack() as stack:
        begin = _open(view, entry, stack)(_CHUNK)
    try:
        block = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(begin, BLOCK)
        if len(block) < BLOCK or block == ZERO_BLOCK:
            return False
        parse_header(block)
        return True
    except (zlib.error, LayerError):
        return False


def _open(view: View, entry: Entry, stack: ExitStack) -> Read:
    content = view.content(entry)
    if not isinstance(content, FileSlice):
        import io

        return io.BytesIO(content or b"").read
    root = open_root(content.root)
    try:
        fd = open_beneath(root, content.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    finally:
        os.close(root)
    stack.callback(os.close, fd)
    os.lseek(fd, content.offset, os.SEEK_SET)
    left = entry.size

    def read(size: int) -> bytes:
        nonlocal left
        data = os.read(fd, min(size, left))
        left -= len(data)
        return data

    return read


def _spooled(
    first: tuple[Entry, Read],
    rest: Iterator[tuple[Entry, Read]],
    spool: str,
    cancel: Cancel | None,
    stack: ExitStack,
) -> Iterator[Item]:
    name = f"archive-{os.urandom(8).hex()}"
    offset = 0
    try:
        file = stack.enter_context(open(os.path.join(spool, name), "xb", buffering=_CHUNK))  # noqa: SIM115 - the stack closes it
        offset = file.write(b"\0")  # a slice at offset 0 would mean the whole file
        current: tuple[Entry, Read] | None = first
        while current is not None:
            entry, read = current
            if entry.kind != "f":
                yield Item(entry)
            else:
                state, start = hashlib.sha256(), offset
                while chunk := read(_CHUNK):
                    if cancel is not None:
                        cancel.check()
                    state.update(chunk)
                    file.write(chunk)
                    offset += len(chunk)
                digest = state.hexdigest()
                yield Item(entry._replace(digest=digest), FileSlice(spool, name, start, digest))
            current = next(rest, None)
        file.flush()
    except OSError as error:
        raise StorageError(f"cannot spool an archive: {error.strerror}", where=spool) from error
