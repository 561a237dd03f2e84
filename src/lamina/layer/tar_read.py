"""Reads tar streams strictly: hostile until checked, never more than a header's worth in memory.

Takes ustar, GNU long names and base-256 numbers, PAX records (global ones are ignored) and GNU sparse files in PAX
1.0 and old form are refused with a clear error. A PAX size governs data and skipping alike. Names are made relative
and cleaned; "." is the root; ".." is clamped to the root, as every extractor in the field does; whiteouts become
entries of kind "w", an opaque mark an entry for its directory with `opaque` set and mode -1 (the caller folds it).

    for entry, read in read_tar(stream_read): ...      # read(n) gives the file's bytes; unread ones are skipped
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from lamina.errors import InputError
from lamina.layer.entry import Entry

BLOCK = 512
MAX_HEADER_BYTES = 1 << 20
MAX_NAME = 255
_MAX_ID = 2**32 - 2
_ZERO = bytes(BLOCK)
_KINDS = {b"0": "f", b"\0": "f", b"7": "f", b"1": "h", b"2": "l", b"3": "c", b"4": "b", b"5": "d", b"6": "p"}
_OPAQUE = ".wh..wh..opq"
_RESERVED = ".wh..wh."

OPAQUE_MARK_MODE = -1
"""Mode of the entry that stands for a `.wh..wh..opq` file: its path is the directory that is opaque."""

ReadSome = Callable[[int], bytes]


class TarError(InputError):
    """A tar stream that breaks a rule; `what` names the entry and the rule."""


class TarReader:
    """Iterates the entries of one stream.

    Args:
        read: gives up to n bytes of the uncompressed stream, b"" at its end.
        layer: translate whiteouts and drop AUFS's own files (a layer); off for archives that users ADD.
    """

    def __init__(self, read: ReadSome, *, layer: bool = True) -> None:
        self._read_some = read
        self._layer = layer
        self._buffer = b""
        self._left = 0  # bytes of the current entry's data not read yet
        self._padding = 0
        self._name = ""

    def __iter__(self) -> Iterator[tuple[Entry, ReadSome]]:
        while (found := self._next()) is not None:
            translated = self._translate(found) if self._layer else found
            if translated is not None:
                yield translated, self.read_data
            self._skip_data()
        self._drain()

    def read_data(self, size: int) -> bytes:
        """Return up to `size` bytes of the current entry's data, b"" at its end."""
        if not self._left:
            return b""
        data = self._take_some(min(size, self._left))
        self._left -= len(data)
        return data

    def _next(self) -> Entry | None:
        pax: dict[str, bytes] = {}
        longs: dict[bytes, bytes] = {}
        spent = 0
        while True:
            header = self._take(BLOCK, "header")
            if header is None or header == _ZERO:
                if pax or longs:
                    raise TarError("the tar stream ends after a header that belongs to a next entry")
                return None
            _check_sum(header)
            kind = header[156:157]
            if kind not in (b"x", b"g", b"L", b"K"):
                return self._entry(header, kind, pax, longs)
            size = _number(header[124:136], "size")
            spent += size + BLOCK
            if size > MAX_HEADER_BYTES or spent > MAX_HEADER_BYTES:
                raise TarError(f"an entry has more than {MAX_HEADER_BYTES} bytes of headers")
            body = self._take(size + -size % BLOCK, "extended header") or b""
            if kind == b"x":
                pax = _parse_pax(body[:size])
            elif kind != b"g":
                longs[kind] = body[:size].split(b"\0", 1)[0]

    def _entry(self, header: bytes, kind: bytes, pax: dict[str, bytes], longs: dict[bytes, bytes]) -> Entry:
        raw_name = pax.get("path") or longs.get(b"L") or _name(header)
        path = clean_name(raw_name)
        self._name = path
        size = _pax_number(pax, "size", path) if "size" in pax else _number(header[124:136], "size")
        if kind == b"S" or any(key.startswith("GNU.sparse.") for key in pax):
            raise TarError("sparse files are not supported in archives", where=path)
        kind_name = _KINDS.get(kind)
        if kind_name is None:
            raise TarError(f"entry of unknown type {kind!r}", where=path)
        if kind_name == "f" and raw_name.endswith(b"/"):
            kind_name = "d"
        if kind_name != "f":
            # links may carry a size that means nothing; other kinds have no data
            self._left = 0 if kind_name in "hl" else size
            data_size = 0
        else:
            self._left = data_size = size
        self._padding = -self._left % BLOCK
        target = pax.get("linkpath") or longs.get(b"K") or header[157:257].split(b"\0", 1)[0]
        if kind_name == "h":
            target_text = clean_name(target)
        else:
            target_text = os.fsdecode(target) if kind_name == "l" else ""
            if kind_name == "l" and (not target or b"\0" in target):
                raise TarError("a symbolic link without a target", where=path)
        return Entry(
            path=path,
            kind=kind_name,
            mode=_number(header[100:108], "mode") & 0o7777,
            uid=_id(pax, "uid", header[108:116], path),
            gid=_id(pax, "gid", header[116:124], path),
            mtime_ns=_mtime(pax, header, path),
            size=data_size,
            target=target_text,
            dev=_device(header) if kind_name in "cb" else (0, 0),
            xattrs=_xattrs(pax),
        )

    def _translate(self, entry: Entry) -> Entry | None:
        """Return the entry as a layer means it: whiteouts, opaque marks; None for what is dropped."""
        parent, _, name = entry.path.rpartition("/")
        if not name.startswith(".wh."):
            return entry
        if name == _OPAQUE:
            return Entry(parent, "d", OPAQUE_MARK_MODE, opaque=True)
        if name.startswith(_RESERVED):
            return None
        hidden = name[4:]
        if hidden in ("", ".", ".."):
            raise TarError(f"a whiteout of {hidden!r}", where=entry.path)
        return Entry(f"{parent}/{hidden}" if parent else hidden, "w")

    def _skip_data(self) -> None:
        while self._left:
            self._left -= len(self._take_some(min(self._left, 1 << 20)))
        if self._padding:
            self._take(self._padding, "padding")
            self._padding = 0

    def _drain(self) -> None:
        """Read what follows the end mark: it counts for the diffID."""
        self._buffer = b""
        while self._read_some(1 << 20):
            pass

    def _take_some(self, size: int) -> bytes:
        if not self._buffer:
            self._buffer = self._read_some(1 << 20)
            if not self._buffer:
                raise TarError("the tar stream ends in the middle of an entry", where=self._name)
        if len(self._buffer) <= size:
            data, self._buffer = self._buffer, b""
        else:
            data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _take(self, size: int, what: str) -> bytes | None:
        """Return exactly `size` bytes; None when the stream ends before the first."""
        while len(self._buffer) < size:
            more = self._read_some(1 << 20)
            if not more:
                if not self._buffer and what == "header":
                    return None
                raise TarError(f"the tar stream ends in the middle of a {what}", where=self._name)
            self._buffer += more
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data


