"""Damaged and invented archives: the reader raises our errors or gives entries, and an unpacked tree stays inside.

Archives are made of valid pieces, then cut, doubled, shuffled and changed; checksums are set right again most of the
time, since a reader that only rejects wrong ones would learn nothing.
"""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.layer.blob import scan
from lamina.layer.compress import decompressed
from lamina.layer.errors import LayerError
from lamina.layer.index import Index
from lamina.layer.tar_read import iter_entries
from lamina.layer.tree import TreeWriter, unpack
from lamina.layer.union import Union
from unit.layer.tars import BLOCK, END, base256, file, folder, hardlink, header, long_name, pax, reader, symlink

FAST = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
names = st.one_of(
    st.sampled_from(
        [
            "a", "b", "a/b", "a/b/c", "l/x", "l/../x", "../x", "/x", ".", "./", "", "..", ".wh.a", ".wh.l",
            ".wh..wh..opq",
            "a/.wh.b", "a/.wh..wh..opq", ".wh..", ".wh...", ".wh.", ".wh..wh.plnk/x", "l", "l/a", "a//b", "a/./b",
            "n" * 100, "a/" + "n" * 90,
        ]
    ),
    st.binary(min_size=1, max_size=20),
)  # fmt: skip
targets = st.one_of(names, st.sampled_from(["/", "..", "../../..", "/etc", "a", "b", "l", "l/a", "/proc/self"]))
numbers = st.one_of(
    st.integers(0, 2000),
    st.integers(-(2**60), 2**60).map(lambda number: base256(number, 12)),
    st.binary(min_size=12, max_size=12),
    st.sampled_from([b"", b" 12 ", b"7" * 12, b"\xff" * 12, b"\x80" + b"\xff" * 11]),
)
keys = st.sampled_from(
    [
        "path", "linkpath", "size", "uid", "gid", "mtime", "SCHILY.xattr.user.a", "SCHILY.xattr.security.capability",
        "SCHILY.xattr.trusted.overlay.opaque", "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.name",
        "GNU.sparse.realsize", "GNU.sparse.size", "GNU.sparse.map", "GNU.sparse.offset", "GNU.sparse.numbytes",
    ]
)  # fmt: skip
values = st.one_of(
    st.sampled_from(["0", "1", "512", "-1", "1.5", "a", "a/b", "../x", "", "0,1", "0,512,1024,3", "9" * 25, "1e3"]),
    st.binary(max_size=30),
)
pieces = st.one_of(
    st.builds(file, names, st.binary(max_size=700)),
    st.builds(folder, names),
    st.builds(symlink, names, targets),
    st.builds(hardlink, names, targets),
    st.builds(header, names, st.sampled_from([bytes([flag]) for flag in b"01234567gxLKSVMDAZ\0"]), numbers, targets),
    st.builds(pax, st.dictionaries(keys, values, max_size=4), st.sampled_from([b"x", b"x", b"g"])),
    st.builds(pax, st.binary(max_size=60)),
    st.builds(long_name, st.binary(max_size=300), st.sampled_from([b"L", b"K"])),
    st.just(END[:BLOCK]),
    st.binary(max_size=600),
)
MAGICS = [b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh91AY&SY"]
archives = st.lists(pieces, max_size=10).map(lambda parts: b"".join(parts) + END)
changes = st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), max_size=4)


def changed(archive: bytes, edits: list[tuple[int, int]], mend: bool) -> bytes:
    """Return the archive with some bytes changed, the checksums of the blocks they lie in set right if asked."""
    data = bytearray(archive)
    for at, value in edits:
        at %= len(data)
        data[at] = value
        start = at - at % BLOCK
        if mend and len(data) >= start + BLOCK:
            data[start + 148 : start + 156] = b" " * 8
            data[start + 148 : start + 156] = b"%06o\0 " % sum(data[start : start + BLOCK])
    return bytes(data)


