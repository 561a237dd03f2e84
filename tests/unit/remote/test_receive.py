"""A directory of a client's arrives as it is there: only what changed travels, and hostile clients get nowhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.api.pb import fsutil_pb2
from lamina.cancel import Cancel
from lamina.errors import Error
from lamina.remote.packets import DATA, ERROR, FIN, REQUEST, STAT, ProtocolError
from lamina.remote.receive import Receiver

Packet = fsutil_pb2.Packet
DIR, LINK, DEVICE, PIPE = 1 << 31, 1 << 27, 1 << 26, 1 << 25


class Script:
    """The client's end of a call: says what it was told to say, and serves `contents` by number."""

    def __init__(self, packets: Iterable[Packet], contents: dict[int, bytes] | None = None) -> None:
        self._packets = iter(packets)
        self._contents = contents or {}
        self._answers: list[Packet] = []
        self.asked: list[int] = []
        self.finished = False

    def send(self, packet: Packet) -> None:
        if packet.type == REQUEST:
            self.asked.append(packet.ID)
        elif packet.type == FIN:
            self.finished = True

    def end(self) -> None:
        pass

    def receive(self) -> Packet | None:
        packet = next(self._packets, None)
        if packet is not None:
            return packet
        if not self._answers:
            for number, data in self._contents.items():
                self._answers += [Packet(type=DATA, ID=number, data=data), Packet(type=DATA, ID=number)]
            self._contents = {}
        return self._answers.pop(0) if self._answers else None


def entry(path: str, mode: int = 0o644, **fields: object) -> Packet:
    return Packet(type=STAT, stat=fsutil_pb2.Stat(path=path, mode=mode, **fields))


END = Packet(type=STAT)


def receive(folder: Path, *packets: Packet, contents: dict[int, bytes] | None = None) -> Script:
    script = Script(packets, contents)
    folder.mkdir(exist_ok=True)
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        receiver = Receiver(root, script, Cancel(), lambda _size, _done: None)  # type: ignore[arg-type]
        receiver.run()
        receiver.set_folder_times()
    finally:
        os.close(root)
    return script


