"""Read tar streams, strictly: what comes out can be written below a root without leaving it.

In: a function that reads bytes. Out: entries in the order of the archive, each with a reader of its content. Formats:
v7, ustar, pax (size, owner, times, xattrs of the SCHILY form), GNU long names, base-256 numbers, GNU sparse files old
and new (their holes come out as zeros). Global PAX headers are passed over. A PAX size governs the data and what is
skipped, so that two readers cannot see two archives in one.

Layers (`whiteouts=True`, image-spec layer.md): `.wh.name` comes out as an entry of kind "w" with the path that it
hides; `.wh..wh..opq` as kind "w" with `opaque=True` and the path of the directory whose content below is hidden; other
`.wh..wh.` names are metadata of AUFS and left out. Marks may come before or after what they apply to: `ledger.Ledger`
folds them. Other archives (`whiteouts=False`): such names are names like any other.

Rejected (`TarError`): wrong checksums, numbers out of range, headers over 1 MiB an entry, names with NUL or with a
part over 255 bytes, paths over 4095 bytes, unknown types, marks without a name, an archive cut short. Clipped at the
root: leading "/" and "..", or rejected with `clamp=False`. Must not: touch a file system, resolve links.

    for entry, read in iter_entries(open_stream(file.read)):
        while chunk := read(1 << 20): ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamina.layer.entry import Entry
from lamina.layer.errors import TarError
from lamina.layer.tar_header import (
    BLOCK,
    MAX_ID,
    OPAQUE_MARK,
    ZERO_BLOCK,
    Header,
    check_time,
    parse_decimal,
    parse_header,
    parse_records,
    parse_time,
)
from lamina.layer.tar_sparse import SparseBody, is_sparse_pax, old_sparse_map, pax_sparse_map
from lamina.layer.xattr import MAX_NAME, MAX_VALUE, is_private

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Read = Callable[[int], bytes]

CHUNK = 1 << 20
MAX_HEADER = 1 << 20
MAX_PATH = 4095
MAX_PART = 255
MAX_HOLES = 64 << 30
"""Most bytes that the holes of all sparse files in an archive may stand for: they cost the archive nothing."""
_KINDS = {
    b"0": "f", b"\0": "f", b"7": "f", b"S": "f", b"5": "d", b"2": "l", b"1": "h", b"3": "c", b"4": "b", b"6": "p",
}  # fmt: skip
_MAX_MAJOR, _MAX_MINOR = 0xFFF, 0xFFFFF
_XATTR = b"SCHILY.xattr."


def iter_entries(read: Read, *, whiteouts: bool = True, clamp: bool = True) -> Iterator[tuple[Entry, Read]]:
    """Yield each entry with a function that reads its content, b"" at its end.

    The stream is read to its end, beyond the archive's end marker too, so that a digest taken in `read` covers it.
    A reader is good until the next entry is asked for; what it left is skipped. Memory: 1 MiB and the headers.

    Args:
        read: returns up to that many bytes, b"" at the end.
        whiteouts: whether the archive is a layer (see the module).
        clamp: whether paths that would leave the root are clipped there, or an error.

    Raises:
        TarError: the archive breaks a rule.
    """
    stream = Stream(read)
    while True:
        block = stream.block()
        if block is None or (block == ZERO_BLOCK and _at_end(stream)):
            stream.drain()
            return
        meta = _Meta()
        header = parse_header(block)
        while header.typeflag in b"xgLK":
            meta.add(header, stream)
            block = stream.block() if meta.only_global else stream.needed_block(meta.name)
            if block is None or (block == ZERO_BLOCK and meta.only_global and _at_end(stream)):
                stream.drain()  # `git archive` of an empty tree
                return
            header = parse_header(block)
        entry, body = _parse_entry(header, meta, stream, whiteouts, clamp)
        if entry is not None:
            yield entry, body.read
        body.skip()


class Stream:
    """Buffered reading of blocks and data.

    Args:
        read: where the bytes come from.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._data = b""
        self._at = 0
        self.holes = 0
        """Bytes that the holes of sparse files stood for so far."""

    def block(self) -> bytes | None:
        """Return the next block, None at the end of the stream."""
        at = self._at
        block = self._data[at : at + BLOCK]
        if len(block) == BLOCK:
            self._at = at + BLOCK
            return block
        block = self.exactly(BLOCK, "", partly=True)
        if block and len(block) < BLOCK:
            raise TarError("the archive is cut short: its last block is not whole")
        return block or None

    def needed_block(self, entry: str) -> bytes:
        """Return the next block.

        Raises:
            TarError: the stream ends.
        """
        block = self.block()
        if block is None:
            raise TarError("the archive is cut short: a header is missing", entry)
        return block

    def some(self, size: int) -> bytes:
        """Return up to `size` bytes, b"" at the end."""
        at = self._at
        if at < len(self._data):
            data = self._data[at : at + size]
            self._at = at + len(data)
            return data
        if size >= CHUNK:
            return self._read(size)
        self._data = self._read(CHUNK)
        self._at = min(size, len(self._data))
        return self._data[:size]

    def exactly(self, size: int, entry: str, *, partly: bool = False) -> bytes:
        """Return `size` bytes, which the caller has bounded.

        Raises:
            TarError: the stream ends (unless `partly`).
        """
        data = self.some(size)
        if len(data) == size:
            return data
        pieces, left = [data], size - len(data)  # a stream may come byte by byte
        while left:
            more = self.some(left)
            if not more:
                if partly:
                    break
                raise TarError("the archive is cut short", entry)
            pieces.append(more)
            left -= len(more)
        return b"".join(pieces)

    def skip(self, size: int, entry: str) -> None:
        """Pass over `size` bytes."""
        inside = len(self._data) - self._at
        if size <= inside:
            self._at += size
            return
        while size:
            data = self.some(min(size, CHUNK))
            if not data:
                raise TarError(f"the archive is cut short: {size} bytes are missing", entry)
            size -= len(data)

    def drain(self) -> None:
        """Read to the end."""
        while self.some(CHUNK):
            pass


