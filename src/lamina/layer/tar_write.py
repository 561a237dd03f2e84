"""Write a layer as a tar stream: fast, reproducible, and read by every tar there is.

In: items in the order the caller wants them, and a function that takes bytes. Out: the bytes, and the entries as
they were written, with the sha256 of every file's content, which is worked out in passing. Format: ustar, with a PAX
header before the entries that ustar cannot hold (long or not ASCII names, large numbers, xattrs). Owners have no
names; times are whole seconds, as BuildKit and docker write them; whiteouts are `.wh.` files (image-spec layer.md).

The first bytes never look like those of a compressed stream (a name may): readers go by them.

Invariants: the same items give the same bytes; a file has exactly the size its entry says and the digest its content
promises, or nothing counts: `ContentChangedError`. Must not: sort, merge duplicates, compress, follow links.

    entries = write_items(plan.items(), sink.write)
"""

from __future__ import annotations

import os
from hashlib import sha256
from typing import TYPE_CHECKING
from zlib import adler32

from lamina.layer.compress import sniff
from lamina.layer.entry import Entry, FileSlice
from lamina.layer.errors import ContentChangedError, LayerError, show_name
from lamina.layer.slices import CHUNK, SliceOpener, iter_chunks, read_small
from lamina.layer.tar_header import BLOCK, MAX_ID, OPAQUE_MARK
from lamina.layer.xattr import is_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lamina.cancel import Cancel
    from lamina.layer.entry import Content, Item

_MAX_OCTAL_7 = 0o7777777
_MAX_OCTAL_11 = 0o77777777777
_TYPES = {"f": b"0", "d": b"5", "l": b"2", "h": b"1", "c": b"3", "b": b"4", "p": b"6", "w": b"0"}
_END = bytes(2 * BLOCK)
_ZEROS = bytes(BLOCK)
_TAIL = b"ustar\x0000" + bytes(64)
_DEVICE_ZERO = b"0000000\x000000000\x00"
_BEFORE_CHECKSUM = b"        "
EMPTY_DIGEST = sha256(b"").hexdigest()


def write_items(
    items: Iterable[Item],
    write: Callable[[bytes], object],
    *,
    cancel: Cancel | None = None,
    on_entry: Callable[[Entry], None] | None = None,
) -> list[Entry]:
    """Write a whole archive, its end marker included, and return the entries as a reader would get them.

    Args:
        items: what to write, in this order; the parents of an entry need not be among them.
        write: takes the bytes of the archive, about 1 MiB at a time; it must take all.
        cancel: checked for every file and every MiB.
        on_entry: is told every entry after it was written (to `write` or to a buffer before it).

    Raises:
        ContentChangedError: a file is shorter, longer or of another digest than promised. A slice that starts at
            offset 0 is a whole file and may not have more bytes than its entry says.
        LayerError: an entry that a layer cannot hold (name that begins with `.wh.`, NUL, "=" in an xattr's name).
        StorageError: a file cannot be read.
    """
    writer = _Writer(write, cancel)
    entries: list[Entry] = []
    try:
        for entry, content in items:
            done = writer.add(entry, content)
            entries.append(done)
            if on_entry is not None:
                on_entry(done)
        writer.finish()
    finally:
        writer.close()
    return entries


