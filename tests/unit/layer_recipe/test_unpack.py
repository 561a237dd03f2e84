"""ADD of an archive: recognised by content, unpacked whole, refused when it breaks a rule."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.errors import InputError
from lamina.layer.entry import FileSlice
from lamina.layer.recipe import CopyOptions, Plan
from lamina.layer.recipe_unpack import unpacker
from lamina.layer.union import Union
from lamina.source.context import ContextView

ADD = CopyOptions(follow_symlink=True, dir_copy_contents=True, create_dest_path=True, attempt_unpack=True)


def archive(**files: bytes) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size, info.uid, info.mode = len(data), 7, 0o640
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def added(tmp_path: Path, data: bytes) -> dict[str, bytes | None]:
    context, spool = tmp_path / "context", tmp_path / "spool"
    context.mkdir()
    spool.mkdir()
    (context / "file").write_bytes(data)
    with ContextView(context) as view:
        plan = Plan(Union(), unpack=unpacker(str(spool)))
        plan.copy(view, "file", "/d/", ADD)
        found: dict[str, bytes | None] = {}
        for item in plan.items():
            found[item.entry.path] = None
            if isinstance(item.content, FileSlice):
                whole = Path(item.content.root, item.content.path).read_bytes()
                found[item.entry.path] = whole[item.content.offset :][: item.entry.size]
    return found


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_archives_are_unpacked_whatever_their_name(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """Plain, gzip, bzip2, xz."""
    data = pack(archive(one=b"1" * 3, sub__two=b"2" * 70000, none=b""))

    assert added(tmp_path, data) == {
        "d": None,
        "d/none": b"",
        "d/one": b"111",
        "d/sub": None,
        "d/sub/two": b"2" * 70000,
    }


@pytest.mark.parametrize(
    "data", [b"", b"text", gzip.compress(b"text", mtime=0), b"\0" * 1024, b"\x1f\x8bshort", b"x" * 5000]
)
def test_what_is_no_archive_is_copied_as_it_is(tmp_path: Path, data: bytes) -> None:
    """A compressed file that is no tar stays compressed."""
    assert added(tmp_path, data) == {"d": None, "d/file": data}


@pytest.mark.parametrize(
    "data",
    [archive(a=b"x" * 600)[:900], gzip.compress(archive(a=os.urandom(3 << 20)))[:-9], archive(**{".wh.a": b""})],
    ids=["short", "damaged", "whiteout"],
)
def test_archives_that_break_a_rule_are_refused(tmp_path: Path, data: bytes) -> None:
    """Cut short, damaged, or holding a whiteout: never half of it."""
    with pytest.raises(InputError):
        added(tmp_path, data)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_an_archive_that_is_cut_short_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """However small it is: a download that broke off is not copied as if it were a file."""
    data = pack(archive(one=random.Random(0).randbytes(1 << 16)))

    with pytest.raises(InputError, match="cut short"):
        added(tmp_path, data[: len(data) // 2])


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    """By its ratio."""
    data = gzip.compress(archive(a=b"\0" * (200 << 20)), 9)

    with ContextView(tmp_path) as view:
        (tmp_path / "file").write_bytes(data)
        plan = Plan(Union(), unpack=unpacker(str(tmp_path), max_bytes=100 << 20))
        with pytest.raises(InputError, match="more than"):
            plan.copy(view, "file", "/d/", ADD)
