"""Paths from outside stay beneath their root, by openat2 and by the walk alike."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lamina import rooted


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both implementations keep the same promises."""
    monkeypatch.setattr(rooted, "_use_walk", request.param == "walk")
    return str(request.param)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    """A small root with every kind of link, and a secret just outside of it."""
    (tmp_path / "outside").write_text("secret")
    base = tmp_path / "root"
    (base / "etc").mkdir(parents=True)
    (base / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\n")
    (base / "run").mkdir()
    (base / "var").mkdir()
    (base / "var" / "run").symlink_to("/run")
    (base / "absolute").symlink_to("/etc/passwd")
    (base / "up").symlink_to("../../../../etc")
    (base / "loop").symlink_to("loop")
    (base / "dangling").symlink_to("nowhere")
    (base / "escape").symlink_to(tmp_path / "outside")
    os.mkfifo(base / "fifo")
    fd = rooted.open_root(base)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    "path", ["etc/passwd", "/etc/passwd", "absolute", "up/passwd", "../../etc/passwd", "var/../absolute"]
)
def test_links_and_dots_resolve_inside_the_root(way: str, root: int, path: str) -> None:
    """The root is "/" for whatever is resolved in it."""
    assert rooted.read_file(root, path, 100) == b"root:x:0:0::/:/bin/sh\n"


@pytest.mark.parametrize(
    ("path", "code"),
    [("escape", errno.ENOENT), ("loop", errno.ELOOP), ("dangling", errno.ENOENT), ("etc/passwd/x", errno.ENOTDIR)],
)
def test_what_cannot_be_resolved_says_why(way: str, root: int, path: str, code: int) -> None:
    """A link to a host file finds nothing: the path it names does not exist inside."""
    with pytest.raises(OSError) as caught:
        rooted.read_file(root, path, 100)

    assert caught.value.errno == code


@pytest.mark.parametrize(
    ("path", "code"),
    [("absolute", errno.ELOOP), ("up/passwd", errno.ELOOP), ("../outside", errno.EXDEV), ("var/run/x", errno.ELOOP)],
)
def test_beneath_refuses_links_and_leaving(way: str, root: int, path: str, code: int) -> None:
    """What must be exactly the named file is never reached through a link."""
    with pytest.raises(OSError) as caught:
        os.close(rooted.open_beneath(root, path))

    assert caught.value.errno == code


def test_beneath_refuses_a_link_even_for_a_bare_descriptor(way: str, root: int) -> None:
    """O_PATH would otherwise hand out the link itself."""
    with pytest.raises(OSError) as caught:
        os.close(rooted.open_beneath(root, "absolute", os.O_PATH))

    assert caught.value.errno == errno.ELOOP


def test_beneath_opens_plain_files(way: str, root: int) -> None:
    """A path without links opens."""
    assert rooted.read_file(root, "etc/passwd", 100, follow=False).startswith(b"root")


def test_a_fifo_is_refused_without_waiting(way: str, root: int) -> None:
    """A hostile image must not make us hang on its /etc/passwd."""
    with pytest.raises(OSError) as caught:
        rooted.read_file(root, "fifo", 100)

    assert caught.value.errno == errno.EINVAL


def test_a_file_of_exactly_the_cap_is_read_and_one_more_is_not(way: str, root: int, tmp_path: Path) -> None:
    """The cap is inclusive."""
    (tmp_path / "root" / "big").write_bytes(b"x" * 101)

    assert len(rooted.read_file(root, "big", 101)) == 101
    with pytest.raises(OSError) as caught:
        rooted.read_file(root, "big", 100)
    assert caught.value.errno == errno.EFBIG


def test_a_directory_is_not_read(way: str, root: int) -> None:
    """Only regular files have content."""
    with pytest.raises(OSError) as caught:
        rooted.read_file(root, "etc", 100)

    assert caught.value.errno == errno.EINVAL


def test_make_dirs_follows_links_inside_the_root(way: str, root: int, tmp_path: Path) -> None:
    """/var/run/lock is /run/lock when /var/run is a link, as it would be in the container."""
    os.close(rooted.make_dirs(root, "/var/run/lock/deep"))

    assert (tmp_path / "root" / "run" / "lock" / "deep").is_dir()


def test_make_dirs_does_not_replace_a_dangling_link(way: str, root: int) -> None:
    """Somebody put the link there on purpose."""
    with pytest.raises(FileExistsError):
        os.close(rooted.make_dirs(root, "dangling/x"))


def test_creating_through_a_link_stays_inside(way: str, root: int, tmp_path: Path) -> None:
    """O_CREAT resolves like everything else."""
    fd = rooted.open_in_root(root, "var/run/pid", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(fd)

    assert (tmp_path / "root" / "run" / "pid").stat().st_mode & 0o777 == 0o600


def test_names_that_are_not_text_open(way: str, root: int, tmp_path: Path) -> None:
    """Image paths are bytes; surrogateescape carries them."""
    name = os.fsdecode(b"etc/caf\xe9")
    Path(tmp_path / "root" / name).write_text("x")

    assert rooted.read_file(root, name, 10) == b"x"


def test_a_nul_byte_is_an_error_and_no_truncation(way: str, root: int) -> None:
    """A C string would end there and open another file."""
    with pytest.raises((OSError, ValueError)):
        rooted.read_file(root, "etc/passwd\0.txt", 100)
