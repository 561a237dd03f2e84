"""The index of a layer: the table of its entries, and its form on disk.

Whichever form of a layer comes first (recipe, tree, blob) makes the index in passing; everything that asks what is
in a layer reads it here and not the files. In: entries in tar order. Out: a mapping from path to entry, the names
in each directory, and a compact file that loads fast.

Invariants:
  * one entry a path. A later entry replaces an earlier one (as when a tar is unpacked), with the exception of
    whiteouts, which hide only what lies below this layer (image-spec layer.md, "Whiteouts"): with a directory of the
    same name, in either order, a whiteout makes the directory opaque; with anything else it adds nothing;
  * a directory that has entries below it but none of its own is *implied*: it merges with what is below it.

The file: a magic line, sha256 of the body, the body: the lengths of the columns, then the columns. It is derived
data: what does not check is a `StorageError`, upon which the caller makes the index anew.

    index = Index.from_entries(entries)
    index.save(path)
    Index.load(path).entries["etc/passwd"].size
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
from array import array
from itertools import chain, compress
from typing import TYPE_CHECKING

from lamina.errors import StorageError
from lamina.layer.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lamina.layer.entry import Xattrs

_MAGIC = b"lamina layer index 1 " + sys.byteorder[:1].encode() + b"\n"
_COLUMNS = 12
_LENGTHS = struct.Struct(f"<{_COLUMNS + 1}Q")  # number of entries, then bytes of each column
_HAS_DIGEST, _OPAQUE = 1, 2
_NO_DEV = (0, 0)


class Index:
    """What one layer says, by path.

    Attributes:
        entries: path to entry, in tar order. Not to be changed.
        implied: directories without an entry of their own that have entries below them.
    """

    __slots__ = ("_linked", "_names", "entries", "implied")

    def __init__(self, entries: dict[str, Entry], implied: frozenset[str]) -> None:
        self.entries = entries
        self.implied = implied
        self._names: dict[str, list[str]] | None = None
        self._linked: frozenset[str] | None = None

    @classmethod
    def from_entries(cls, entries: Iterable[Entry]) -> Index:
        """Return the index of entries in tar order, duplicates and whiteouts merged (see the invariants)."""
        table: dict[str, Entry] = {}
        for entry in entries:
            known = table.pop(entry.path, None)
            table[entry.path] = entry if known is None else _merged(known, entry)
        return cls(table, _implied(table))

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())

    @property
    def size_bytes(self) -> int:
        """Sum of the sizes of the files; a hard link counts once."""
        return sum(entry.size for entry in self.entries.values())

    @property
    def linked(self) -> frozenset[str]:
        """The paths that hard links of this layer point to; the first call costs one pass over the layer."""
        if self._linked is None:
            self._linked = frozenset(entry.target for entry in self.entries.values() if entry.kind == "h")
        return self._linked

    def names(self, path: str) -> list[str]:
        """Return the names this layer has in the directory `path`, whiteouts included, unsorted.

        The first call costs one pass over the layer. The list is not to be changed.
        """
        if self._names is None:
            self._names = self._list_names()
        return self._names.get(path, [])

    def _list_names(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        without_entry = (path for path in self.implied if path not in self.entries)
        for path in chain(self.entries, without_entry):
            if path:
                parent, _, name = path.rpartition("/")
                try:
                    names[parent].append(name)
                except KeyError:
                    names[parent] = [name]
        return names

    def dump(self) -> bytes:
        """Return the bytes that `parse` takes: about 100 a file beside its path."""
        entries = list(self.entries.values())
        if not entries:
            return _framed(0, [b""] * _COLUMNS)
        paths, kinds, modes, uids, gids, mtimes, sizes, targets, devs, xattrs, digests, opaque = zip(
            *entries, strict=True
        )
        flags = bytes(
            (_HAS_DIGEST if digest else 0) | (_OPAQUE if hides else 0)
            for digest, hides in zip(digests, opaque, strict=True)
        )
        return _framed(
            len(entries),
            [
                _text("\0".join(paths)),
                "".join(kinds).encode("ascii"),
                array("H", modes).tobytes(),
                array("I", uids).tobytes(),
                array("I", gids).tobytes(),
                array("q", mtimes).tobytes(),
                array("q", sizes).tobytes(),
                _text("\0".join(f"{n}\0{target}" for n, target in enumerate(targets) if target)),
                "\n".join(f"{n} {dev[0]} {dev[1]}" for n, dev in enumerate(devs) if dev != _NO_DEV).encode(),
                "\n".join(_dump_xattrs(n, attributes) for n, attributes in enumerate(xattrs) if attributes).encode(),
                bytes.fromhex("".join(digests)),
                flags,
            ],
        )

    @classmethod
    def parse(cls, data: bytes) -> Index:
        """Return the index that `dump` wrote.

        Raises:
            StorageError: the bytes are not such a dump, or not whole.
        """
        start = len(_MAGIC) + 32
        if data[: len(_MAGIC)] != _MAGIC:
            raise StorageError("not a layer index of this version", hint="it will be made anew")
        body = memoryview(data)[start:]
        if hashlib.sha256(body).digest() != data[len(_MAGIC) : start]:
            raise StorageError("a layer index is damaged: its sha256 does not agree", hint="it will be made anew")
        try:
            return cls._parse_columns(body)
        except (ValueError, IndexError, struct.error) as error:
            raise StorageError(f"a layer index is damaged: {error}", hint="it will be made anew") from error

    @classmethod
    def _parse_columns(cls, body: memoryview) -> Index:
        count, columns = _columns(body)
        if count == 0:
            return cls({}, frozenset())
        paths = _untext(columns[0]).split("\0")
        flags = columns[11].tobytes()
        targets = [""] * count
        sparse = _untext(columns[7]).split("\0") if columns[7] else []
        for number, target in zip(sparse[::2], sparse[1::2], strict=True):
            targets[int(number)] = target
        devs: list[tuple[int, int]] = [_NO_DEV] * count
        for line in bytes(columns[8]).decode("ascii").splitlines():
            number, major, minor = line.split(" ")
            devs[int(number)] = (int(major), int(minor))
        xattrs: list[Xattrs] = [()] * count
        for line in bytes(columns[9]).decode("ascii").splitlines():
            position, attributes = _parse_xattrs(line)
            xattrs[position] = attributes
        rows = zip(
            paths,
            columns[1].tobytes().decode("ascii"),
            columns[2].cast("H"),
            columns[3].cast("I"),
            columns[4].cast("I"),
            columns[5].cast("q"),
            columns[6].cast("q"),
            targets,
            devs,
            xattrs,
            _parse_digests(columns[10], flags),
            [flag & _OPAQUE != 0 for flag in flags],
            strict=True,
        )
        entries = dict(zip(paths, map(Entry._make, rows), strict=True))
        return cls(entries, _implied(entries))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the index to `path` by an atomic rename; not synced (it can be made again).

        Raises:
            StorageError: the disk refused.
        """
        whole = os.fspath(path)
        making = f"{whole}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
        try:
            with open(making, "xb") as file:
                file.write(self.dump())
            os.rename(making, whole)
        except OSError as error:
            try:
                os.unlink(making)
            except OSError:
                pass
            raise StorageError(f"cannot write a layer index: {error.strerror}", where=whole) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Index:
        """Read an index; about 1.5 us an entry.

        Raises:
            StorageError: it is missing, damaged, or of another version.
        """
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise StorageError(f"cannot read a layer index: {error.strerror}", where=os.fspath(path)) from error
        try:
            return cls.parse(data)
        except StorageError as error:
            raise StorageError(error.what, where=os.fspath(path), hint=error.hint) from error


