"""`--ssh ID=KEYFILE,...`: an SSH agent of our own, that holds just these keys and lives as long as the build.

In: paths of private keys. Out: the socket of an agent. The agent is OpenSSH's, which knows every format of keys; none
is read here. It runs a small command that loads the keys, waits at a pipe for us to go, and then ends the agent. So
nothing outlives a build that is killed.

A key with a passphrase is refused: nobody is asked for anything while a build runs.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lamina.errors import InputError, MachineError

_LOAD = r"""ssh-add -q -- "$@" < /dev/null 2>&1; printf '\n= %s\n' $?; cat > /dev/null; kill $SSH_AGENT_PID"""
_MAX_SAID = 1 << 16


class KeyAgent:
    """An agent with some keys.

    Args:
        ssh_id: the agent's id, for messages.
        keys: private key files.
        search_path: where the programs of OpenSSH are.

    Attributes:
        socket: where it listens.

    Raises:
        InputError: a key cannot be loaded.
        MachineError: OpenSSH is not installed.
    """

    def __init__(self, ssh_id: str, keys: Sequence[str], search_path: str) -> None:
        program = shutil.which("ssh-agent", path=search_path)
        if program is None or shutil.which("ssh-add", path=search_path) is None:
            raise MachineError("there is no ssh-agent here to hold keys", hint="apt-get install openssh-client")
        self._folder = tempfile.mkdtemp(prefix="lamina-ssh-")
        self.socket = Path(self._folder, "agent")
        command = [program, "-a", str(self.socket), "/bin/sh", "-c", _LOAD, "sh", *keys]
        # a session of its own, and nothing to read: without a terminal nobody can be asked for a passphrase
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": search_path, "HOME": self._folder},
            start_new_session=True,
        )
        try:
            self._wait_loaded(ssh_id)
        except BaseException:
            self.close()
            raise

    def _wait_loaded(self, ssh_id: str) -> None:
        """Read what ssh-add says, up to its exit code."""
        assert self._process.stdout is not None
        said: list[str] = []
        for line in iter(lambda: self._process.stdout.readline(_MAX_SAID), b""):  # type: ignore[union-attr]
            text = line.decode("utf-8", "replace").rstrip("\n")
            if text == "= 0":
                return
            if text.startswith("= "):
                break
            said = [*said, text][-8:] if text else said
        raise InputError(
            f"--ssh {ssh_id}: a key cannot be loaded: {'; '.join(said) or 'ssh-agent does not start'}",
            hint="a key with a passphrase has to be in an agent already: ssh-add FILE, then --ssh default",
        )

    def close(self) -> None:
        """End the agent and forget the keys; more than once is fine."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