class Body:
    """The data of one entry in the stream, with its padding."""

    def __init__(self, stream: Stream, size: int, entry: str) -> None:
        self._stream = stream
        self._entry = entry
        self._left = size
        self._padding = -size % BLOCK

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, b"" at the end."""
        if not self._left:
            return b""
        data = self._stream.some(min(size, self._left))
        if not data and size:
            raise TarError(f"the archive is cut short: {self._left} bytes are missing", self._entry)
        self._left -= len(data)
        return data

    def skip(self) -> None:
        """Pass over what was not read, and the padding."""
        left, self._left = self._left + self._padding, 0
        self._padding = 0
        if left:
            self._stream.skip(left, self._entry)


def _at_end(stream: Stream) -> bool:
    """Tell whether a zero block is the end marker: a second one follows, or nothing."""
    block = stream.block()
    if block is not None and block != ZERO_BLOCK:
        raise TarError("a single zero block amid the archive")
    return True


class _Meta:
    """What the headers before an entry's own say about it.

    Attributes:
        records: PAX records, the last one of a key.
        sparse: records of a sparse map in their order; 0.0 repeats keys.
        name: long name so far, for messages.
        only_global: no header so far belongs to the entry that follows, so that none need follow.
    """

    __slots__ = ("_bytes", "link", "long", "name", "only_global", "records", "sparse")

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}
        self.sparse: list[tuple[bytes, bytes]] = []
        self.long: bytes | None = None
        self.link: bytes | None = None
        self.name = ""
        self.only_global = True
        self._bytes = 0

    def add(self, header: Header, stream: Stream) -> None:
        """Read one header of headers.

        Raises:
            TarError: it is malformed, or too large together with those before.
        """
        self.name = _decode(header.name)
        self.only_global = self.only_global and header.typeflag == b"g"
        self._bytes += header.size + BLOCK
        if self._bytes > MAX_HEADER:
            raise TarError(f"more than {MAX_HEADER} bytes of headers for one entry", self.name)
        data = stream.exactly(header.size + -header.size % BLOCK, self.name)[: header.size]
        if header.typeflag == b"L":
            self.long = data.partition(b"\0")[0]
        elif header.typeflag == b"K":
            self.link = data.partition(b"\0")[0]
        elif header.typeflag == b"x":
            for key, value in parse_records(data, self.name):
                if key.startswith(b"GNU.sparse."):
                    self.sparse.append((key, value))
                elif value or key.startswith(_XATTR):
                    self.records[key] = value
                else:
                    self.records.pop(key, None)  # an empty value takes the record back


def _parse_entry(
    header: Header, meta: _Meta, stream: Stream, whiteouts: bool, clamp: bool
) -> tuple[Entry | None, Body | SparseBody]:
    """Return the entry and its data; None for metadata that is to be left out."""
    records = meta.records
    raw = records.get(b"path") or meta.long or header.name
    shown = _decode(raw)
    if meta.long is not None and b"path" in records and meta.long != records[b"path"]:
        raise TarError(f"an entry with two names (readers differ on which counts): {_decode(meta.long[:100])!r}", shown)
    kind = _KINDS.get(header.typeflag)
    if kind is None:
        raise TarError(f"an entry of the unknown type {header.typeflag!r}", shown)
    size = header.size
    if b"size" in records:
        size = parse_decimal(records[b"size"], "size", shown)
    if kind != "f":
        size = 0
    body: Body | SparseBody = Body(stream, size, shown)
    if kind == "f" and raw.endswith(b"/") and header.typeflag != b"S":
        kind, size = "d", 0  # how v7 wrote directories; data that comes with one is skipped, not taken for headers
    if kind == "f" and (header.typeflag == b"S" or (meta.sparse and is_sparse_pax(meta.sparse))):
        raw, sparse = _open_sparse(header, meta, stream, size, raw)
        stream.holes += max(0, sparse.size - size)
        if stream.holes > MAX_HOLES:
            raise TarError(f"sparse files with more than {MAX_HOLES} bytes of holes", shown)
        shown, size, body = _decode(raw), sparse.size, sparse
    path = parse_path(raw, shown, clamp)
    if whiteouts and "/.wh." in f"/{path}":
        return _parse_mark(path, shown), body
    if not path and kind != "d":
        raise TarError("the root must stay a directory", shown)
    target = ""
    if kind in ("l", "h"):
        target = _parse_target(records.get(b"linkpath") or meta.link or header.linkname, kind, shown, clamp)
    uid, gid, mtime_ns = header.uid, header.gid, header.mtime * 1_000_000_000
    xattrs: tuple[tuple[str, bytes], ...] = ()
    if records:
        if b"uid" in records:
            uid = parse_decimal(records[b"uid"], "uid", shown, MAX_ID)
        if b"gid" in records:
            gid = parse_decimal(records[b"gid"], "gid", shown, MAX_ID)
        if b"mtime" in records:
            mtime_ns = parse_time(records[b"mtime"], shown)
        xattrs = _parse_xattrs(records, shown)
    if not (0 <= uid <= MAX_ID and 0 <= gid <= MAX_ID):
        raise TarError(f"the owner {uid}:{gid} is out of range (0 to {MAX_ID})", shown)
    dev = (0, 0)
    if kind in ("c", "b"):
        dev = header.dev
        if not (0 <= dev[0] <= _MAX_MAJOR and 0 <= dev[1] <= _MAX_MINOR):
            raise TarError(f"the device number {dev[0]}:{dev[1]} is out of range", shown)
    check_time(mtime_ns, shown)
    return Entry(path, kind, header.mode & 0o7777, uid, gid, mtime_ns, size, target, dev, xattrs), body


def _open_sparse(header: Header, meta: _Meta, stream: Stream, size: int, raw: bytes) -> tuple[bytes, SparseBody]:
    """Return the name and the content of a sparse file."""
    shown = _decode(raw)
    if header.typeflag == b"S":
        real, chunks = old_sparse_map(header.block, stream.needed_block, shown)
        return raw, SparseBody(Body(stream, size, shown), real, chunks, size, shown)
    body = Body(stream, size, shown)
    name, real, chunks, used = pax_sparse_map(meta.sparse, body.read, shown)
    return name or raw, SparseBody(body, real, chunks, size - used, shown)


def parse_path(raw: bytes, shown: str, clamp: bool) -> str:
    """Return a path as entries have it: relative, without empty, "." and ".." parts.

    Raises:
        TarError: NUL, empty, too long, or (without `clamp`) outside the root.
    """
    if not raw:
        raise TarError("an entry without a name")
    if b"\0" in raw:
        raise TarError("a NUL byte in a name", shown)
    if len(raw) > MAX_PATH:
        raise TarError(f"a path of {len(raw)} bytes, more than {MAX_PATH}", shown)
    path = raw.decode("utf-8", "surrogateescape")
    if path[-1] == "/":
        path = path[:-1]
    if path.startswith(("/", ".")) or "//" in path or "/." in path or not path:
        if not clamp and path.startswith("/"):
            raise TarError("an absolute path", shown)
        path = _clean(path, shown, clamp)
    if len(raw) > MAX_PART and any(len(part) > MAX_PART for part in raw.split(b"/")):
        raise TarError(f"a name of more than {MAX_PART} bytes", shown)
    return path


def _clean(path: str, shown: str, clamp: bool) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if parts:
                parts.pop()
            elif not clamp:
                raise TarError("a path that leaves the root", shown)
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _parse_target(raw: bytes, kind: str, shown: str, clamp: bool) -> str:
    """Return the text of a symbolic link as it is, or the path a hard link names."""
    if kind == "h":
        return parse_path(raw, f"{shown} (hard link to {_decode(raw)})", clamp)
    if not raw or b"\0" in raw or len(raw) > MAX_PATH:
        raise TarError("a symbolic link with an empty, too long or binary target", shown)
    return _decode(raw)


def _parse_mark(path: str, shown: str) -> Entry | None:
    """Return the whiteout that a path with a `.wh.` part stands for, None for AUFS metadata."""
    *folders, name = path.split("/")
    if any(part.startswith(".wh..wh.") for part in folders):
        return None
    if any(part.startswith(".wh.") for part in folders):
        raise TarError("an entry below a whiteout", shown)
    if name == OPAQUE_MARK:
        return Entry("/".join(folders), "w", opaque=True)
    if name.startswith(".wh..wh."):
        return None
    hidden = name[4:]
    if hidden in ("", ".", ".."):
        raise TarError(f"a whiteout of {hidden!r}", shown)
    return Entry("/".join([*folders, hidden]), "w")


def _parse_xattrs(records: dict[bytes, bytes], shown: str) -> tuple[tuple[str, bytes], ...]:
    found = []
    for key, value in records.items():
        if key.startswith(_XATTR):
            name = key[len(_XATTR) :]
            if not name or len(name) > MAX_NAME or b"\0" in name or len(value) > MAX_VALUE:
                raise TarError(f"an extended attribute of {len(name)} bytes of name and {len(value)} of value", shown)
            text = _decode(name)
            if not is_private(text):
                found.append((text, value))
    return tuple(sorted(found))


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
