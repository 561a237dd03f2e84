"""A live directory as a view: what is in it, what is not, and that nothing leads outside or hangs."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from pathlib import Path

import pytest

from lamina.errors import InputError
from lamina.layer.entry import FileSlice
from lamina.patterns import IgnoreRules
from lamina.source.context import ContextChangedError, ContextView
from lamina.source.statcache import StatCache, file_clock_ns, is_settled


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def settle(root: Path) -> None:
    """Wait out the clock's tick after the last change below `root`."""
    waiter = threading.Event()
    paths = [root, *root.rglob("*")]
    while not all(is_settled(os.lstat(path).st_ctime_ns, file_clock_ns()) for path in paths):
        waiter.wait(0.005)


def everything(view: ContextView) -> list[str]:
    found, pending = [], [""]
    while pending:
        folder = pending.pop()
        for name in view.children(folder):
            path = f"{folder}/{name}" if folder else name
            entry = view.lookup(path)
            assert entry is not None
            found.append(path)
            if entry.kind == "d":
                pending.append(path)
    return sorted(found)


def test_a_file_is_root_s_with_its_mode_and_content(tmp_path: Path) -> None:
    """The host's owner never shows; mode, time, digest do."""
    file = tmp_path / "run.sh"
    file.write_bytes(b"#!")
    file.chmod(0o4711)
    os.utime(file, ns=(1, 123456789))

    with ContextView(tmp_path) as view:
        entry = view.lookup("run.sh")

        assert entry is not None
        assert (entry.kind, entry.mode, entry.uid, entry.gid, entry.size) == ("f", 0o4711, 0, 0, 2)
        assert entry.mtime_ns == 123456789
        assert view.digest(entry) == sha(b"#!")
        assert view.content(entry) == FileSlice(str(tmp_path), "run.sh", 0, sha(b"#!"))
        assert view.lookup("none") is None
        assert view.lookup("run.sh/x") is None


def test_ignored_files_are_not_there_but_exceptions_are(tmp_path: Path) -> None:
    """Directories on the way to an exception show, others do not; looked up or listed."""
    for name in ("a.log", "src/a.py", "src/b.log", "mod/deep/keep", "mod/deep/drop", "mod/other/drop"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    rules = IgnoreRules(["**/*.log", "mod", "!mod/deep/keep"])

    with ContextView(tmp_path, rules) as listed, ContextView(tmp_path, rules) as asked:
        shown = ["mod", "mod/deep", "mod/deep/keep", "src", "src/a.py"]
        assert everything(listed) == shown
        every = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")]
        assert sorted(path for path in every if asked.lookup(path) is not None) == shown
        assert "rule **/*.log" in asked.why_missing("a.log")
        assert asked.why_missing("nowhere") == ""


def test_include_patterns_narrow_the_context(tmp_path: Path) -> None:
    """Only what matches, and the directories on the way."""
    for name in ("a/x", "a/y", "b/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")

    with ContextView(tmp_path, include=IgnoreRules(["a/x"])) as view:
        assert everything(view) == ["a", "a/x"]


def test_links_lead_nowhere_outside(tmp_path: Path) -> None:
    """A link in a parent is resolved in the root; unresolved paths through links find nothing."""
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "in" / "file").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    (root / "up").symlink_to("../..")
    (root / "abs").symlink_to("/in")
    (root / "host").symlink_to(tmp_path)

    with ContextView(root) as view:
        assert view.resolve("abs/file") == "in/file"
        assert view.resolve("up/secret") == "secret"
        assert view.lookup("secret") is None
        assert view.lookup("host/secret") is None
        assert view.lookup("up/secret") is None
        entry = view.lookup("up")
        assert entry is not None
        assert (entry.kind, entry.target) == ("l", "../..")


def test_fifos_are_entries_and_sockets_are_left_out(tmp_path: Path) -> None:
    """Neither hangs; only files have content."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # socket paths are short
        try:
            server.bind("sock")
        finally:
            os.chdir(here)
        with ContextView(tmp_path) as view:
            assert view.children("") == ["pipe"]
            pipe = view.lookup("pipe")
            assert pipe is not None
            assert pipe.kind == "p"
            assert view.content(pipe) is None
            assert "socket" in view.why_missing("sock")


def test_names_that_are_not_text_survive(tmp_path: Path) -> None:
    """Byte for byte."""
    (tmp_path / os.fsdecode(b"caf\xe9\n")).write_text("x")

    with ContextView(tmp_path) as view:
        (name,) = view.children("")
        assert os.fsencode(name) == b"caf\xe9\n"
        assert view.digests([e for e in [view.lookup(name)] if e]) == [sha(b"x")]


def test_hard_links_and_attributes_are_seen(tmp_path: Path) -> None:
    """One group for the names of one file; user attributes, but none of an overlay's or of the host."""
    (tmp_path / "a").write_text("x")
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "c").write_text("x")
    try:
        os.setxattr(tmp_path / "c", "user.mark", b"\0")
        os.setxattr(tmp_path / "c", "user.overlay.opaque", b"y")
    except OSError:
        pytest.skip("no user attributes here")

    with ContextView(tmp_path) as view:
        a, b, c = (view.lookup(name) for name in "abc")
        assert a is not None and b is not None and c is not None
        assert view.link_group(a) == view.link_group(b) != ""
        assert view.link_group(c) == ""
        assert c.xattrs == (("user.mark", b"\0"),)


