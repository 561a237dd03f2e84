"""Writes layers as tar streams: reproducible headers, ten microseconds an entry.

Format: ustar (POSIX.1-1988) where a field fits, PAX records (POSIX.1-2001) for what does not: long or non-ASCII
names, large numbers, fractions of a second, xattrs as `SCHILY.xattr.*`. Whiteouts as image-spec layer.md has them.
No user or group names. The order is the caller's.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from typing import Any

from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.layer.entry import Content, Entry, FileSlice, Item

BLOCK = 512
_CHUNK = 1 << 20
_FLUSH = 256 << 10
_TYPES = {"f": b"0", "h": b"1", "l": b"2", "c": b"3", "b": b"4", "d": b"5", "p": b"6", "w": b"0"}
_OCTAL_7, _OCTAL_11 = 0o7777777, 0o77777777777

Write = Callable[[Any], object]


class ContentChangedError(InputError):
    """A file was not what its key said: it changed while the build read it."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path} changed while the build was reading it ({why})", hint="build again when it is quiet")
        self.path = path


class TarWriter:
    """Turns items into a tar stream.

    Args:
        write: takes the stream in pieces.
        cancel: checked per entry and chunk.
    """

    def __init__(self, write: Write, cancel: Cancel) -> None:
        self._write, self._cancel = write, cancel
        self._buffer = bytearray()

    def add_all(self, items: Iterable[Item]) -> list[Entry]:
        """Write all items and the end; return their entries with the digests of their contents.

        Raises:
            ContentChangedError: a file has another size or content than its entry or slice says.
        """
        entries = []
        for item in items:
            self._cancel.check()
            entries.append(self._add(item.entry, item.content))
        self._buffer += bytes(2 * BLOCK)
        self._flush()
        return entries

    def _add(self, entry: Entry, content: Content) -> Entry:
        for header in entry_headers(entry):
            self._buffer += header
        if entry.kind == "f":
            digest = self._add_content(entry, content)
            self._buffer += bytes(-entry.size % BLOCK)
            entry = entry._replace(digest=digest)
        if len(self._buffer) >= _FLUSH:
            self._flush()
        return entry

    def _add_content(self, entry: Entry, content: Content) -> str:
        if isinstance(content, FileSlice):
            return self._copy(entry, content)
        data = content or b""
        if len(data) != entry.size:
            raise ContentChangedError(entry.path, f"{len(data)} bytes, not {entry.size}")
        self._buffer += data
        return entry.digest or hashlib.sha256(data).hexdigest()

    def _copy(self, entry: Entry, source: FileSlice) -> str:
        fd = open_slice(source)
        try:
            if entry.size <= _FLUSH:
                data = os.pread(fd, entry.size + 1, source.offset) if entry.size or not source.offset else b""
                if len(data) < entry.size or (len(data) > entry.size and not source.offset):
                    raise ContentChangedError(source.path, f"it no longer has {entry.size} bytes")
                data = data[: entry.size]
                digest = hashlib.sha256(data).hexdigest()
                self._buffer += data
            else:
                digest = self._copy_large(fd, entry, source)
        finally:
            os.close(fd)
        if source.digest and digest != source.digest:
            raise ContentChangedError(source.path, "other content")
        return digest

    def _copy_large(self, fd: int, entry: Entry, source: FileSlice) -> str:
        self._flush()
        state = hashlib.sha256()
        left = entry.size
        if source.offset:
            os.lseek(fd, source.offset, os.SEEK_SET)
        while left:
            self._cancel.check()
            data = os.read(fd, min(_CHUNK, left))
            if not data:
                raise ContentChangedError(source.path, f"it no longer has {entry.size} bytes")
            state.update(data)
            self._write(data)
            left -= len(data)
        if not source.offset and os.read(fd, 1):
            raise ContentChangedError(source.path, f"it has more than {entry.size} bytes")
        return state.hexdigest()

    def _flush(self) -> None:
        if self._buffer:
            self._write(bytes(self._buffer))
            self._buffer.clear()


