"""What a signal would do to a process, told from the outside."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.executor.processes import children, first_process, has_begun, kill, would_end
from lamina.executor.wire import dump_signal, parse_signal

SCRIPT = "import signal, sys; {}; print('ready', flush=True); sys.stdin.read()"


@contextmanager
def process(setup: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python that did `setup` and waits."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", SCRIPT.format(setup)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None and running.stdout.readline() == b"ready\n"
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize(
    ("setup", "ends"),
    [
        ("signal.signal(signal.SIGUSR1, signal.SIG_DFL)", True),
        ("signal.signal(signal.SIGUSR1, signal.SIG_IGN)", False),
        ("signal.signal(signal.SIGUSR1, print)", False),
        ("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])", False),
    ],
)
def test_only_what_nobody_takes_would_end(setup: str, ends: bool):
    with process(setup) as running:
        assert would_end(running.pid, signal.SIGUSR1) is ends


def test_signals_that_end_nothing():
    with process("pass") as running:
        assert not would_end(running.pid, signal.SIGWINCH) and not would_end(running.pid, signal.SIGCONT)


def test_a_process_that_has_gone(tmp_path):
    with process("pass") as running:
        pid = running.pid
        running.kill()
        running.wait()
        assert not would_end(pid, signal.SIGTERM)
        assert has_begun(pid, pid)
        assert children(pid) == []
        kill(pid)
    assert first_process(str(tmp_path)) == 0
    (tmp_path / "pid").write_text("")
    assert first_process(str(tmp_path)) == 0
    (tmp_path / "pid").write_text("17")
    assert first_process(str(tmp_path)) == 17


def test_the_runtime_is_not_yet_the_program():
    with process("pass") as one, process("pass") as other, subprocess.Popen(["cat"], stdin=subprocess.PIPE) as cat:
        assert not has_begun(one.pid, other.pid)
        while not has_begun(cat.pid, other.pid):
            pass  # posix_spawn may return before the new program is there
        assert cat.stdin is not None
        cat.stdin.close()


@given(st.integers(1, 64))
def test_a_signal_arrives_as_it_was_sent(number: int):
    assert parse_signal(dump_signal(number)) == number


@given(st.binary(max_size=80))
def test_other_messages_are_no_signals(data: bytes):
    assert 0 <= parse_signal(data) <= 64
    if not data.startswith(b"signal "):
        assert parse_signal(data) == 0
