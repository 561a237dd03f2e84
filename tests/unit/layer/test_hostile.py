"""Layers and archives that somebody made to do harm, or by mistake: our error, or the tree that docker would give.

The table follows the container advisories on breakouts, shadowed entries and readers that disagree. Every case is
unpacked beside a sentinel that must stay as it is, and read once more as an archive for ADD.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lamina.layer.blob import scan
from lamina.layer.errors import LayerError, TarError
from lamina.layer.index import Index
from lamina.layer.tar_read import MAX_HEADER, iter_entries
from lamina.layer.tar_write import write_items
from lamina.layer.tree import TreeWriter, remove_tree, tree_items, unpack, walk_tree
from unit.layer.tars import (
    END,
    GNU,
    V7,
    base256,
    file,
    folder,
    hardlink,
    header,
    long_name,
    pax,
    reader,
    record,
    symlink,
    unpack_bytes,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away and make devices")

OUTSIDE = b"@OUTSIDE@"  # stands for the absolute path of a directory outside the root


@dataclass(frozen=True)
class Case:
    """One archive and what it comes to: a tree (path to content, "/" for directories...), or an error.

    Attributes:
        parts: what is in the archive, without the end marker.
        tree: what must be there; None: it must be refused with a message that has `error` in it.
        end: the end marker.
        add: whether an ADD of it gets an error (True), none (False), or does not matter (None): names of whiteouts
            have no meaning there, and links are checked later.
    """

    parts: bytes
    tree: dict[str, str] | None = None
    error: str = ""
    end: bytes = END
    add: bool | None = field(default=None)


def refused(parts: bytes, error: str, *, end: bytes = END, add: bool | None = None) -> Case:
    return Case(parts, None, error, end, add)


SMUGGLED = file("evil", b"smuggled")
CASES = {
    # names that want to leave
    "absolute name": Case(file("/x"), {"x": "data"}),
    "parent name": Case(file("../x"), {"x": "data"}),
    "parent name in the middle": Case(file("dir/../../../x"), {"x": "data"}),
    "many slashes and dots": Case(file(".//a/.//b/./c"), {"a": "/", "a/b": "/", "a/b/c": "data"}),
    "windows names are plain": Case(file("C:/x") + file("..\\x"), {"C:": "/", "C:/x": "data", "..\\x": "data"}),
    "upper and lower case": Case(file("Case", b"1") + file("case", b"2"), {"Case": "1", "case": "2"}),
    "through an absolute link": Case(
        symlink("l", OUTSIDE) + file("l/x"), {"l": "->@OUTSIDE@", "@INSIDE@/x": "data"}
    ),
    "through a link upwards": Case(symlink("l", "../../..") + file("l/x"), {"l": "->../../..", "x": "data"}),
    "through a chain of links": Case(
        symlink("a", "b") + symlink("b", "..") + file("a/x"), {"a": "->b", "b": "->..", "x": "data"}
    ),
    "through links in a circle": refused(symlink("a", "b") + symlink("b", "a") + file("a/x"), "too many symbolic"),
    "through a link to itself": refused(symlink("a", "a") + file("a/x"), "too many symbolic"),
    "file over a link is not written through": Case(symlink("l", OUTSIDE + b"/sentinel") + file("l"), {"l": "data"}),
    "directory over a link": Case(symlink("l", OUTSIDE) + folder("l") + file("l/x"), {"l": "/", "l/x": "data"}),
    "device over a link": Case(
        symlink("l", OUTSIDE + b"/sentinel") + header("l", b"3", dev=(1, 3)), {"l": "c1:3"}
    ),
    "whiteout through a link": Case(
        symlink("l", OUTSIDE) + file("l/.wh.sentinel", b""), {"l": "->@OUTSIDE@", "@INSIDE@/sentinel": "gone"}
    ),
    "opaque mark through a link": Case(
        symlink("l", "d") + folder("d") + file("l/.wh..wh..opq", b""), {"l": "->d", "d": "/!"}
    ),
    # the root
    "entry for the root": Case(folder("./") + file("x"), {"x": "data"}),
    "entry for / and .": Case(folder("/") + folder(".") + file("x"), {"x": "data"}),
    "root as a link": refused(symlink(".", OUTSIDE), "root must stay a directory", add=True),
    "root as a file": refused(file("./"[:1]), "root must stay a directory", add=True),
    "root as a hard link": refused(hardlink("..", "x"), "root must stay a directory", add=True),
    "root through a link": refused(symlink("l", "/") + file("l/.."), "root must stay a directory"),
    "empty name": refused(file(b""), "without a name", add=True),
    # hard links
    "hard link to something before": Case(file("a") + hardlink("b", "a"), {"a": "data", "b": "=a"}),
    "hard link to something later": refused(hardlink("b", "a") + file("a"), "not there"),
    "hard link outside": refused(hardlink("b", "../../../../etc/hostname"), "not there"),
    "hard link to an absolute path": refused(hardlink("b", OUTSIDE + b"/sentinel"), "not there"),
    "hard link through a link outside": refused(symlink("l", OUTSIDE) + hardlink("b", "l/sentinel"), "not there"),
    "hard link to the root": refused(hardlink("b", "/"), "directory"),
    "hard link to a directory": refused(folder("d") + hardlink("b", "d"), "no file"),
    "hard link to an implied directory": refused(file("d/x") + hardlink("b", "d"), "directory"),
    "hard link to nothing": refused(hardlink("b", ""), "without a name"),
    "hard link to itself": refused(hardlink("b", "b"), "not there"),
    "hard link to itself again": Case(file("b") + hardlink("b", "b"), {"b": "data"}),
    "hard link to a link is to the link itself": Case(
        symlink("l", OUTSIDE + b"/sentinel") + hardlink("b", "l"), {"b": "->@OUTSIDE@/sentinel", "l": "=b"}
    ),
    "hard link to a hard link": Case(
        file("a") + hardlink("b", "a") + hardlink("c", "b"), {"a": "data", "b": "=a", "c": "=a"}
    ),
    "hard link to a whiteout": refused(file(".wh.a", b"") + hardlink("b", "a"), "no file"),
    "hard link with a size brings no data": Case(
        file("a") + header("b", b"1", 4, "a") + file("c"), {"a": "data", "b": "=a", "c": "data"}
    ),
    "target of a hard link replaced": Case(
        file("a", b"old") + hardlink("b", "a") + hardlink("c", "a") + file("a", b"new"),
        {"a": "new", "b": "old", "c": "=b"},
    ),
    "target of a hard link replaced by a directory": Case(
        file("a", b"old") + hardlink("b", "a") + folder("a"), {"a": "/", "b": "old"}
    ),
    "hard link over the directory of its target": refused(
        folder("d") + file("d/x") + hardlink("d", "d/x"), "which it replaces"
    ),
    # one name twice
    "file twice": Case(file("x", b"one") + file("x", b"two"), {"x": "two"}),
    "file, then directory": Case(file("x") + folder("x") + file("x/y"), {"x": "/", "x/y": "data"}),
    "directory with content, then file": Case(folder("x") + file("x/y/z") + file("x"), {"x": "data"}),
    "directory twice keeps its content": Case(folder("x") + file("x/y") + folder("x"), {"x": "/", "x/y": "data"}),
    "link, then file": Case(symlink("x", "y") + file("x"), {"x": "data"}),
    "one name in two spellings": Case(file("a/x", b"1") + file("./a//x", b"2"), {"a": "/", "a/x": "2"}),
    "file as a parent": refused(file("p") + file("p/x"), "used as a directory"),
    "device as a parent": refused(header("p", b"6") + file("p/x"), "used as a directory"),
    "hard link as a parent": refused(file("a") + hardlink("p", "a") + file("p/x"), "used as a directory"),
    # whiteouts
    "whiteout": Case(file(".wh.x", b""), {"x": "gone"}),
    "whiteout, then the name": Case(file(".wh.x", b"") + file("x"), {"x": "data"}),
    "the name, then its whiteout": Case(file("x") + file(".wh.x", b""), {"x": "data"}),
    "whiteout and directory": Case(file(".wh.x", b"") + folder("x") + file("x/y"), {"x": "/!", "x/y": "data"}),
    "directory and whiteout": Case(folder("x") + file("x/y") + file(".wh.x", b""), {"x": "/!", "x/y": "data"}),
    "whiteout and implied directory": Case(file(".wh.x", b"") + file("x/y"), {"x": "/!", "x/y": "data"}),
    "whiteout twice": Case(2 * file(".wh.x", b""), {"x": "gone"}),
    "whiteout typed as a directory": Case(folder(".wh.x"), {"x": "gone"}),
    "whiteout typed as a link": Case(symlink(".wh.x", OUTSIDE), {"x": "gone"}),
    "whiteout with data": Case(file(".wh.x", b"junk") + file("y"), {"x": "gone", "y": "data"}),
    "opaque before what is in it": Case(
        folder("x") + file("x/.wh..wh..opq", b"") + file("x/y"), {"x": "/!", "x/y": "data"}
    ),
    "opaque after what is in it": Case(
        folder("x") + file("x/y") + file("x/.wh..wh..opq", b""), {"x": "/!", "x/y": "data"}
    ),
    "opaque before its directory": Case(file("x/.wh..wh..opq", b"") + folder("x"), {"x": "/!"}),
    "opaque root": Case(file(".wh..wh..opq", b"") + file("y"), {"": "/!", "y": "data"}),
    "whiteout of the directory itself": refused(file("d/.wh..", b""), "a whiteout of '.'"),
    "whiteout of the root": refused(file(".wh..", b""), "a whiteout of '.'"),
    "whiteout of the parent": refused(file("d/.wh...", b""), "a whiteout of '..'"),
    "whiteout of nothing": refused(file("d/.wh.", b""), "a whiteout of ''"),
    "whiteout of three dots is one": Case(file(".wh....", b""), {"...": "gone"}),
    "entry below a whiteout": refused(file(".wh.d/x"), "below a whiteout"),
    "metadata of AUFS": Case(
        folder(".wh..wh.plnk") + file(".wh..wh.plnk/1.2") + file(".wh..wh.aufs", b"") + file("x"), {"x": "data"}
    ),
    "hard link named like a whiteout": Case(file("x") + hardlink(".wh.y", "x"), {"x": "data", "y": "gone"}),
    "device 0:0": refused(header("x", b"3", dev=(0, 0)), "device 0:0"),
    "attributes of overlayfs": Case(
        pax({"SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.overlay.whiteout": "y"}) + folder("x"),
        {"x": "/"},
    ),
    "attribute of overlayfs on the root": Case(
        pax({"SCHILY.xattr.trusted.overlay.opaque": "y"}) + folder("."), {}
    ),
    # kinds
    "fifo": Case(header("x", b"6"), {"x": "p"}),
    "block device": Case(header("x", b"4", dev=(8, 1)), {"x": "b8:1"}),
    "unknown type": refused(header("x", b"Z"), "unknown type", add=True),
    "multi-volume": refused(header("x", b"M"), "unknown type", add=True),
    "contiguous file": Case(header("x", b"7", 4) + file("y")[512:], {"x": "data"}),
    "directory as v7 wrote it": Case(header("x/", b"\0", magic=V7) + file("x/y"), {"x": "/", "x/y": "data"}),
    "directory as v7 wrote it, with data": Case(
        header("x/", b"0", len(SMUGGLED)) + SMUGGLED + file("y"), {"x": "/", "y": "data"}
    ),
    "link without a target": refused(symlink("x", ""), "symbolic link", add=True),
    # numbers
    "wrong checksum": refused(header("x", checksum=1), "checksum", add=True),
    "negative size": refused(header("x", size=base256(-1, 12)), "size -1", add=True),
    "size beyond 63 bits": refused(header("x", size=base256(1 << 63, 12)), "not valid", add=True),
    "size with a sign": refused(header("x", size=b"-0000000001"), "not valid", add=True),
    "size with an underscore": refused(header("x", size=b"0000000_001"), "not valid", add=True),
    "size with an 8": refused(header("x", size=b"00000000008"), "not valid", add=True),
    "base-256 size": Case(header("x", size=base256(4, 12)) + file("y")[512:], {"x": "data"}),
    "owner of 4,000,000,000": Case(header("x", uid=base256(4_000_000_000, 8)), {"x": ""}),
    "owner of 2**32": refused(header("x", uid=base256(1 << 32, 8)), "out of range", add=True),
    "owner that chown leaves as it is": refused(header("x", gid=base256((1 << 32) - 1, 8)), "out of range", add=True),
    "negative owner": refused(header("x", uid=base256(-1, 8)), "out of range", add=True),
    "owner of 2**32 in PAX": refused(pax({"uid": str(1 << 32)}) + file("x"), "uid", add=True),
    "owner with a sign in PAX": refused(pax({"gid": "-1"}) + file("x"), "gid", add=True),
    "time before 1970": Case(header("x", mtime=base256(-5, 12)), {"x": ""}),
    "time in the year 2242": Case(header("x", mtime=base256(1 << 33, 12)), {"x": ""}),
    "time out of range": refused(header("x", mtime=base256(1 << 62, 12)), "out of range", add=True),
    "time that is none": refused(pax({"mtime": "now"}) + file("x"), "not a time", add=True),
    "device number out of range": refused(header("x", b"3", dev=(base256(1 << 40, 8), 1)), "out of range", add=True),
    # headers of headers
    "PAX size governs the data": Case(
        pax({"size": "512"}) + header("x", size=0) + b"A" * 512 + file("y"), {"x": "A" * 512, "y": "data"}
    ),
    "PAX size cannot be negative": refused(pax({"size": "-1"}) + file("x"), "size", add=True),
    "PAX size beyond the data": refused(pax({"size": "99999"}) + file("x"), "cut short", add=True),
    "NUL in a PAX path": refused(pax({"path": b"a\0b"}) + file("x"), "NUL", add=True),
    "NUL in a PAX link": refused(pax({"linkpath": b"a\0b"}) + symlink("x", "y"), "target", add=True),
    "PAX path that leaves": Case(pax({"path": "../../x"}) + file("y"), {"x": "data"}),
    "PAX record without a length": refused(pax(b"path=x\n") + file("x"), "malformed", add=True),
    "PAX record of a wrong length": refused(pax(b"99 path=x\n") + file("x"), "wrong length", add=True),
    "PAX record of length nothing": refused(pax(b"0 path=x\n") + file("x"), "wrong length", add=True),
    "PAX record without a key": refused(pax(b"5 =x\n\n") + file("x"), "wrong length", add=True),
    "PAX header too large": refused(
        pax(record("comment", b"x" * MAX_HEADER)) + file("x"), "bytes of headers", add=True
    ),
    "PAX headers without end": refused(2049 * pax({"comment": "x"}) + file("x"), "bytes of headers", add=True),
    "long names without end": refused(2049 * long_name(b"x" * 100) + file("x"), "bytes of headers", add=True),
    "PAX header at the end": refused(pax({"path": "x"}), "header is missing", end=b"", add=True),
    "global header": Case(pax({"comment": "x", "path": "evil"}, b"g") + file("x"), {"x": "data"}),
    "nothing but a global header": Case(pax({"comment": "x"}, b"g"), {}),
    "a global header at the end": Case(file("x") + pax({"comment": "x"}, b"g"), {"x": "data"}),
    "GNU long name": Case(long_name(b"long") + file("short"), {"long": "data"}),
    "GNU long link": Case(long_name(b"long", b"K") + symlink("x", "short"), {"x": "->long"}),
    "GNU and PAX name that differ": refused(
        long_name(b"one") + pax({"path": "two"}) + file("three"), "two names", add=True
    ),
    "GNU magic with bytes in the prefix": Case(file("x", magic=GNU, prefix=b"12345"), {"x": "data"}),
    # names
    "name of 255 bytes": Case(pax({"path": "n" * 255}) + file("x"), {"n" * 255: "data"}),
    "name of 256 bytes": refused(pax({"path": "n" * 256}) + file("x"), "more than 255", add=True),
    "path of 4096 bytes": refused(pax({"path": "d/" * 2047 + "xx"}) + file("x"), "more than 4095", add=True),
    "newline in a name": Case(file("a\nb"), {"a\nb": "data"}),
    "name that is not UTF-8": Case(file(b"\xff\xfe"), {"\udcff\udcfe": "data"}),
    "name with an escape sequence": Case(file(b"\x1b[2J"), {"\x1b[2J": "data"}),
    # attributes
    "attribute of 64 KiB and more": refused(
        pax({"SCHILY.xattr.user.x": b"v" * 65537}) + file("x"), "extended attribute", add=True
    ),
    "attribute without a name": refused(pax({"SCHILY.xattr.": "v"}) + file("x"), "extended attribute", add=True),
    # the archive as a whole
    "nothing": Case(b"", {}, end=b""),
    "only zero blocks": Case(b"", {}, end=END),
    "no end marker": Case(file("x"), {"x": "data"}, end=b""),
    "one zero block at the end": Case(file("x"), {"x": "data"}, end=END[:512]),
    "one zero block amid": refused(file("x") + END[:512] + file("y"), "single zero block", add=True),
    "an archive after the end": Case(file("x") + END + file("y"), {"x": "data"}),
    "bytes after the end": Case(file("x"), {"x": "data"}, end=END + b"junk"),
    "cut short in data": refused(file("x", b"d" * 600)[:-512], "cut short", end=b"", add=True),
    "cut short in padding": refused(file("x")[:-1], "cut short", end=b"", add=True),
    "cut short in a header": refused(file("x") + header("y")[:100], "cut short", end=b"", add=True),
    "junk": refused(bytes(range(256)) * 8, "checksum", add=True),
    "text": refused(b"hello\n" * 200, "checksum", add=True),
}  # fmt: skip


def show(root: Path) -> dict[str, str]:
    """Return a tree as the table writes it; of hard links the first name (by sorting) has the data."""
    found: dict[str, str] = {}
    first: dict[int, str] = {}
    names = sorted(os.fsdecode(path) for path, _, _ in os.walk(os.fsencode(root)))
    paths = {os.path.join(folder, name) for folder in names for name in os.listdir(folder)}
    for whole in sorted(paths, key=os.fsencode):
        path, status = os.path.relpath(whole, root), os.lstat(whole)
        mode, dev = status.st_mode, f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        earlier = first.setdefault(status.st_ino, path)
        if stat.S_ISDIR(mode):
            found[path] = "/" + ("!" if is_opaque(whole) else "")
        elif earlier != path:
            found[path] = f"={earlier}"
        elif stat.S_ISLNK(mode):
            found[path] = f"->{os.readlink(whole)}"
        elif stat.S_ISREG(mode):
            found[path] = Path(whole).read_text()
        elif stat.S_ISFIFO(mode):
            found[path] = "p"
        else:
            found[path] = "gone" if dev == "0:0" else f"{'c' if stat.S_ISCHR(mode) else 'b'}{dev}"
    if is_opaque(str(root)):
        found[""] = "/!"
    return found


def is_opaque(whole: str) -> bool:
    names = os.listxattr(whole)
    assert not set(names) - {"trusted.overlay.opaque"}, names
    return bool(names)


def placed(case: Case, outside: Path) -> bytes:
    """Return the case's archive with the outside directory's path in it; its length does not change."""
    mark = os.fsencode(outside)
    if OUTSIDE not in case.parts:
        return case.parts + case.end
    blocks = [case.parts[at : at + 512] for at in range(0, len(case.parts), 512)]
    done = []
    for block in blocks:
        if OUTSIDE in block:
            name, link = block[:100].rstrip(b"\0"), block[157:257].rstrip(b"\0").replace(OUTSIDE, mark)
            block = header(name, block[156:157], link=link)
        done.append(block)
    return b"".join(done) + case.end


def expected(case: Case, outside: Path) -> dict[str, str]:
    inside = str(outside).lstrip("/")
    tree = {}
    for path, what in (case.tree or {}).items():
        path = path.replace("@INSIDE@", inside)
        tree[path] = what.replace("@OUTSIDE@", str(outside))
        if path.startswith(inside):
            parent = inside
            while parent:
                tree[parent] = "/"
                parent = parent.rpartition("/")[0]
    return tree


@pytest.fixture
def outside() -> Iterator[Path]:
    """A directory with a short absolute name, so that it fits a ustar link, and a sentinel in it."""
    folder_ = Path(tempfile.mkdtemp(prefix="lamina-out-"))
    (folder_ / "sentinel").write_text("untouched")
    yield folder_
    left = {path.name: path.read_text() for path in folder_.iterdir()}
    shutil.rmtree(folder_)
    assert left == {"sentinel": "untouched"}, "something was written outside the root"


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_layer_gives_our_error_or_the_right_tree(tmp_path: Path, outside: Path, name: str):
    """Breakouts, shadowing, malformed headers; a scan of the blob and the unpacked tree agree."""
    case = CASES[name]
    archive = placed(case, outside)
    root = tmp_path / "cage" / "root"
    root.parent.mkdir()
    if case.tree is None:
        with pytest.raises(LayerError) as caught:
            unpack_bytes(archive, root)
        assert case.error in caught.value.what
        assert str(caught.value).isprintable() or "\n" in str(caught.value)
    else:
        entries = unpack_bytes(archive, root)
        assert show(root) == expected(case, outside)
        assert Index.parse(Index.from_entries(entries).dump()).entries == Index.from_entries(entries).entries
    assert sorted(os.listdir(root.parent)) == ["root"]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.add is not None])
def test_the_same_archive_is_refused_as_an_archive_for_add(name: str):
    archive = CASES[name].parts + CASES[name].end
    with pytest.raises(TarError):
        drain(archive)


def drain(archive: bytes) -> list[str]:
    """Read everything, as ADD does."""
    paths = []
    for entry, read in iter_entries(reader(archive), whiteouts=False):
        paths.append(entry.path)
        while read(1 << 20):
            pass
    return paths


def test_marks_have_no_meaning_in_an_archive_for_add():
    assert drain(file(".wh.x") + file("d/.wh..wh..opq") + file(".wh..wh.plnk/x") + END) == [
        ".wh.x", "d/.wh..wh..opq", ".wh..wh.plnk/x",
    ]  # fmt: skip


def test_names_that_leave_the_root_can_be_refused_instead_of_clipped():
    for bad in ("/x", "../x", "a/../../x"):
        with pytest.raises(TarError):
            list(iter_entries(reader(file(bad) + END), clamp=False))


def test_an_error_leaves_no_descriptor_open(tmp_path: Path):
    before = len(os.listdir("/proc/self/fd"))
    for number in range(5):
        root = tmp_path / str(number)
        root.mkdir()
        with pytest.raises(TarError):
            unpack(io.BytesIO(file("d/x") + file("d/x/y")), TreeWriter(root, "trusted"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_more_links_to_a_file_than_the_file_system_allows_become_a_copy(tmp_path: Path):
    """EMLINK: ext4 allows 65,000 names; the layer's index must not depend on it."""
    count = 65_010
    archive = file("a") + b"".join(hardlink(f"n{number}", "a") for number in range(count)) + END
    root = tmp_path / "root"
    entries = unpack_bytes(archive, root)
    assert len(entries) == count + 1
    assert {entry.target for entry in entries[1:]} == {"a"}
    assert (root / f"n{count - 1}").read_text() == "data"


