"""Sockets for the daemon's addresses."""

from __future__ import annotations

import os
import socket

from lamina.errors import InputError, MachineError

_BACKLOG = 512


def open_listener(address: str) -> socket.socket:
    """Return a socket that listens on `unix:///path` or `tcp://host:port`.

    Raises:
        InputError: it is neither; MachineError: it cannot be listened on.
    """
    scheme, separator, rest = address.partition("://")
    if separator and scheme == "unix" and rest.startswith("/"):
        return _open_unix(rest)
    host, _, port = rest.rpartition(":")
    if separator and scheme == "tcp" and host and port.isdecimal() and int(port) < 65536:
        return _open_tcp(host.strip("[]"), int(port))
    raise InputError(f"not an address: {address!r}", hint="unix:///path or tcp://host:port")


def _open_unix(path: str) -> socket.socket:
    """Listen on a socket file; one that nobody listens on any more is replaced."""
    os.makedirs(os.path.dirname(path), mode=0o711, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        if os.path.exists(path):
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(path) == 0:
                    raise MachineError(f"another daemon listens on {path}")
            os.unlink(path)
        listener.bind(path)
        os.chmod(path, 0o660)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise MachineError(f"cannot listen on {path}: {error.strerror}") from error
    except BaseException:
        listener.close()
        raise
    return listener


def _open_tcp(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=_BACKLOG, reuse_port=False)
    except OSError as error:
        raise MachineError(f"cannot listen on {host}:{port}: {error.strerror}") from error
