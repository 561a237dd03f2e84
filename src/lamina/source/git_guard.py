"""Runs one command and takes it along when the process that asked for it dies, however it dies.

Started as a program of its own, as the leader of its own session: `python -I -S git_guard.py PROGRAM ARGUMENT...`,
with a pipe as standard input whose other end only the asking process has. The command gets an empty standard input
and this program's environment and outputs; its exit code becomes this program's. When the pipe ends first, the whole
process group is killed: the command, what it started, and the guard.

Must not: import anything that takes time, or anything of lamina.
"""

from __future__ import annotations

import _thread
import os
import sys


def main(command: list[str]) -> int:
    """Run `command`; return its exit code, or 128 and the signal that ended it, as shells do."""
    pid = os.fork()  # one thread and hardly any memory: cheap and safe here
    if pid == 0:
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.execv(command[0], command)
    _thread.start_new_thread(_watch, ())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if code >= 0 else 128 - code


def _watch() -> None:
    """Wait for the end of standard input, then end the group."""
    while os.read(0, 1):
        pass
    os.killpg(0, 9)


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
