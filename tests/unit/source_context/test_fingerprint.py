"""The fingerprint: changes when a build could see a difference, and not for what is ignored."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lamina.source.fingerprint import fingerprint

IGNORE = ["**/*.log", "out", "!out/keep"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("src/a.py", "src/sub/b.py", "other/c", "x.log", "out/keep", "out/drop", "one"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "link").symlink_to("src/sub")
    return tmp_path


def taken(root: Path, *prefixes: str) -> bytes:
    found = fingerprint(str(root), prefixes, IGNORE)
    assert found is not None
    return found[0]


SEEN: dict[str, Callable[[Path], object]] = {
    "written": lambda root: (root / "src/a.py").write_text("longer"),
    "mode": lambda root: (root / "src/a.py").chmod(0o711),
    "touched": lambda root: os.utime(root / "src/a.py", ns=(5, 5)),
    "new": lambda root: (root / "src/new").write_text(""),
    "gone": lambda root: (root / "src/sub/b.py").unlink(),
    "folder mode": lambda root: (root / "src/sub").chmod(0o700),
    "empty folder": lambda root: (root / "src/empty").mkdir(),
    "replaced": lambda root: ((root / "src/a.py").unlink(), (root / "src/a.py").symlink_to("sub")),
}


@pytest.mark.parametrize("name", SEEN)
def test_a_change_below_a_prefix_is_seen(root: Path, name: str) -> None:
    """Whether the prefix is the directory, a parent, or a pattern beside it."""
    before = [taken(root, prefix) for prefix in ("src", "/", "sr*", "src/*.py", "./src/")]

    SEEN[name](root)

    assert all(
        a != b for a, b in zip(before, [taken(root, p) for p in ("src", "/", "sr*", "src/*.py", "src")], strict=True)
    )


def test_what_is_ignored_or_elsewhere_is_not_seen(root: Path) -> None:
    """Not even by the times of directories; an exception below an ignored directory is."""
    before = taken(root, "src", "out", "link")

    (root / "src/new.log").write_text("")
    (root / "out/drop").write_text("longer")
    (root / "other/c").write_text("longer")
    assert taken(root, "src", "out", "link") == before

    (root / "out/keep").write_text("longer")
    assert taken(root, "src", "out", "link") != before


def test_links_are_followed_as_copies_follow_them(root: Path) -> None:
    """A source that is a link, a link in the way, and a pattern's match that is a link; inside the root."""
    (root / "abs").symlink_to("/link")
    (root / "dir").mkdir()
    (root / "dir" / "l").symlink_to("../abs/b.py")
    before = [taken(root, prefix) for prefix in ("link", "abs/b.py", "dir/*")]

    (root / "src/sub/b.py").write_text("longer")

    assert all(a != b for a, b in zip(before, [taken(root, p) for p in ("link", "abs/b.py", "dir/*")], strict=True))


def test_missing_paths_count_as_missing(root: Path) -> None:
    """And are seen when they appear."""
    before = taken(root, "later/x")

    (root / "later").mkdir()
    (root / "later/x").write_text("")

    assert taken(root, "later/x") != before


def test_circles_and_unreadable_roots_have_no_fingerprint(root: Path) -> None:
    """The caller looks closer."""
    (root / "loop").symlink_to("loop")

    assert fingerprint(str(root), ["loop/x"], []) is None


def test_the_newest_change_is_told(root: Path) -> None:
    """For the caller to judge whether all had settled."""
    found = fingerprint(str(root), ["one"], [])

    assert found is not None
    assert found[1] == os.lstat(root / "one").st_ctime_ns


def test_the_cached_path_stays_lean() -> None:
    """None of the modules that cost milliseconds."""
    code = "import sys, lamina.source.fingerprint; print(*sys.modules)"
    out = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert not {"typing", "dataclasses", "json", "threading", "ctypes", "pathlib"} & set(out.stdout.split())
