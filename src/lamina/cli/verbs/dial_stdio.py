"""`lamina dial-stdio`: standard input and output as a connection to the daemon, for tunnels such as ssh."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from argparse import ArgumentParser, Namespace

_CHUNK_BYTES = 256 << 10
_PATIENCE_S = 20.0


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    add = parser.add_argument
    add("--addr", default="", metavar="ADDR", help="unix:///path or tcp://host:port (LAMINA_HOST, BUILDKIT_HOST)")


def run(args: Namespace) -> int:
    """Carry bytes both ways until the daemon has ended, and return the exit code.

    Raises:
        InputError: not an address; NetworkError: nobody listens there, or the connection broke.
    """
    import threading

    from lamina.cli.environment import default_address
    from lamina.errors import NetworkError

    environ = os.environ
    address = args.addr or environ.get("LAMINA_HOST") or environ.get("BUILDKIT_HOST") or default_address()
    with _connect(address) as connection:
        threading.Thread(target=_send, args=(connection,), daemon=True).start()
        while True:
            try:
                data = connection.recv(_CHUNK_BYTES)
            except OSError as error:
                what = f"the daemon's connection broke: {error.strerror or error}"
                raise NetworkError(what, where=address) from error
            if not data:
                return 0
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]


def _connect(address: str) -> socket.socket:
    import socket

    from lamina.errors import InputError, NetworkError

    scheme, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    try:
        if scheme == "unix" and rest:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.settimeout(_PATIENCE_S)
                connection.connect(rest)
            except BaseException:
                connection.close()
                raise
        elif scheme == "tcp" and host and port.isascii() and port.isdecimal() and int(port) < 1 << 16:
            connection = socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S)
        else:
            raise InputError(f"not an address: {address!r}", hint="unix:///path or tcp://host:port")
    except OSError as error:
        raise NetworkError(f"no daemon answers: {error.strerror or error}", where=address) from error
    connection.settimeout(None)
    return connection


def _send(connection: socket.socket) -> None:
    import socket

    try:
        while data := os.read(0, _CHUNK_BYTES):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the daemon has gone, which the other direction finds out