class _Writer:
    """Collects headers and small files into pieces of about 1 MiB; keeps the directory it reads from open."""

    def __init__(self, write: Callable[[bytes], object], cancel: Cancel | None) -> None:
        self._write = write
        self._cancel = cancel
        self._parts: list[bytes] = []
        self._pending = 0
        self._slices = SliceOpener()
        self._first = True

    def add(self, entry: Entry, content: Content) -> Entry:
        """Write one entry and return it as written."""
        if self._cancel is not None:
            self._cancel.check()
        seconds = entry.mtime_ns // 1_000_000_000
        if entry.kind == "w":
            self._put(_whiteout(entry))
            return Entry(entry.path, "w", opaque=entry.opaque)
        header = make_header(entry, seconds)
        digest = ""
        if entry.kind == "f":
            digest = self._add_file(header, entry, content)
        else:
            self._put(header)
        if entry.opaque:
            self._put(_whiteout(entry))
        if seconds * 1_000_000_000 == entry.mtime_ns and digest == entry.digest:
            return entry
        return entry._replace(mtime_ns=seconds * 1_000_000_000, digest=digest)

    def finish(self) -> None:
        """Write the end marker and what is buffered."""
        self._put(_END)
        self._flush()

    def close(self) -> None:
        """Close what is open. Idempotent."""
        self._slices.close()

    def _put(self, data: bytes) -> None:
        self._parts.append(data)
        self._pending += len(data)
        if self._pending >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._parts)
        if self._first:
            self._first = False
            if sniff(data) != "uncompressed":
                data = _pax({b"comment": b"-"}, b"first") + data
        self._parts.clear()
        self._pending = 0
        if data:
            self._write(data)

    def _add_file(self, header: bytes, entry: Entry, content: Content) -> str:
        """Write a file and return its digest."""
        size = entry.size
        if isinstance(content, FileSlice):
            fd = self._slices.open(content, entry)
            try:
                if size > CHUNK:
                    digest = self._copy_large(header, entry, fd, content.offset)
                else:
                    data = read_small(fd, entry, content.offset)
                    digest = sha256(data).hexdigest() if data else EMPTY_DIGEST
                    self._put_small(header, data)
            finally:
                os.close(fd)
            if content.digest and content.digest != digest:
                raise ContentChangedError(entry.path, f"its sha256 is {digest}, expected {content.digest}")
        else:
            data = content or b""
            if len(data) != size:
                raise ContentChangedError(entry.path, f"{len(data)} bytes, expected {size}")
            digest = sha256(data).hexdigest()
            self._put_small(header, data)
        if entry.digest and entry.digest != digest:
            raise ContentChangedError(entry.path, f"its sha256 is {digest}, expected {entry.digest}")
        return digest

    def _put_small(self, header: bytes, data: bytes) -> None:
        rest = -len(data) % BLOCK
        self._parts.append(header)
        self._parts.append(data)
        if rest:
            self._parts.append(_ZEROS[:rest])
        self._pending += len(header) + len(data) + rest
        if self._pending >= CHUNK:
            self._flush()

    def _copy_large(self, header: bytes, entry: Entry, fd: int, offset: int) -> str:
        """Write a file piece by piece and return its digest."""
        self._put(header)
        self._flush()
        running = sha256()
        for chunk in iter_chunks(fd, entry, offset, self._cancel):
            running.update(chunk)
            self._write(chunk)
        if rest := -entry.size % BLOCK:
            self._put(_ZEROS[:rest])
        return running.hexdigest()


def _whiteout(entry: Entry) -> bytes:
    """Return the header of the marker that hides a path, or all that is below in a directory."""
    folder, _, name = entry.path.rpartition("/")
    if entry.opaque:
        path = f"{entry.path}/{OPAQUE_MARK}" if entry.path else OPAQUE_MARK
    elif name in ("", ".", ".."):
        raise LayerError("a whiteout without a name", where=show_name(entry.path))
    else:
        path = f"{folder}/.wh.{name}" if folder else f".wh.{name}"
    if "/.wh." in f"/{entry.path}":
        raise _reserved(entry.path)
    return make_header(Entry(path, "w"), 0)


def _reserved(path: str) -> LayerError:
    return LayerError("a name that begins with .wh. cannot be in a layer: it means a deletion", where=show_name(path))


def make_header(entry: Entry, seconds: int) -> bytes:
    """Return the header blocks of an entry: one, or three and more with a PAX header.

    Args:
        entry: what to write; kind "w" is written as an empty file under its own path.
        seconds: the modification time.

    Raises:
        LayerError: it cannot be written.
    """
    kind = entry.kind
    path = entry.path
    if "/.wh." in path or path.startswith(".wh."):
        if kind != "w":
            raise _reserved(path)
    elif not path:
        path = "./"
    elif kind == "d":
        path += "/"
    try:
        flag = _TYPES[kind]
        name = path.encode("utf-8", "surrogateescape")
        target = entry.target.encode("utf-8", "surrogateescape")
    except (KeyError, UnicodeEncodeError):
        raise LayerError(f"an entry of unknown kind {kind!r} or of a wrong name", where=show_name(path)) from None
    size = entry.size if kind == "f" else 0
    uid, gid = entry.uid, entry.gid
    if (
        entry.xattrs
        or len(name) > 100
        or len(target) > 100
        or not 0 <= uid <= _MAX_OCTAL_7
        or not 0 <= gid <= _MAX_OCTAL_7
        or not 0 <= seconds <= _MAX_OCTAL_11
        or size > _MAX_OCTAL_11
        or not path.isascii()
        or not entry.target.isascii()
        or "\0" in path
        or "\0" in entry.target
    ):
        return _header_with_pax(entry, name, target, size, seconds)
    return _block(name, entry.mode, uid, gid, size, seconds, flag, target, entry.dev, b"")


