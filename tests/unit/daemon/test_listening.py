"""Sockets of the daemon (E6, H17): whose they are, who is refused, and what is left of them."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from lamina.daemon import unix_socket
from lamina.daemon.listening import listening
from lamina.daemon.unix_socket import unix_listener
from lamina.errors import InputError, MachineError

HOLDER = "import sys; from lamina.daemon.unix_socket import *\nwith unix_listener(sys.argv[1]): print(1, flush=True); "


def dead_socket(path: Path) -> None:
    """Leave what a daemon leaves that was killed."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def test_a_socket_has_its_mode_and_leaves_nothing(tmp_path: Path):
    """Clients pass through its directory, and cannot list it, whatever the umask is."""
    path = tmp_path / "deep" / "s"
    before = os.umask(0o077)
    try:
        with unix_listener(str(path)):
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o711
            assert answers(path)
    finally:
        os.umask(before)

    assert names(path.parent) == []


def test_a_directory_that_was_there_keeps_its_mode(tmp_path: Path):
    (tmp_path / "d").mkdir(mode=0o750)
    with unix_listener(str(tmp_path / "d" / "s")):
        assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750


def test_a_dead_daemons_socket_is_replaced(tmp_path: Path):
    path = tmp_path / "s"
    dead_socket(path)
    dead_socket(tmp_path / "s.new")  # it died a moment earlier than that
    with unix_listener(str(path)):
        assert answers(path)
        assert names(tmp_path) == ["s", "s.lock"]

    assert names(tmp_path) == []


def test_a_killed_holder_is_followed_by_the_next(tmp_path: Path):
    path = tmp_path / "s"
    command = [sys.executable, "-c", HOLDER + "sys.stdin.read()", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"1\n"
        with pytest.raises(MachineError, match="another daemon"), unix_listener(str(path)):
            pass
        assert answers(path)
        holder.send_signal(signal.SIGKILL)
    assert names(tmp_path) == ["s", "s.lock"]
    with unix_listener(str(path)):
        assert answers(path)

    assert names(tmp_path) == []


def test_of_many_that_start_at_once_one_gets_the_address(tmp_path: Path):
    """A dead daemon's socket must not let two of them believe that it is theirs."""
    path = tmp_path / "s"
    dead_socket(path)
    start, done = threading.Barrier(8), threading.Barrier(8)
    got: list[int] = []
    refused: list[MachineError] = []

    def one(number: int) -> None:
        start.wait(20)
        with ExitStack() as stack:
            try:
                stack.enter_context(unix_listener(str(path)))
                got.append(number)
            except MachineError as error:
                refused.append(error)
            done.wait(20)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(got), len(refused)) == (1, 7)
    assert names(tmp_path) == []


def test_a_program_without_lock_that_listens_keeps_its_socket(tmp_path: Path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(MachineError, match="another daemon"), unix_listener(str(path)):
            pass
    assert names(tmp_path) == ["s"]


def test_one_that_does_not_come_to_answer_is_not_waited_for(tmp_path: Path):
    """Its queue is full: to connect would block for ever."""
    path = tmp_path / "s"
    with ExitStack() as stack:
        other = stack.enter_context(socket.socket(socket.AF_UNIX))
        other.bind(str(path))
        other.listen(0)
        try:
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        except BlockingIOError:
            pass
        with pytest.raises(MachineError, match="another daemon"), unix_listener(str(path)):
            pass


def test_in_the_end_another_ones_socket_stays(tmp_path: Path):
    """Somebody removed ours by hand and put another in its place."""
    path = tmp_path / "s"
    with unix_listener(str(path)):
        path.unlink()
        dead_socket(path)

    assert names(tmp_path) == ["s"]


def test_what_is_no_socket_stays_as_it_is(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(MachineError, match="something else"), unix_listener(str(tmp_path / "file")):
        pass
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(MachineError, match="something else"), unix_listener(str(tmp_path / "link")):
        pass

    assert (tmp_path / "file").read_text() == "mine"
    assert names(tmp_path) == ["file", "link"]


@pytest.mark.parametrize("fault", ["chmod", "rename"])
def test_one_that_cannot_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str):
    def fail(*_arguments: object) -> None:
        raise PermissionError(1, "no")

    monkeypatch.setattr(unix_socket.os, fault, fail)
    with pytest.raises(MachineError, match="cannot listen on unix://"), unix_listener(str(tmp_path / "s")):
        pass

    assert names(tmp_path) == []


def test_a_path_that_is_too_long_is_told(tmp_path: Path):
    with pytest.raises(MachineError, match="too long"), unix_listener(str(tmp_path / ("s" * 150))):
        pass

    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "address",
    [
        *("/run/x", "unix://x", "unix:x", "tcp://", "tcp://127.0.0.1", "http://127.0.0.1:1"),
        *("tcp://127.0.0.1:99999", "tcp://127.0.0.1:-1", "tcp://127.0.0.1:1_0", ""),
    ],
)
def test_what_is_no_address_is_refused(address: str):
    with pytest.raises(InputError, match="not an address"), listening([address]):
        pass


@pytest.mark.parametrize(
    "address", ["tcp://0.0.0.0:0", "tcp://192.0.2.1:2375", "tcp://example.com:2375", "tcp://[::]:0"]
)
def test_other_machines_are_not_let_in_without_tls(address: str):
    with pytest.raises(InputError), listening([address]):
        pass


def test_loopback_may_be_listened_on():
    with listening(["tcp://127.0.0.1:0"]) as ((listener, _),):
        assert listener.getsockname()[1] > 0


def test_when_one_of_several_addresses_fails_none_is_left(tmp_path: Path):
    with (
        pytest.raises(MachineError),
        listening([f"unix://{tmp_path / 'a'}", f"unix://{tmp_path / 'b'}", f"unix://{tmp_path / 'a'}"]),
    ):
        pass

    assert names(tmp_path) == []
