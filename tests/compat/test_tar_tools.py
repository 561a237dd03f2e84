"""GNU tar, bsdtar and Python's tarfile read our layers, and we their archives: the same trees both ways."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from lamina.layer.blob import pack
from lamina.layer.compress import Compression
from lamina.layer.entry import Entry, Item
from lamina.layer.tar_write import write_items
from lamina.layer.tree import TreeWriter, tree_items, unpack, walk_tree
from unit.layer.tars import Seen, link_groups, seen_in_tree

pytestmark = [
    pytest.mark.compat,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away and make devices"),
]
needs_bsdtar = pytest.mark.skipif(shutil.which("bsdtar") is None, reason="no bsdtar: apt-get install libarchive-tools")
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
OLD = 1_000_000_000


def run(*command: object) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, errors="replace", check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_tree(root: Path, level: str) -> None:
    """Make a tree that a format can hold: "v7" (short names, files and links), "ustar", or "pax" (everything)."""
    (root / "dir" / "sub").mkdir(parents=True)
    (root / "dir" / "file").write_bytes(b"content\n" * 1000)
    (root / "empty").touch()
    (root / "script").write_text("#!/bin/sh\n")
    os.chmod(root / "script", 0o4755)
    os.link(root / "dir" / "file", root / "hard")
    os.link(root / "dir" / "file", root / "dir" / "hard too")
    os.symlink("../empty", root / "dir" / "link")
    os.symlink("/nowhere", root / "broken")
    (root / b"not\xff\xfeutf-8".decode("utf-8", "surrogateescape")).write_text("x")
    if level != "v7":
        os.mkfifo(root / "fifo")
        os.mknod(root / "null", 0o020666, os.makedev(1, 3))
        os.mknod(root / "disk", 0o060660, os.makedev(8, 17))
        long = root / ("d" * 90) / ("e" * 60)
        long.mkdir(parents=True)
        (long / ("f" * 90)).write_text("long, but ustar splits it")
    if level in ("gnu", "pax"):
        deep = root.joinpath(*["g" * 60] * 6)
        deep.mkdir(parents=True)
        (deep / ("n" * 255)).write_text("deep")
        os.link(deep / ("n" * 255), root / "link to deep")
        os.symlink("t" * 300, root / "long link")
        os.chown(root / "empty", 3_000_000, 4_000_000_000)
        (root / "ümläut €").write_text("utf-8")
        (root / "new\nline").write_text("x")
    if level == "pax":
        os.setxattr(root / "script", "user.note", b"binary\0\xff\n=1")
        os.setxattr(root / "dir", "user.dir", b"")
        os.setxattr(root / "dir" / "file", "security.capability", CAPABILITY)
    for path, names, others in os.walk(os.fsencode(root), topdown=False):
        for number, name in enumerate(sorted((*names, *others))):
            os.utime(os.path.join(path, name), (OLD + number, OLD + number), follow_symlinks=False)
    os.utime(root, (OLD, OLD))


def make_sparse(root: Path) -> None:
    for name, pieces, size in (
        ("holes", [(1 << 20, b"x" * 5000), (3 << 20, b"y")], 4 << 20),
        ("many", [(number << 16, b"p" * 4096) for number in range(40)], 3 << 20),
        ("only a hole", [], 2 << 20),
        ("starts", [(0, b"data" * 2000)], 1 << 20),
    ):
        with (root / name).open("wb") as stream:
            for at, data in pieces:
                stream.seek(at)
                stream.write(data)
            stream.truncate(size)
        os.utime(root / name, (OLD, OLD))


def unpack_ours(archive: Path, root: Path) -> None:
    root.mkdir()
    with archive.open("rb") as stream:
        unpack(stream, TreeWriter(root, "trusted"))


def pack_ours(root: Path, archive: Path, kind: str) -> None:
    class Keep(io.BytesIO):
        def commit(self) -> tuple[object, int]:
            return None, 0

    keep = Keep()
    pack(tree_items(root, walk_tree(root, "trusted")), keep, Compression(kind))  # type: ignore[arg-type]
    archive.write_bytes(keep.getvalue())


def without_times_of_links(seen: Seen) -> Seen:
    return {path: (*what[:4], what[5], what[6]) if what[0] == 0o120000 else what for path, what in seen.items()}


READERS = {
    "tar": ("tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"),
    "bsdtar": ("bsdtar", "--xattrs", "--numeric-owner", "-xpf"),
}


@pytest.mark.parametrize("kind", ["uncompressed", "gzip", "zstd"])
@pytest.mark.parametrize("tool", ["tar", pytest.param("bsdtar", marks=needs_bsdtar)])
def test_others_unpack_what_we_pack(tmp_path: Path, tool: str, kind: str):
    """Every kind of file, owners, times, attributes, long names: the tree comes back."""
    root, archive, theirs = tmp_path / "root", tmp_path / "layer", tmp_path / "theirs"
    make_tree(root, "pax")
    make_sparse(root)
    pack_ours(root, archive, kind)

    theirs.mkdir()
    run("env", "LC_ALL=C.UTF-8", *READERS[tool], archive, "-C", theirs)

    expected, got = seen_in_tree(root), seen_in_tree(theirs)
    assert got == expected
    assert link_groups(theirs) == link_groups(root)


GNU_FORMATS = {"v7": "v7", "oldgnu": "gnu", "gnu": "gnu", "ustar": "ustar", "posix": "pax"}


@pytest.mark.parametrize("form", GNU_FORMATS)
def test_we_unpack_every_format_of_gnu_tar(tmp_path: Path, form: str):
    """v7, oldgnu, gnu, ustar, posix with attributes: the same tree as `tar -x`."""
    root, archive, theirs = tmp_path / "root", tmp_path / "a.tar", tmp_path / "theirs"
    level = GNU_FORMATS[form]
    make_tree(root, level)
    options = ("--xattrs", "--xattrs-include=*") if level == "pax" else ()
    run("tar", f"--format={form}", *options, "-cf", archive, "-C", root, ".")
    theirs.mkdir()
    run(*READERS["tar"], archive, "-C", theirs)

    unpack_ours(archive, tmp_path / "ours")

    assert seen_in_tree(tmp_path / "ours") == seen_in_tree(theirs)
    assert link_groups(tmp_path / "ours") == link_groups(theirs) == link_groups(root)
    assert seen_in_tree(theirs).keys() == seen_in_tree(root).keys()


@pytest.mark.parametrize(
    "options",
    [("--format=gnu",), ("--format=oldgnu",)]
    + [("--format=posix", f"--sparse-version={version}") for version in ("0.0", "0.1", "1.0")],
    ids=" ".join,
)
def test_we_unpack_sparse_files_of_gnu_tar(tmp_path: Path, options: tuple[str, ...]):
    """Old GNU and PAX 0.0, 0.1, 1.0: holes are zeros; names longer than a header too."""
    root, archive = tmp_path / "root", tmp_path / "a.tar"
    root.mkdir()
    make_sparse(root)
    deep = root / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    make_sparse(deep)
    run("tar", *options, "--sparse", "-cf", archive, "-C", root, ".")
    assert archive.stat().st_size < 2 << 20

    unpack_ours(archive, tmp_path / "ours")

    expected, got = seen_in_tree(root), seen_in_tree(tmp_path / "ours")
    assert got.keys() == expected.keys()
    for path, what in expected.items():
        if what[0] == 0o100000:
            assert got[path] == what


@needs_bsdtar
@pytest.mark.parametrize(("form", "level"), [("v7", "v7"), ("ustar", "ustar"), ("pax", "pax"), ("gnutar", "gnu")])
def test_we_unpack_every_format_of_bsdtar(tmp_path: Path, form: str, level: str):
    root, archive, theirs = tmp_path / "root", tmp_path / "a.tar", tmp_path / "theirs"
    make_tree(root, level)
    run("env", "LC_ALL=C.UTF-8", "bsdtar", f"--format={form}", "-cf", archive, "-C", root, ".")
    theirs.mkdir()
    run("env", "LC_ALL=C.UTF-8", *READERS["bsdtar"], archive, "-C", theirs)

    unpack_ours(archive, tmp_path / "ours")

    assert seen_in_tree(tmp_path / "ours") == seen_in_tree(theirs)
    assert link_groups(tmp_path / "ours") == link_groups(theirs)


@pytest.mark.parametrize(
    ("form", "level"), [(tarfile.USTAR_FORMAT, "ustar"), (tarfile.GNU_FORMAT, "gnu"), (tarfile.PAX_FORMAT, "gnu")]
)
def test_we_unpack_every_format_of_pythons_tarfile(tmp_path: Path, form: int, level: str):
    root, archive = tmp_path / "root", tmp_path / "a.tar"
    make_tree(root, level)
    with tarfile.open(archive, "w", format=form) as whole:
        whole.add(root, ".")

    unpack_ours(archive, tmp_path / "ours")

    assert without_times_of_links(seen_in_tree(tmp_path / "ours")) == without_times_of_links(seen_in_tree(root))
    assert link_groups(tmp_path / "ours") == link_groups(root)


def test_pythons_tarfile_reads_what_we_pack(tmp_path: Path):
    root, archive = tmp_path / "root", tmp_path / "layer"
    make_tree(root, "pax")
    pack_ours(root, archive, "gzip")

    with tarfile.open(archive) as whole:
        members = {member.name: member for member in whole}

    expected = seen_in_tree(root)
    assert members.keys() == expected.keys()
    for path, (_, mode, uid, gid, mtime, _, _) in expected.items():
        member = members[path]
        assert (member.uid, member.gid, member.mtime) == (uid, gid, mtime) or member.islnk()
        assert member.mode == mode or member.islnk()


def test_marks_are_listed_as_docker_lists_them(tmp_path: Path):
    """Whiteouts are plain empty files to every other tool."""
    archive = bytearray()
    write_items([Item(Entry("a/b", "w")), Item(Entry("d", "d", 0o755, opaque=True))], archive.extend)
    (tmp_path / "layer").write_bytes(archive)

    assert run("tar", "-tf", tmp_path / "layer").splitlines() == ["a/.wh.b", "d/", "d/.wh..wh..opq"]