def clean_name(raw: bytes) -> str:
    """Return a name from an archive relative to the root, without "." and empty parts, ".." clamped.

    Raises:
        TarError: a NUL, an empty name, or a part that no file system takes.
    """
    if not raw or b"\0" in raw:
        raise TarError(f"an entry with an impossible name: {raw[:100]!r}")
    parts: list[bytes] = []
    for part in raw.split(b"/"):
        if part in (b"", b"."):
            continue
        if part == b"..":
            if parts:
                parts.pop()
            continue
        if len(part) > MAX_NAME:
            raise TarError(f"a name has {len(part)} bytes, no file system takes more than {MAX_NAME}")
        parts.append(part)
    return os.fsdecode(b"/".join(parts))


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0", 1)[0]
        if prefix:
            return prefix + b"/" + name
    return name


def _check_sum(header: bytes) -> None:
    stored = header[148:156].split(b"\0", 1)[0].strip()
    try:
        wanted = int(stored or b"0", 8)
    except ValueError:
        wanted = -1
    if sum(header) - sum(header[148:156]) + 8 * 32 != wanted:
        raise TarError("not a tar stream: a header's checksum is wrong")


def _number(field: bytes, what: str) -> int:
    if field[:1] in (b"\x80", b"\xff"):
        value = int.from_bytes(field[1:], "big")
        if field[:1] == b"\xff":
            value -= 1 << 8 * (len(field) - 1)
        if not (what == "mtime" or 0 <= value < 1 << 63):
            raise TarError(f"an entry with an impossible {what}: {value}")
        return value
    text = field.split(b"\0", 1)[0].strip()
    try:
        value = int(text or b"0", 8)
    except ValueError:
        raise TarError(f"an entry with an impossible {what}: {field!r}") from None
    if value < 0 or b"_" in text:
        raise TarError(f"an entry with an impossible {what}: {field!r}")
    return value


def _parse_pax(body: bytes) -> dict[str, bytes]:
    records: dict[str, bytes] = {}
    position = 0
    while position < len(body):
        space = body.find(b" ", position, position + 20)
        digits = body[position:space] if space > 0 else b""
        if not digits.isdigit():
            raise TarError("a broken PAX record")
        end = position + int(digits)
        record = body[space + 1 : end]
        key, equals, value = record.partition(b"=")
        if end > len(body) or end <= space or not record.endswith(b"\n") or not equals:
            raise TarError("a broken PAX record")
        records[os.fsdecode(key)] = value[:-1]
        position = end
    return records


def _pax_number(pax: dict[str, bytes], key: str, path: str) -> int:
    text = pax[key]
    if not text.isdigit() or len(text) > 20:
        raise TarError(f"a PAX record with an impossible {key}: {text[:40]!r}", where=path)
    return int(text)


def _id(pax: dict[str, bytes], key: str, field: bytes, path: str) -> int:
    value = _pax_number(pax, key, path) if key in pax else _number(field, key)
    if value > _MAX_ID:
        raise TarError(f"{key} {value} is not possible", where=path)
    return value


def _mtime(pax: dict[str, bytes], header: bytes, path: str) -> int:
    text = pax.get("mtime")
    if text is None:
        return _number(header[136:148], "mtime") * 1_000_000_000
    whole, _, fraction = text.partition(b".")
    digits = whole.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > 18 or (fraction and not fraction.isdigit()):
        raise TarError(f"a PAX record with an impossible time: {text[:40]!r}", where=path)
    nanoseconds = int(digits) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0") or b"0")
    return -nanoseconds if whole.startswith(b"-") else nanoseconds


def _device(header: bytes) -> tuple[int, int]:
    return _number(header[329:337], "device number"), _number(header[337:345], "device number")


def _xattrs(pax: dict[str, bytes]) -> tuple[tuple[str, bytes], ...]:
    """Return the extended attributes, without those that overlayfs would take for its own."""
    found = ((key[13:], value) for key, value in pax.items() if key.startswith("SCHILY.xattr."))
    kept = [(k, v) for k, v in found if k and not k.startswith(("trusted.overlay.", "user.overlay."))]
    return tuple(sorted(kept))