def test_scan_says_where(tmp_path: Path):
    with pytest.raises(TarError) as caught:
        scan(io.BytesIO(file("good") + file("p") + file("p/bad\x1b") + END))
    assert "p/bad" in caught.value.where
    assert "\x1b" not in str(caught.value)


def test_names_of_one_file_replaced_one_after_the_other(tmp_path: Path):
    """Each time the oldest name left takes the data over; thousands of them cost no more than others."""
    count = 20_000
    names = [f"n{number:05}" for number in range(count)]
    archive = file("a", b"old") + b"".join(hardlink(name, "a") for name in names)
    archive += b"".join(file(name, b"new") for name in ["a", *names[:-2]])
    root = tmp_path / "root"
    found = {entry.path: entry for entry in unpack_bytes(archive + END, root)}
    assert found[names[-2]].kind == "f"
    assert (found[names[-1]].kind, found[names[-1]].target) == ("h", names[-2])
    assert ((root / names[-1]).read_text(), (root / "a").read_text()) == ("old", "new")


def test_a_copy_made_for_too_many_links_does_not_pass_on_what_replaced_it(tmp_path: Path):
    count = 65_010
    archive = file("a", b"good") + b"".join(hardlink(f"n{number}", "a") for number in range(count))
    archive += b"".join(file(f"n{number}", b"evil") for number in range(64_990, count)) + hardlink("z", "a") + END
    unpack_bytes(archive, tmp_path / "root")
    assert (tmp_path / "root" / "z").read_text() == "good"