def tree(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        kind = stat.S_IFMT(status.st_mode)
        content = os.readlink(path) if kind == stat.S_IFLNK else path.read_text() if kind == stat.S_IFREG else ""
        found[str(path.relative_to(folder))] = f"{stat.filemode(status.st_mode)} {content}".strip()
    return found


WHOLE = (
    entry("a", 0o755, size=1, modTime=10**18),
    entry("d", DIR | 0o750, modTime=10**18),
    entry("d/f", 0o600, size=3, modTime=10**18 + 5),
    entry("d/l", LINK | 0o777, linkname="f", modTime=10**18),
    entry("d/same", 0o600, size=3, linkname="d/f", modTime=10**18 + 5),
    entry("d.txt", 0o644, size=0, modTime=10**18),
    entry("p", PIPE | 0o644),
    END,
)
CONTENTS = {0: b"x", 2: b"abc", 5: b""}


def test_a_tree_arrives_as_it_is_there(tmp_path: Path):
    script = receive(tmp_path / "t", *WHOLE, contents=CONTENTS)

    assert tree(tmp_path / "t") == {
        "a": "-rwxr-xr-x x",
        "d": "drwxr-x---",
        "d.txt": "-rw-r--r--",
        "d/f": "-rw------- abc",
        "d/l": "lrwxrwxrwx f",
        "d/same": "-rw------- abc",
        "p": "prw-r--r--",
    }
    assert (tmp_path / "t/d/f").stat().st_mtime_ns == 10**18 + 5
    assert (tmp_path / "t/d").stat().st_mtime_ns == 10**18
    assert (script.asked, script.finished) == ([0, 2, 5], True)


def test_extended_attributes_come_change_and_go_without_the_content(tmp_path: Path):
    """They leave a file's time alone; those of the host or of an overlay on it are nobody's business."""
    sent = {"user.a": b"1", "user.overlay.opaque": b"y", "security.selinux": b"x"}
    same = {"size": 2, "modTime": 5}
    try:
        os.setxattr(tmp_path, "user.x", b"")
    except OSError:
        pytest.skip("no user xattrs on the file system of the temporary directory")

    receive(tmp_path / "d", entry("f", xattrs=sent, **same), END, contents={0: b"hi"})
    assert {name: os.getxattr(tmp_path / "d/f", name) for name in os.listxattr(tmp_path / "d/f")} == {"user.a": b"1"}
    for now in ({"user.a": b"2", "user.b": b"3"}, {}):
        script = receive(tmp_path / "d", entry("f", xattrs=now, **same), END)
        assert script.asked == []
        assert {name: os.getxattr(tmp_path / "d/f", name) for name in os.listxattr(tmp_path / "d/f")} == now


def test_the_second_time_only_what_changed_is_asked_for_and_what_is_gone_goes(tmp_path: Path):
    """E1."""
    receive(tmp_path / "t", *WHOLE, contents=CONTENTS)
    (tmp_path / "t/d/left").mkdir()
    script = receive(
        tmp_path / "t",
        entry("a", 0o700, size=1, modTime=10**18),
        entry("d", LINK | 0o777, linkname="a"),
        entry("d.txt", 0o644, size=2, modTime=10**18 + 1),
        END,
        contents={2: b"hi"},
    )

    assert script.asked == [2]
    assert tree(tmp_path / "t") == {"a": "-rwx------ x", "d": "lrwxrwxrwx a", "d.txt": "-rw-r--r-- hi"}


@pytest.mark.parametrize(
    ("packets", "words"),
    [
        ([entry("../x")], "impossible path"),
        ([entry("/etc/passwd")], "impossible path"),
        ([entry("a//b")], "impossible path"),
        ([entry("a\0b")], "impossible path"),
        ([entry("n" * 300)], "too long"),
        ([entry("d/x", size=1)], "without its directory"),
        ([entry("b"), entry("a")], "out of order"),
        ([entry("a"), entry("a")], "out of order"),
        ([entry("l", LINK, linkname="/etc"), entry("l/x")], "without its directory"),
        ([entry("f"), entry("f/x")], "without its directory"),
        ([entry("h", linkname="nothing", size=1)], "did not send"),
        ([entry("c", DEVICE | 0o600)], "device"),
        ([entry("x", 1 << 19)], "unknown type"),
        ([entry("x", size=-1)], "impossible metadata"),
        ([entry("l", LINK)], "link to nothing"),
        ([Packet(type=DATA, ID=7, data=b"x")], "not asked for"),
        ([END, END], "before its end"),
        ([entry("a", size=1), END, Packet(type=DATA, ID=0, data=b"x")], "before its end"),
        ([Packet(type=ERROR, data=b"no disk")], "no disk"),
        ([Packet(type=REQUEST, ID=1)], "not its to send"),
    ],
)
def test_what_a_client_must_not_send_ends_the_transfer(tmp_path: Path, packets: list[Packet], words: str):
    """Faults 6: a path out of the directory, a link and then a file beneath it, unsorted paths, sizes that lie."""
    if words == "before its end" and len(packets) == 2:
        packets = [entry("a", size=1), *packets]
    with pytest.raises(ProtocolError, match=words):
        receive(tmp_path / "t", *packets)

    receive(tmp_path / "t", *WHOLE, contents=CONTENTS)  # and the directory is as good as before
    assert "d/f" in tree(tmp_path / "t")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t"]


def test_what_is_more_than_was_said_does_not_count_and_what_is_less_is_asked_for_again(tmp_path: Path):
    listed = (entry("a", size=2, modTime=10**18), entry("b", size=9, modTime=10**18), END)
    receive(tmp_path / "t", *listed, contents={0: b"abcdef", 1: b"short"})
    assert tree(tmp_path / "t") == {"a": "-rw-r--r-- ab", "b": "-rw-r--r-- short"}

    assert receive(tmp_path / "t", *listed, contents={1: b"123456789"}).asked == [1]


_NAMES = st.sampled_from(["a", "b", "a/b", "a/../b", "..", "", "a/b/c", "l/x", "/", "b\0", "l"])
_MODES = st.sampled_from([0o644, 0o777, DIR | 0o755, LINK | 0o777, PIPE, DEVICE, (1 << 32) - 1])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.builds(
                lambda path, mode, size, link: entry(path, mode, size=size, linkname=link),
                _NAMES,
                _MODES,
                st.integers(-1, 5),
                st.sampled_from(["", "a", "../../out", "/etc/passwd"]),
            ),
            st.builds(
                lambda kind, number, data: Packet(type=kind, ID=number, data=data),
                st.integers(0, 4),
                st.integers(0, 5),
                st.binary(max_size=4),
            ),
        ),
        max_size=12,
    )
)
def test_whatever_comes_stays_in_the_directory(tmp_path_factory: pytest.TempPathFactory, packets: list[Packet]):
    folder = tmp_path_factory.mktemp("x")
    (folder / "out").write_text("mine")
    try:
        receive(folder / "t", *packets, END)
    except Error:
        pass

    assert {path.name for path in folder.iterdir()} <= {"t", "out"}
    assert (folder / "out").read_text() == "mine"
