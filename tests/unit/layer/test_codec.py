"""The codec of layers where it is easy to get wrong: first bytes, compression, sparse files, limits."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable

import pytest
import zstandard

from lamina.layer.blob import pack, scan
from lamina.layer.compress import Compression, compressor, decompressed, open_stream, sniff
from lamina.layer.entry import Entry, Item
from lamina.layer.errors import CompressionError, ContentChangedError, LayerError, TarError
from lamina.layer.tar_read import iter_entries
from lamina.layer.tar_write import write_items
from lamina.oci.digest import Digest, sha256_digest
from unit.layer.tars import END, GNU, file, header, octal, padded, pax, reader


class Keep:
    """An ingest in memory."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.committed = False

    def write(self, data: bytes) -> None:
        self.data += data

    def commit(self) -> tuple[Digest, int]:
        self.committed = True
        return sha256_digest(bytes(self.data)), len(self.data)


def written(*items: Item) -> bytes:
    archive = bytearray()
    write_items(items, archive.extend)
    return bytes(archive)


def contents(archive: bytes) -> dict[str, bytes]:
    found = {}
    for entry, read in iter_entries(reader(archive)):
        found[entry.path] = b"".join(iter(lambda: read(1000), b""))  # noqa: B023 - used up at once
    return found


# -- first bytes


@pytest.mark.parametrize(
    "entry",
    [
        Entry("\x1f\udc8b\x08", "f"),
        Entry("(\udcb5/\udcfd", "d"),
        Entry("P*M\x18", "l", target="x"),
        Entry("\x1f\udc8b\x08/hidden", "w"),
        Entry("(\udcb5\x2f\udcfd", "f"),
    ],
)
def test_a_plain_layer_never_looks_compressed(entry: Entry):
    """Readers go by the first bytes, which are a file's name."""
    archive = written(Item(entry, b"" if entry.kind == "f" else None))

    assert sniff(archive) == "uncompressed"
    assert [found.path for found in scan(io.BytesIO(archive))[0]] == [entry.path]


# -- compression

PLAIN = bytes(range(256)) * 10
MANY: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "zstd": zstandard.compress, "bzip2": bz2.compress, "xz": lzma.compress,
}  # fmt: skip


@pytest.mark.parametrize("kind", MANY)
def test_members_in_a_row_are_one_stream(kind: str):
    data = b"".join(MANY[kind](PLAIN) for _ in range(50))

    assert sniff(data[:10]) == kind
    assert b"".join(decompressed(io.BytesIO(data).read)) == 50 * PLAIN


@pytest.mark.parametrize("kind", MANY)
def test_a_stream_cut_short_or_changed_is_an_error(kind: str):
    data = MANY[kind](PLAIN)
    for cut in (len(data) - 1, len(data) // 2, 11):
        with pytest.raises(CompressionError):
            list(decompressed(io.BytesIO(data[:cut]).read))
    changed = bytearray(data)
    changed[-3] ^= 0xFF
    if kind != "zstd":  # which has no checksum unless asked for
        with pytest.raises(CompressionError):
            list(decompressed(io.BytesIO(bytes(changed)).read))


@pytest.mark.parametrize("kind", MANY)
def test_a_bomb_is_read_in_small_pieces_and_limits_hold(kind: str):
    """Ratio and absolute limits for what users add; memory does not depend on what comes out."""
    data = MANY[kind](bytes(100 << 20))

    sizes = [len(chunk) for chunk in decompressed(io.BytesIO(data).read)]

    assert sum(sizes) == 100 << 20
    assert max(sizes) <= 1 << 20
    with pytest.raises(CompressionError, match="bytes allowed"):
        list(decompressed(io.BytesIO(data).read, max_bytes=1 << 20))
    with pytest.raises(CompressionError, match="times its size"):
        list(decompressed(io.BytesIO(data).read, max_ratio=100))


def test_a_hundred_thousand_empty_gzip_members_end_soon():
    """Empty members give nothing, and do not nest."""
    member = gzip.compress(b"")
    data = 100_000 * member + gzip.compress(b"end")

    assert b"".join(decompressed(io.BytesIO(data).read)) == b"end"


def test_a_zstd_window_of_two_gibibytes_is_refused():
    # frame header: magic, descriptor 0 (window descriptor follows), exponent 21 = 2 GiB
    with pytest.raises(CompressionError, match="window"):
        list(decompressed(io.BytesIO(b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3]) + bytes(20)).read))


def test_equal_content_gives_equal_bytes():
    for compression in (Compression("gzip"), Compression("gzip", 9), Compression("zstd"), Compression("zstd", 19)):
        blobs = set()
        for step in (1 << 20, 1000):
            worker = compressor(compression)
            data = b"".join(worker.compress(PLAIN[at : at + step]) for at in range(0, len(PLAIN), step))
            blobs.add(b"".join(decompressed(io.BytesIO(data + worker.flush()).read)))
        assert blobs == {PLAIN}


# -- sparse files


def old_sparse(name: str, pieces: list[tuple[int, bytes]], real: int, count: int | None = None) -> bytes:
    """Return a sparse file as old GNU tar wrote it, with at most four pieces."""
    data = b"".join(padded(piece) for _, piece in pieces)
    block = bytearray(header(name, b"S", len(b"".join(piece for _, piece in pieces)), magic=GNU))
    fields = b"".join(octal(at, 12) + octal(len(piece), 12) for at, piece in pieces)
    block[386 : 386 + len(fields)] = fields
    block[483:495] = octal(real, 12)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data


