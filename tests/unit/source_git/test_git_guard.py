"""The guard: a command under it behaves as without, and does not outlive who asked for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from lamina.source import git_guard


def guarded(*command: str, **options: object) -> subprocess.Popen[bytes]:
    start = [sys.executable, "-I", "-S", git_guard.__file__, *command]
    return subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, **options)


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_exit_codes_come_through(script, code):
    with guarded("/bin/sh", "-c", script) as process:
        process.wait(60)
        assert process.returncode == code


def test_environment_and_output_come_through_and_input_is_empty():
    with guarded("/bin/sh", "-c", 'echo "$WHAT"; cat; wc -c', env={"WHAT": "this", "PATH": "/bin:/usr/bin"}) as process:
        assert process.stdout is not None
        assert process.stdout.read().split() == [b"this", b"0"]


def test_the_whole_group_goes_with_the_pipe():
    """What the command started in the background goes too: it holds the output open."""
    with guarded("/bin/sh", "-c", "sleep 1000 & echo started; wait") as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait(60) == -9


def test_a_program_that_is_not_there_is_an_error():
    with guarded("/no/such/program", stderr=subprocess.PIPE) as process:
        assert process.wait(60) != 0
        assert os.path.exists(git_guard.__file__)
