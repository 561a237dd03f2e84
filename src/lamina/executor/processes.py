"""What the step helper has to know of processes: children, signals, who has begun. Reads /proc, sends signals.

See proc(5), signal(7), pid_namespaces(7). The helper imports this module, so it must stay light.
"""

from __future__ import annotations

import os
import signal

_ENDS = frozenset(
    (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM)
)


def children(pid: int) -> list[int]:
    """Return the pids of a process's children, [] when it has gone."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += [int(word) for word in file.read().split()]
    except (OSError, ValueError):
        pass
    return found


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal; a process that has gone is fine."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def first_process(home: str) -> int:
    """Return the pid that the runtime wrote into `home`, 0 as long as there is none."""
    try:
        with open(f"{home}/pid") as file:
            return int(file.read() or "0")
    except (OSError, ValueError):
        return 0


def has_begun(pid: int, runtime_pid: int) -> bool:
    """Tell whether process `pid` is the user's program by now, and no longer the runtime that prepares it.

    A signal in between would be lost, or taken by the runtime. A process that has gone has begun.
    """
    try:
        if os.readlink(f"/proc/{pid}/exe").startswith("/memfd:runc_cloned"):
            return False
        now, runtime = os.stat(f"/proc/{pid}/exe"), os.stat(f"/proc/{runtime_pid}/exe")
    except OSError:
        return True
    return (now.st_dev, now.st_ino) != (runtime.st_dev, runtime.st_ino)


def would_end(pid: int, number: int) -> bool:
    """Tell whether `number` would end a program that is not the first of its pid namespace.

    True when the signal is one that ends programs and this one neither catches, ignores nor blocks it.
    """
    if number not in _ENDS:
        return False
    try:
        with open(f"/proc/{pid}/status") as file:
            fields = dict(line.rstrip("\n").split(":", 1) for line in file if line.startswith("Sig"))
        return not any(int(fields[name], 16) >> (number - 1) & 1 for name in ("SigBlk", "SigIgn", "SigCgt"))
    except (OSError, ValueError, KeyError):
        return False