def _block(
    name: bytes,
    mode: int,
    uid: int,
    gid: int,
    size: int,
    seconds: int,
    flag: bytes,
    target: bytes,
    dev: tuple[int, int],
    prefix: bytes,
) -> bytes:
    numbers = _DEVICE_ZERO if dev == (0, 0) else b"%07o\0%07o\0" % dev
    head = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(100, b"\0"), mode, uid, gid, size, seconds)
    tail = b"%b%b%b%b%b" % (flag, target.ljust(100, b"\0"), _TAIL, numbers, prefix.ljust(167, b"\0"))
    # The sum of all bytes by halves of adler32 (see tar_header.checksum), the checksum counted as eight spaces.
    total = (adler32(head) & 0xFFFF) + (adler32(tail[:174]) & 0xFFFF) + (adler32(tail[174:]) & 0xFFFF) - 3 + 256
    return b"%b%06o\0 %b" % (head, total, tail)


def _header_with_pax(entry: Entry, name: bytes, target: bytes, size: int, seconds: int) -> bytes:
    """Return the entry's header, after a PAX header with what ustar cannot hold."""
    if b"\0" in name or b"\0" in target:
        raise LayerError("a NUL byte in a name", where=show_name(entry.path))
    if not (0 <= entry.uid <= MAX_ID and 0 <= entry.gid <= MAX_ID):
        raise LayerError(f"an owner out of range: {entry.uid}:{entry.gid}", where=show_name(entry.path))
    records: dict[bytes, bytes] = {}
    prefix = b""
    if len(name) > 100 or _needs_record(name):
        split = _split(name) if name.isascii() else None
        if split is not None:
            prefix, name = split
        else:
            records[b"path"] = name
    if len(target) > 100 or _needs_record(target):
        records[b"linkpath"] = target
    uid, gid = entry.uid, entry.gid
    if uid > _MAX_OCTAL_7:
        records[b"uid"], uid = b"%d" % uid, 0
    if gid > _MAX_OCTAL_7:
        records[b"gid"], gid = b"%d" % gid, 0
    if size > _MAX_OCTAL_11:
        records[b"size"] = b"%d" % size
    if not 0 <= seconds <= _MAX_OCTAL_11:
        records[b"mtime"], seconds = b"%d" % seconds, 0
    for key, value in entry.xattrs:
        if is_private(key):
            continue
        if "=" in key or "\0" in key:
            raise LayerError(f"the extended attribute {key!r} has a name a layer cannot hold", where=entry.path)
        records[b"SCHILY.xattr." + key.encode("utf-8", "surrogateescape")] = value
    stored = size if b"size" not in records else 0
    block = _block(
        name[:100], entry.mode, uid, gid, stored, seconds, _TYPES[entry.kind], target[:100], entry.dev, prefix
    )
    return _pax(records, name) + block if records else block


def _needs_record(name: bytes) -> bool:
    """Tell whether a name that fits ustar is to be repeated in PAX: it is not ASCII, but is UTF-8 (as PAX must be)."""
    if name.isascii():
        return False
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Return prefix and name for ustar, None when there is no "/" at the right place."""
    if len(name) > 256:
        return None
    # The rest may not be empty, so the "/" of a directory itself does not count.
    cut = name.rfind(b"/", 0, min(156, len(name) - 1))
    if cut <= 0 or len(name) - cut - 1 > 100:
        return None
    return name[:cut], name[cut + 1 :]


def _pax(records: dict[bytes, bytes], name: bytes) -> bytes:
    """Return a PAX header with these records, sorted."""
    data = b"".join(_record(key, records[key]) for key in sorted(records))
    base = name.rstrip(b"/").rpartition(b"/")[2]
    label = b"PaxHeaders.0/" + (base if base.isascii() else b"_")[:80]
    block = _block(label, 0o644, 0, 0, len(data), 0, b"x", b"", (0, 0), b"")
    return block + data + bytes(-len(data) % BLOCK)


def _record(key: bytes, value: bytes) -> bytes:
    """Return `length key=value newline`, the length counting itself."""
    rest = b" %b=%b\n" % (key, value)
    length = len(rest) + len(str(len(rest)))
    if len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return b"%d%b" % (length, rest)
