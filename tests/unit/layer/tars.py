"""Tar archives made byte by byte, so that they may be wrong; and trees as values."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from lamina.layer.blob import scan
from lamina.layer.entry import Entry
from lamina.layer.tree import TreeWriter, unpack

BLOCK = 512
END = bytes(2 * BLOCK)
POSIX, GNU, V7 = b"ustar\x0000", b"ustar  \x00", bytes(8)


def octal(number: int, width: int) -> bytes:
    """Return a numeric field."""
    return b"%0*o\0" % (width - 1, number)


def base256(number: int, width: int) -> bytes:
    """Return a numeric field in GNU's binary form."""
    field = bytearray(number.to_bytes(width, "big", signed=True))
    field[0] |= 0x80
    return bytes(field)


def header(
    name: bytes | str,
    flag: bytes = b"0",
    size: int | bytes = 0,
    link: bytes | str = b"",
    *,
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = 0,
    dev: tuple[int | bytes, int | bytes] = (0, 0),
    magic: bytes = POSIX,
    prefix: bytes = b"",
    checksum: int | None = None,
) -> bytes:
    """Return one header block; numbers given as bytes are put in as they are."""
    name, link = (text.encode() if isinstance(text, str) else text for text in (name, link))

    def number(value: int | bytes, width: int) -> bytes:
        return value.ljust(width, b"\0") if isinstance(value, bytes) else octal(value, width)

    def joined(total: bytes) -> bytes:
        return b"".join(
            [
                name[:100].ljust(100, b"\0"), number(mode, 8), number(uid, 8), number(gid, 8), number(size, 12),
                number(mtime, 12), total, flag, link[:100].ljust(100, b"\0"), magic, bytes(64), number(dev[0], 8),
                number(dev[1], 8), prefix.ljust(167, b"\0"),
            ]
        )  # fmt: skip

    total = sum(joined(b" " * 8)) if checksum is None else checksum
    return joined(b"%06o\0 " % total)


def padded(data: bytes) -> bytes:
    """Return data filled up to whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def file(name: bytes | str, data: bytes = b"data", **fields: object) -> bytes:
    """Return a file's header and data."""
    return header(name, size=len(data), **fields) + padded(data)  # type: ignore[arg-type]


def folder(name: bytes | str, mode: int = 0o755) -> bytes:
    """Return a directory."""
    return header(name, b"5", mode=mode)


def symlink(name: bytes | str, target: bytes | str) -> bytes:
    """Return a symbolic link."""
    return header(name, b"2", link=target)


def hardlink(name: bytes | str, target: bytes | str) -> bytes:
    """Return a hard link."""
    return header(name, b"1", link=target)


def record(key: bytes | str, value: bytes | str) -> bytes:
    """Return one PAX record."""
    key, value = (text.encode() if isinstance(text, str) else text for text in (key, value))
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def pax(records: dict[str, bytes | str] | bytes, flag: bytes = b"x") -> bytes:
    """Return a PAX header with these records, or with these very bytes."""
    data = records if isinstance(records, bytes) else b"".join(record(key, value) for key, value in records.items())
    return header("PaxHeaders.0/x", flag, len(data)) + padded(data)


def long_name(data: bytes, flag: bytes = b"L") -> bytes:
    """Return GNU's header for a long name (or, with flag K, a long link)."""
    return header("././@LongLink", flag, len(data) + 1, magic=GNU) + padded(data + b"\0")


Seen = dict[str, tuple[object, ...]]


def seen_in_tree(root: Path, flavour: str = "trusted") -> Seen:
    """Return what is below `root`, by path: kind, mode, owner, time, content or target or device, attributes."""
    found: Seen = {}
    for path, names, others in os.walk(os.fsencode(root)):
        for name in (*names, *others):
            whole = os.path.join(path, name)
            status = os.lstat(whole)
            kind = stat.S_IFMT(status.st_mode)
            what: object = b""
            if stat.S_ISREG(kind):
                with open(whole, "rb") as stream:
                    what = sha256(stream.read()).hexdigest()
            elif stat.S_ISLNK(kind):
                what = os.readlink(whole)
            elif stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
                what = (os.major(status.st_rdev), os.minor(status.st_rdev))
            xattrs = {key: os.getxattr(whole, key, follow_symlinks=False) for key in _names(whole)}
            key = os.fsdecode(os.path.relpath(whole, os.fsencode(root)))
            found[key] = (
                kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, int(status.st_mtime), what, xattrs,
            )  # fmt: skip
    return found


def _names(whole: bytes) -> list[str]:
    return os.listxattr(whole, follow_symlinks=False)


def link_groups(root: Path) -> set[frozenset[str]]:
    """Return the sets of paths that are one file."""
    groups: dict[tuple[int, int], set[str]] = {}
    for path, _, others in os.walk(os.fsencode(root)):
        for name in others:
            whole = os.path.join(path, name)
            status = os.lstat(whole)
            key = os.fsdecode(os.path.relpath(whole, os.fsencode(root)))
            groups.setdefault((status.st_dev, status.st_ino), set()).add(key)
    return {frozenset(group) for group in groups.values() if len(group) > 1}


def unpack_bytes(archive: bytes, root: Path, lower: object = None) -> list[Entry]:
    """Unpack an archive as a layer into `root`, which is made; also check that a scan says the same."""
    root.mkdir()
    entries = unpack(io.BytesIO(archive), TreeWriter(root, "trusted", lower=lower))  # type: ignore[arg-type]
    if lower is None:
        assert scan(io.BytesIO(archive))[0] == entries, "the index of a scan and the one of unpacking differ"
    return entries


def reader(data: bytes) -> Callable[[int], bytes]:
    """Return a function that reads `data`."""
    return io.BytesIO(data).read