def test_an_old_sparse_file_has_zeros_in_its_holes():
    archive = old_sparse("s", [(512, b"x" * 512), (2048, b"y" * 10)], 4096) + file("after") + END

    assert contents(archive) == {
        "s": bytes(512) + b"x" * 512 + bytes(1024) + b"y" * 10 + bytes(4096 - 2058), "after": b"data",
    }  # fmt: skip


SPARSE_FAULTS = {
    "overlap": old_sparse("s", [(0, b"x" * 512), (256, b"y" * 512)], 4096),
    "backwards": old_sparse("s", [(1024, b"x" * 512), (0, b"y" * 512)], 4096),
    "outside": old_sparse("s", [(4096, b"x" * 512)], 1024),
    "odd map": pax({"GNU.sparse.major": "0", "GNU.sparse.size": "9", "GNU.sparse.map": "1"}) + file("s", b""),
    "no size": pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}) + file("s", bytes(512)),
    "unknown version": pax({"GNU.sparse.major": "2", "GNU.sparse.realsize": "9"}) + file("s", bytes(512)),
    "negative": pax({"GNU.sparse.size": "9", "GNU.sparse.map": "-1,1"}) + file("s", b"x"),
    "size of all bits": pax({"GNU.sparse.size": "9" * 30, "GNU.sparse.map": "0,1"}) + file("s", b"x"),
    "map cut short": pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"})
    + file("s", b"5\n1\n"),
    "map without end": pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"})
    + file("s", b"1" * 5000),
    "map too long": pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"})
    + file("s", b"1000000\n" + b"0\n" * 600_000),
    "more data than the map says": pax({"GNU.sparse.size": "9", "GNU.sparse.map": "0,1"}) + file("s", b"xy"),
}


@pytest.mark.parametrize("name", SPARSE_FAULTS)
def test_a_wrong_sparse_map_is_refused(name: str):
    with pytest.raises(TarError):
        contents(SPARSE_FAULTS[name] + END)


def test_holes_that_cost_nothing_are_limited():
    """A sparse bomb: 16 blocks of archive that stand for more than 64 GiB."""
    bomb = pax({"GNU.sparse.size": str(10 << 30), "GNU.sparse.map": "0,1"}) + file("s", b"x")
    entries = iter_entries(reader(8 * bomb + END))
    with pytest.raises(TarError, match="bytes of holes"):
        for _ in entries:
            pass


# -- writing


def test_what_a_layer_cannot_hold_is_refused():
    for entry in (
        Entry(".wh.x", "f"), Entry("d/.wh.x", "d"), Entry(".wh.d/x", "f"), Entry("a\0b", "f"), Entry("x", "s"),
        Entry("x", "f", uid=2**32 - 1), Entry("x", "f", gid=-1), Entry("x", "f", xattrs=(("user.a=b", b""),)),
        Entry("", "w"), Entry("d/..", "w"), Entry("\ud800", "f"), Entry("x", "l", target="a\0b"),
    ):  # fmt: skip
        with pytest.raises(LayerError):
            written(Item(entry, b""))


def test_a_file_that_changed_leaves_no_blob():
    for entry in (Entry("x", "f", size=3), Entry("x", "f", size=4, digest="0" * 64)):
        ingest = Keep()
        with pytest.raises(ContentChangedError):
            pack([Item(entry, b"data")], ingest, Compression())
        assert not ingest.committed


def test_headers_are_plain_ustar_where_that_is_enough():
    """No time of packing, no names of owners, no numbers of this machine."""
    archive = written(
        Item(Entry("d", "d", 0o755)), Item(Entry("d/f", "f", 0o644, 1, 2, 5 * 10**9 + 7, 4), b"data"),
        Item(Entry("p/" * 60 + "q", "f"), b""), Item(Entry("d", "w")), Item(Entry("d", "d", opaque=True)),
    )  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        members = found.getmembers()
    assert [member.name for member in members] == [
        "d", "d/f", "p/" * 60 + "q", ".wh.d", "d", "d/.wh..wh..opq",
    ]  # fmt: skip
    assert not any(member.pax_headers for member in members)
    assert {(member.uname, member.gname) for member in members} == {("", "")}
    assert members[1].mtime == 5
    assert archive.endswith(END)
    assert len(archive) == 512 * (6 + 1 + 2)


def test_a_whole_stream_is_read_so_that_a_digest_over_it_covers_the_end():
    archive = file("x") + END + os.urandom(3 << 20)
    taken = bytearray()
    source = io.BytesIO(archive)

    def read(size: int) -> bytes:
        data = source.read(min(size, 10_000))
        taken.extend(data)
        return data

    assert [entry.path for entry, _ in iter_entries(read)] == ["x"]
    assert bytes(taken) == archive


def test_content_left_unread_is_skipped_and_a_reader_ends_at_its_entry():
    archive = file("a", b"A" * 3000) + file("b", b"B" * 10) + file("c", b"C") + END
    got = []
    for entry, read in iter_entries(open_stream(io.BytesIO(gzip.compress(archive)).read)):
        got.append((entry.path, read(4) if entry.path != "a" else b""))
    assert got == [("a", b""), ("b", b"BBBB"), ("c", b"C")]