def test_holes_of_a_sparse_file_take_no_disk(tmp_path: Path):
    size = 64 << 20
    sparse = pax({"GNU.sparse.size": str(size), "GNU.sparse.map": "0,1"}) + file("s", b"x")
    unpack_bytes(sparse + END, tmp_path / "root")
    status = (tmp_path / "root" / "s").stat()
    assert status.st_size == size
    assert status.st_blocks * 512 < 4 << 20


def test_paths_as_long_as_can_be_are_written_walked_and_removed(tmp_path: Path):
    """4095 bytes below the root, although the root's own path comes on top."""
    long = "/".join(["d" * 254] * 15 + ["e" * 200, "f" * 60, "g" * 8])
    path = long + "x" * (4095 - len(long))
    root = tmp_path / "root"
    entries = unpack_bytes(pax({"path": path}) + file("short") + END, root)
    assert [entry.path for entry in entries] == [path]

    walked = walk_tree(root, "trusted")
    assert walked[-1].path == path
    assert len(walked) == path.count("/") + 1
    kept: list[bytes] = []
    write_items(tree_items(root, walked), kept.append)
    assert b"data" in b"".join(kept)
    remove_tree(root)
    assert not root.exists()


def test_a_path_too_long_for_a_layer_is_named(tmp_path: Path):
    here = os.open(tmp_path, os.O_PATH)
    for _ in range(17):
        os.mkdir("d" * 250, dir_fd=here)
        deeper = os.open("d" * 250, os.O_PATH, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    with pytest.raises(LayerError, match="4095 bytes"):
        walk_tree(tmp_path, "trusted")
    remove_tree(tmp_path / ("d" * 250))


def test_a_stream_that_comes_byte_by_byte_is_read_in_linear_time():
    """A decompressor may give single bytes; a long header is not copied for each of them."""
    archive = pax({"comment": b"x" * 200_000, "path": "y"}) + file("x") + END
    source = io.BytesIO(archive)
    assert [entry.path for entry, _ in iter_entries(lambda size: source.read(min(size, 1)))] == ["y"]


def test_a_tree_that_somebody_else_removes_meanwhile_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two that clear up the same leftovers do not fail each other."""
    (tmp_path / "t").mkdir()
    rmdir = os.rmdir

    def late(name: str, *, dir_fd: int) -> None:
        rmdir(name, dir_fd=dir_fd)
        rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", late)
    remove_tree(tmp_path / "t")

    assert not (tmp_path / "t").exists()
