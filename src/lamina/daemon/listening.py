"""Sockets on which clients are waited for.

Whoever may connect may do what the daemon may: a unix socket belongs to its owner and group, and without TLS (which
this server does not speak) TCP stays on this machine.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lamina.errors import InputError, MachineError

_BACKLOG = 128
_MODE = 0o660


def listen(address: str) -> socket.socket:
    """Return a listening socket for `unix:///path` or `tcp://127.0.0.1:port`.

    Raises:
        InputError: it is neither; MachineError: it cannot be listened on.
    """
    scheme, separator, rest = address.partition("://")
    if separator and scheme == "unix" and rest.startswith("/"):
        return _unix(rest)
    host, colon, port = rest.rpartition(":")
    if separator and scheme == "tcp" and colon and port.isascii() and port.isdecimal() and int(port) < 1 << 16:
        return _tcp(host.removeprefix("[").removesuffix("]"), int(port), address)
    raise InputError(f"not an address: {address!r}", hint="unix:///path or tcp://127.0.0.1:port")


@contextmanager
def listening(addresses: Sequence[str]) -> Iterator[list[socket.socket]]:
    """Listen on addresses for as long as the block lasts; socket files go in the end.

    Raises:
        InputError: what is no address; MachineError: one that cannot be listened on.
    """
    with ExitStack() as stack:
        listeners = []
        for address in addresses:
            listeners.append(stack.enter_context(listen(address)))
            if address.startswith("unix://"):
                stack.callback(Path(address.removeprefix("unix://")).unlink, missing_ok=True)
        yield listeners


def _unix(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(path)
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        # nobody may connect before the socket has its mode: its directory entry is made by a rename
        early = f"{path}.{os.getpid()}"
        listener.bind(early)
        os.chmod(early, _MODE)
        listener.listen(_BACKLOG)
        os.rename(early, path)
    except OSError as error:
        listener.close()
        raise MachineError(f"cannot listen on unix://{path}: {error.strerror or error}") from error
    return listener


def _remove_stale(path: str) -> None:
    """Remove the socket of a daemon that died; one that lives keeps its own."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "there is something else of that name")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, "another daemon listens there")


def _tcp(host: str, port: int, address: str) -> socket.socket:
    try:
        is_here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise InputError(f"not an address of this machine: {address!r}", hint="tcp://127.0.0.1:port") from error
    if not is_here:
        hint = "listen on a unix socket, and let clients come by ssh: DOCKER_HOST=ssh://..."
        raise InputError(f"{address}: whoever can reach it would rule this machine", hint=hint)
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
    except OSError as error:
        raise MachineError(f"cannot listen on {address}: {error.strerror or error}") from error
