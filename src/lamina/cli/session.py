"""The user's side of a build in this process: directories, secrets, SSH agents and credentials, read on demand."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from lamina.errors import InputError
from lamina.session import Credentials

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lamina.cli.ssh_keys import KeyAgent

MAX_SECRET = 500 << 10
"""Most bytes of a secret; BuildKit's limit."""


class LocalSession:
    """`lamina.session.Session` for a build whose user is this very process. Thread-safe. To be closed.

    Args:
        contexts: name to directory (`context`, and named contexts).
        secrets: id to ("file", path) or ("env", variable).
        ssh: id to an agent's socket, or to private keys, for which an agent is started when it is asked for.
        environ: where "env" secrets are read.
        credentials: from a registry's `host[:port]` to what opens it.
    """

    def __init__(
        self,
        contexts: Mapping[str, str],
        secrets: Mapping[str, tuple[str, str]],
        ssh: Mapping[str, str | tuple[str, ...]],
        environ: Mapping[str, str],
        credentials: Callable[[str], Credentials | None],
    ) -> None:
        self._contexts = dict(contexts)
        self._secrets = dict(secrets)
        self._ssh = dict(ssh)
        self._environ = environ
        self._credentials = credentials
        self._agents: dict[str, KeyAgent] = {}
        self._guard = threading.Lock()

    def close(self) -> None:
        """End the agents that were started for keys."""
        for agent in self._agents.values():
            agent.close()
        self._agents.clear()

    def context_dir(self, name: str, attrs: Mapping[str, str] | None = None) -> Path | None:
        """Return the live directory offered under `name`."""
        path = self._contexts.get(name, "")
        return Path(path) if path else None

    def secret(self, secret_id: str) -> bytes | None:
        """Return a secret's value, None when it was not offered.

        Raises:
            InputError: it cannot be read any more, or is larger than `MAX_SECRET`.
        """
        kind, source = self._secrets.get(secret_id, ("", ""))
        if not kind:
            return None
        if kind == "env":
            value = os.fsencode(self._environ.get(source, ""))
        else:
            try:
                with open(source, "rb") as file:
                    value = file.read(MAX_SECRET + 1)
            except OSError as error:
                raise InputError(f"secret {secret_id!r} cannot be read: {error.strerror}", where=source) from error
        if len(value) > MAX_SECRET:
            raise InputError(f"secret {secret_id!r} is larger than {MAX_SECRET >> 10} KiB")
        return value

    def ssh_socket(self, ssh_id: str) -> Path | None:
        """Return the path of an agent's socket, None when it was not offered.

        Raises:
            InputError: a key that was offered cannot be loaded.
        """
        offered = self._ssh.get(ssh_id, "")
        if isinstance(offered, str):
            return Path(offered) if offered else None
        from lamina.cli.ssh_keys import KeyAgent

        with self._guard:
            if ssh_id not in self._agents:
                search_path = self._environ.get("PATH") or os.defpath
                self._agents[ssh_id] = KeyAgent(ssh_id, offered, search_path)
            return self._agents[ssh_id].socket

    def credentials(self, host: str) -> Credentials | None:
        """Return what opens the registry at exactly `host`."""
        return self._credentials(host)


_HELPER_VARIABLES = ("HOME", "USER", "LANG", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "GNUPGHOME", "DISPLAY")


def stored_credentials(docker_config: Path, search_path: str) -> Callable[[str], Credentials | None]:
    """Return the look-up in docker's configuration; nothing is read before the first question."""
    found: list[Callable[[str], Credentials | None]] = []

    def lookup(host: str) -> Credentials | None:
        if not found:
            from lamina.registry.credentials import load_credentials

            helper_env = {name: os.environ[name] for name in _HELPER_VARIABLES if name in os.environ}
            found.append(load_credentials(docker_config, search_path, helper_env))
        return found[0](host)

    return lookup