def _merged(known: Entry, new: Entry) -> Entry:
    """Two entries of one path in one layer."""
    if new.kind == "w":
        known, new = new, known
    if known.kind == "w" and new.kind == "d":
        return new._replace(opaque=True)
    return new


def _implied(table: dict[str, Entry]) -> frozenset[str]:
    implied: set[str] = set()
    done = {""}
    for path in table:
        parent = path.rpartition("/")[0]
        while parent not in done:
            done.add(parent)
            entry = table.get(parent)
            if entry is None or entry.kind == "w":
                implied.add(parent)
            parent = parent.rpartition("/")[0]
    return frozenset(implied)


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _untext(data: memoryview) -> str:
    return str(data, "utf-8", "surrogateescape")


def _framed(count: int, columns: list[bytes]) -> bytes:
    # Numbers stand at multiples of 8 so that they may be read in place.
    padded = [column + b"\0" * (-len(column) % 8) for column in columns]
    body = b"".join([_LENGTHS.pack(count, *map(len, columns)), *padded])
    return _MAGIC + hashlib.sha256(body).digest() + body


def _columns(body: memoryview) -> tuple[int, list[memoryview]]:
    count, *lengths = _LENGTHS.unpack_from(body)
    columns, start = [], _LENGTHS.size
    for length in lengths:
        columns.append(body[start : start + length])
        start += length + -length % 8
    if start != len(body):
        raise ValueError(f"{len(body)} bytes instead of {start}")
    return count, columns


def _parse_digests(data: memoryview, flags: bytes) -> list[str]:
    digests = [""] * len(flags)
    known = list(compress(range(len(flags)), [flag & _HAS_DIGEST for flag in flags]))
    if len(data) != 32 * len(known):
        raise ValueError("the digests are not as many as they should be")
    text = data.hex()
    for number, position in enumerate(known):
        digests[position] = text[64 * number : 64 * number + 64]
    return digests


def _dump_xattrs(number: int, attributes: Xattrs) -> str:
    return " ".join([str(number), *(f"{_text(name).hex()}={value.hex()}" for name, value in attributes)])


def _parse_xattrs(line: str) -> tuple[int, Xattrs]:
    number, *fields = line.split(" ")
    pairs = (field.partition("=") for field in fields)
    attributes = tuple(
        (bytes.fromhex(name).decode("utf-8", "surrogateescape"), bytes.fromhex(value)) for name, _, value in pairs
    )
    return int(number), attributes