def open_slice(source: FileSlice) -> int:
    """Open the file of a slice beneath its root, links refused.

    Raises:
        ContentChangedError: it is gone or is no regular file any more.
    """
    from lamina.rooted import open_beneath, open_root

    try:
        root = open_root(source.root)
        try:
            return open_beneath(root, source.path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        finally:
            os.close(root)
    except PermissionError as error:
        raise InputError("cannot read the file: permission denied", where=source.path) from error
    except OSError as error:
        raise ContentChangedError(source.path, error.strerror or "cannot be opened") from error


def entry_headers(entry: Entry) -> list[bytes]:
    """Return the header blocks of an entry: PAX first where it needs one, then ustar.

    An opaque directory is followed by the whiteout file that says so.
    """
    if entry.kind == "w":
        parent, slash, name = entry.path.rpartition("/")
        return _headers(entry._replace(path=f"{parent}{slash}.wh.{name}", mode=0, size=0, xattrs=()))
    headers = _headers(entry)
    if entry.opaque:
        mark = Entry(f"{entry.path}/.wh..wh..opq" if entry.path else ".wh..wh..opq", "w", mtime_ns=0)
        headers += _headers(mark)
    return headers


def _headers(entry: Entry) -> list[bytes]:
    name = os.fsencode(entry.path)
    if entry.kind == "d":
        name = name + b"/" if name else b"./"
    link = os.fsencode(entry.target) if entry.kind in "lh" else b""
    size = entry.size if entry.kind == "f" else 0
    seconds, fraction = divmod(entry.mtime_ns, 1_000_000_000)
    records: list[tuple[str, bytes]] = []
    prefix = b""
    if len(name) > 100 or not name.isascii():
        prefix, name, long_name = _split(name)
        if long_name:
            records.append(("path", long_name))
    if len(link) > 100 or not link.isascii():
        records.append(("linkpath", link))
        link = link[:100]
    for key, value, limit in (("size", size, _OCTAL_11), ("uid", entry.uid, _OCTAL_7), ("gid", entry.gid, _OCTAL_7)):
        if value > limit:
            records.append((key, b"%d" % value))
    if fraction or not 0 <= seconds <= _OCTAL_11:
        records.append(("mtime", _decimal(seconds, fraction)))
    records += [(f"SCHILY.xattr.{key}", value) for key, value in entry.xattrs]
    blocks = [_pax(records, name)] if records else []
    blocks.append(_ustar(entry, (name, link, prefix), size, seconds))
    return blocks


def _split(name: bytes) -> tuple[bytes, bytes, bytes]:
    """Return ustar prefix and name, and the whole name when it needs a PAX record instead."""
    if name.isascii() and len(name) <= 256:
        cut = name.rfind(b"/", 0, 156) if len(name) > 156 else name.rfind(b"/", 0, len(name) - 1)
        if 0 < cut <= 155 and len(name) - cut - 1 <= 100:
            return name[:cut], name[cut + 1 :], b""
    return b"", name[:100].decode("ascii", "replace").encode("ascii", "replace")[:100], name


def _decimal(seconds: int, fraction: int) -> bytes:
    if seconds < 0 and fraction:
        seconds, fraction = seconds + 1, 1_000_000_000 - fraction
        sign = b"-" if seconds == 0 else b""
        return sign + b"%d.%09d" % (seconds, fraction)
    return (b"%d.%09d" % (seconds, fraction)).rstrip(b"0") if fraction else b"%d" % seconds


def _pax(records: list[tuple[str, bytes]], name: bytes) -> bytes:
    body = b"".join(_record(key, value) for key, value in sorted(records))
    base = name.rstrip(b"/").rpartition(b"/")[2][:80]
    header = bytearray(BLOCK)
    header[:100] = (b"PaxHeaders.0/" + base)[:100].ljust(100, b"\0")
    header[100:148] = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (0o644, 0, 0, len(body), 0)
    header[156:157] = b"x"
    return _finish(header) + body + bytes(-len(body) % BLOCK)


def _record(key: str, value: bytes) -> bytes:
    body = b" " + os.fsencode(key) + b"=" + value + b"\n"
    length = len(body) + 1
    while length != len(body) + len(b"%d" % length):
        length = len(body) + len(b"%d" % length)
    return b"%d" % length + body


def _ustar(entry: Entry, names: tuple[bytes, bytes, bytes], size: int, seconds: int) -> bytes:
    name, link, prefix = names
    header = bytearray(BLOCK)
    header[: len(name)] = name
    header[100:148] = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (
        entry.mode,
        entry.uid if entry.uid <= _OCTAL_7 else 0,
        entry.gid if entry.gid <= _OCTAL_7 else 0,
        size if size <= _OCTAL_11 else 0,
        seconds if 0 <= seconds <= _OCTAL_11 else 0,
    )
    header[148:157] = b"        " + _TYPES[entry.kind]
    header[157 : 157 + len(link)] = link
    if entry.kind in "cb":
        header[329:345] = b"%07o\0%07o\0" % entry.dev
    header[345 : 345 + len(prefix)] = prefix
    return _finish(header)


def _finish(header: bytearray) -> bytes:
    """Add magic and checksum."""
    header[257:265] = b"ustar\x0000"
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)
