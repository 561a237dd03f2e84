"""Ordinary users: run again inside a user namespace where we are root, before anything that needs it."""

from __future__ import annotations

import os
import sys


def enter_user_namespace() -> None:
    """Return at once for root; otherwise replace this process by itself in a user namespace.

    The state directory is fixed before, because there uid 0 would name another default. The new process starts
    over with the same command line.

    Raises:
        MachineError: this machine allows no user namespaces, or gives this user no subordinate ids.
    """
    if os.geteuid() == 0:
        return
    from lamina.cli.environment import state_root
    from lamina.executor.userns import exec_in_user_namespace

    environ = {**os.environ, "LAMINA_ROOT": state_root()}
    exec_in_user_namespace([sys.executable, "-m", "lamina", *sys.argv[1:]], environ)