def made_by_tarfile() -> list[bytes]:
    made = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
            for name in ("dir/" + "long" * 30 if form else "short", "ü", "x"):
                member = tarfile.TarInfo(name)
                member.size, member.mtime = 600, -1.5 if form == tarfile.PAX_FORMAT else 5
                archive.addfile(member, io.BytesIO(bytes(600)))
        made.append(stream.getvalue())
    return made


def check_reading(archive: bytes) -> None:
    """Read an archive in both ways; whatever comes out keeps the invariants of entries."""
    for whiteouts in (True, False):
        try:
            for entry, read in iter_entries(reader(archive), whiteouts=whiteouts):
                parts = entry.path.split("/")
                assert entry.path == "" or not set(parts) & {"", ".", ".."}
                assert max(len(os.fsencode(part)) for part in parts) <= 255
                size = 0
                while size < 1 << 22 and (chunk := read(1 << 16)):
                    size += len(chunk)
                if size < 1 << 22 and entry.kind == "f":
                    assert size == entry.size
        except LayerError:
            continue


@FAST
@given(archive=archives, edits=changes, mend=st.booleans())
def test_invented_archives(archive: bytes, edits: list[tuple[int, int]], mend: bool) -> None:
    check_reading(changed(archive, edits, mend))


@FAST
@given(archive=st.sampled_from(made_by_tarfile()), edits=changes, mend=st.booleans(), cut=st.integers(0, 10_000))
def test_damaged_archives(archive: bytes, edits: list[tuple[int, int]], mend: bool, cut: int) -> None:
    check_reading(changed(archive, edits, mend)[: -cut or None])


@FAST
@given(
    data=st.binary(max_size=200),
    magic=st.sampled_from(MAGICS),
)
def test_damaged_compression(data: bytes, magic: bytes) -> None:
    try:
        for chunk in decompressed(io.BytesIO(magic + data).read):
            assert len(chunk) <= 1 << 20
    except LayerError:
        pass


@pytest.fixture(scope="module")
def cage() -> Iterator[Path]:
    """A directory in a directory with a file that nobody touches."""
    shm = "/dev/shm"
    outer = Path(tempfile.mkdtemp(prefix="lamina-fuzz-", dir=shm if os.access(shm, os.W_OK) else None))
    (outer / "a").write_text("outside")
    (outer / "inner").mkdir()
    yield outer / "inner"
    assert sorted(os.listdir(outer)) == ["a", "inner"]
    assert (outer / "a").read_text() == "outside"
    shutil.rmtree(outer)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away and make devices")
@settings(FAST, max_examples=300)
@given(parts=st.lists(pieces, max_size=12))
def test_a_tree_says_what_its_index_says_and_stays_inside(cage: Path, parts: list[bytes]) -> None:
    archive = b"".join(parts) + END
    root = cage / "root"
    root.mkdir()
    try:
        try:
            entries = unpack(io.BytesIO(archive), TreeWriter(root, "trusted"))
        except LayerError:
            entries = None
        try:
            scanned = scan(io.BytesIO(archive))[0]
        except LayerError:
            assert entries is None
            return
        # a scan knows less about lower layers than a tree on nothing, so it may take more
        assert entries in (None, scanned)
        if entries is None:
            return
        index = Index.from_entries(entries)
        assert Index.parse(index.dump()).entries == index.entries
        for entry in Union([index]).walk():
            whole = os.path.join(root, entry.path)
            assert os.path.lexists(whole)
            assert os.path.islink(whole) == (entry.kind == "l")
            assert (os.path.isdir(whole) and not os.path.islink(whole)) == (entry.kind == "d")
    finally:
        assert os.listdir(cage) == ["root"]
        shutil.rmtree(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to set a capability")
def test_a_malformed_capability_is_the_layers_fault(tmp_path: Path) -> None:
    """Found by the test above: the kernel's refusal of a value is not a fault of the disk."""
    archive = pax({"SCHILY.xattr.security.capability": "0"}, b"x") + file("a", b"") + END
    with pytest.raises(LayerError, match=r"security\.capability"):
        unpack(io.BytesIO(archive), TreeWriter(tmp_path, "trusted"))
