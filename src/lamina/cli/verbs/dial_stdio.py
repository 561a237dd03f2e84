"""`lamina dial-stdio`: standard input and output as a connection to the daemon, for tunnels such as ssh."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from argparse import ArgumentParser, Namespace

_CHUNK_BYTES = 256 << 10


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    add = parser.add_argument
    add("--addr", default="", metavar="ADDR", help="unix:///path or tcp://host:port (LAMINA_HOST, BUILDKIT_HOST)")


def run(args: Namespace) -> int:
    """Carry bytes both ways until both sides have ended, and return the exit code."""
    import socket
    import threading

    from lamina.errors import InputError, NetworkError

    environ = os.environ
    address = args.addr or environ.get("LAMINA_HOST") or environ.get("BUILDKIT_HOST") or _default()
    scheme, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    try:
        if scheme == "unix" and rest:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(rest)
        elif scheme == "tcp" and host and port.isdecimal():
            connection = socket.create_connection((host.strip("[]"), int(port)))
        else:
            raise InputError(f"not an address: {address!r}", hint="unix:///path or tcp://host:port")
    except OSError as error:
        raise NetworkError(f"no daemon answers: {error.strerror or error}", where=address) from error
    with connection:
        threading.Thread(target=_send, args=(connection,), daemon=True).start()
        while data := connection.recv(_CHUNK_BYTES):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]
    return 0


def _send(connection: socket.socket) -> None:
    import socket

    try:
        while data := os.read(0, _CHUNK_BYTES):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the daemon has gone, which the other direction finds out


def _default() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.geteuid() and runtime:
        return f"unix://{runtime}/lamina/lamina.sock"
    return "unix:///run/lamina/lamina.sock"