def test_a_file_that_changed_after_it_was_listed_is_named(tmp_path: Path) -> None:
    """Written, replaced by a link, by a fifo, or gone: an error, never a wrong digest and never a hang."""
    changes = {
        "written": lambda path: path.write_text("longer"),
        "linked": lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
        "piped": lambda path: (path.unlink(), os.mkfifo(path)),
        "gone": lambda path: path.unlink(),
    }
    for name in changes:
        (tmp_path / name).write_text("x")

    with ContextView(tmp_path) as view:
        entries = {name: view.lookup(name) for name in changes}
        for name, change in changes.items():
            change(tmp_path / name)
            with pytest.raises(ContextChangedError, match=name):
                view.digest(entries[name])  # type: ignore[arg-type]


@pytest.mark.skipif(os.geteuid() == 0 and not hasattr(os, "seteuid"), reason="root reads all")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    """And the hint tells the two ways out."""
    (tmp_path / "key").write_text("x")
    (tmp_path / "key").chmod(0)
    tmp_path.chmod(0o755)
    if os.geteuid() == 0:
        read, write = os.pipe()
        if (child := os.fork()) == 0:  # root reads everything: ask as somebody else
            os.chown(tmp_path / "key", 12345, 12345)
            try:
                view = ContextView(tmp_path)
                os.setresuid(12346, 12346, 12346)
                view.digest(view.lookup("key"))  # type: ignore[arg-type]
            except InputError as error:
                os.write(write, f"{error} {error.hint}".encode())
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        with open(read, "rb") as pipe:
            message = pipe.read().decode()
    else:
        with ContextView(tmp_path) as view, pytest.raises(InputError) as raised:
            view.digest(view.lookup("key"))  # type: ignore[arg-type]
        message = f"{raised.value} {raised.value.hint}"
    assert "/key" in message
    assert ".dockerignore" in message


def test_large_files_are_hashed_by_threads_as_by_one(tmp_path: Path) -> None:
    """In the order asked for."""
    for number in range(20):
        (tmp_path / f"{number:02}").write_bytes(bytes([number]) * (1 << 20))

    with ContextView(tmp_path) as view:
        entries = [entry for name in view.children("") if (entry := view.lookup(name))]
        assert view.digests(entries) == [sha(bytes([number]) * (1 << 20)) for number in range(20)]


def test_unchanged_files_are_not_read_again(tmp_path: Path) -> None:
    """With the cache of an earlier build the digest comes with the entry; a changed or new file is hashed."""
    for name in ("same", "edited"):
        (tmp_path / name).write_text("old")
    settle(tmp_path)
    with ContextView(tmp_path) as view:
        view.digests([entry for name in view.children("") if (entry := view.lookup(name))])
    blob = view.cache.dump()
    (tmp_path / "edited").write_text("new")

    with ContextView(tmp_path, cache=StatCache.load(blob)) as again:
        same, edited = again.lookup("same"), again.lookup("edited")

        assert same is not None and same.digest == sha(b"old")
        assert edited is not None and edited.digest == ""
        assert again.digest(edited) == sha(b"new")


def test_what_was_just_written_is_not_remembered(tmp_path: Path) -> None:
    """A second write within the clock's tick would not show in its times."""
    (tmp_path / "fresh").write_text("x")

    cache = StatCache()
    now = file_clock_ns()
    cache.put("fresh", (1, now, now, 1), sha(b"x"), (), now + 1)
    cache.put("whole-seconds", (1, 0, now // 10**9 * 10**9, 1), sha(b"x"), (), now + 10**9)
    cache.put("settled", (1, 0, now + 1, 1), sha(b"x"), (), now + 10**10)

    assert list(cache.rows) == ["settled"]


def test_rows_of_files_that_are_gone_are_dropped(tmp_path: Path) -> None:
    """Those that are only ignored, or were not looked at, stay."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "kept.log").write_text("x")
    cache = StatCache()
    for path in ("gone", "kept.log", "dir/unseen"):
        cache.put(path, (1, 1, 1, 1), sha(b"x"), (), 10**18)

    with ContextView(tmp_path, IgnoreRules(["*.log"]), cache) as view:
        view.children("")

    assert sorted(cache.rows) == ["dir/unseen", "kept.log"]


def test_a_stat_cache_survives_and_a_damaged_one_is_empty() -> None:
    """Rows with and without digests and attributes; any damage means nothing is remembered."""
    cache = StatCache()
    cache.put("a", (1, 2, 3, 4), sha(b"a"), (), 10**18)
    cache.put("b\udcff", (5, -6, 7, 2**63), "", (("user.x", b"\0"),), 10**18)
    blob = cache.dump()

    assert StatCache.load(blob).rows == cache.rows
    assert StatCache.load(StatCache().dump()).rows == {}
    assert StatCache.load(b"").rows == {}
    for at in range(len(blob)):
        assert StatCache.load(blob[:at] + bytes([blob[at] ^ 4]) + blob[at + 1 :]).rows == {}


def test_a_missing_context_is_an_input_error(tmp_path: Path) -> None:
    """Naming it."""
    with pytest.raises(InputError, match="none"):
        ContextView(tmp_path / "none")
