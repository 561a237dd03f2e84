"""Sockets on which clients are waited for.

Whoever may connect may do what the daemon may: a unix socket belongs to its owner and group, and TCP stays on this
machine unless clients have to show certificates.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from lamina.config.buildkitd import TlsFiles
from lamina.daemon.unix_socket import unix_listener
from lamina.errors import InputError, MachineError
from lamina.rpc.server import Wrap
from lamina.rpc.tls import server_context, tls_wrap
from lamina.tunnel.streams import SocketStream

_BACKLOG = 128


@contextmanager
def listening(
    addresses: Sequence[str],
    *,
    tls: TlsFiles | None = None,
    inherited: Sequence[int] = (),
    uid: int | None = None,
    gid: int | None = None,
) -> Iterator[list[tuple[socket.socket, Wrap]]]:
    """Listen on addresses for as long as the block lasts; socket files go in the end.

    Args:
        tls: for tcp; with authorities, clients from everywhere may come that have a certificate of theirs.
        inherited: descriptors of sockets that `fd://` means.
        uid: owner of socket files, and `gid` their group; None for this process's.

    Yields:
        sockets, each with what makes a stream of its connections.

    Raises:
        InputError: what is no address; MachineError: one that cannot be listened on.
    """
    wrap: Wrap = tls_wrap(server_context(tls.cert, tls.key, tls.ca)) if tls is not None else SocketStream
    asks_for_certificates = tls is not None and bool(tls.ca)
    with ExitStack() as stack:
        listeners: list[tuple[socket.socket, Wrap]] = []
        for address in addresses:
            if address.startswith("fd://"):
                for one in _inherited(inherited, address):
                    stack.enter_context(one)
                    listeners.append((one, SocketStream if one.family == socket.AF_UNIX else wrap))
                    _check_reach(one, asks_for_certificates)
                continue
            if address.startswith("unix:///"):
                path = address.removeprefix("unix://")
                listeners.append((stack.enter_context(unix_listener(path, uid=uid, gid=gid)), SocketStream))
            else:
                listener = stack.enter_context(_tcp(address, everywhere=asks_for_certificates))
                listeners.append((listener, wrap))
        yield listeners


def _inherited(descriptors: Sequence[int], address: str) -> list[socket.socket]:
    if not descriptors:
        raise InputError(
            f"{address}: nobody handed a socket to this process", hint="start it by a systemd .socket unit"
        )
    found = []
    for descriptor in descriptors:
        try:
            one = socket.socket(fileno=descriptor)
            one.setblocking(True)
        except OSError as error:
            raise InputError(f"{address}: descriptor {descriptor} is no socket") from error
        found.append(one)
    return found


def _check_reach(one: socket.socket, asks_for_certificates: bool) -> None:
    """Refuse a socket that others than this machine's reach, unless they have to show certificates.

    Raises:
        InputError: it is one.
    """
    if one.family == socket.AF_UNIX or asks_for_certificates:
        return
    host = str(one.getsockname()[0]) if one.family in (socket.AF_INET, socket.AF_INET6) else ""
    if not host or not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        hint = "ask for certificates (--tlscert --tlskey --tlscacert), or hand over a unix socket"
        raise InputError(f"fd://: whoever can reach {host or 'this socket'} would rule this machine", hint=hint)


def _tcp(address: str, *, everywhere: bool) -> socket.socket:
    """Return a listening socket for `tcp://127.0.0.1:port`; for other addresses too, if `everywhere`."""
    scheme, _, rest = address.partition("://")
    host, colon, text = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if scheme != "tcp" or not colon or not text.isascii() or not text.isdecimal() or int(text) >= 1 << 16:
        raise InputError(f"not an address: {address!r}", hint="unix:///path or tcp://127.0.0.1:port")
    port = int(text)
    try:
        is_here = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise InputError(f"not an address of this machine: {address!r}", hint="tcp://127.0.0.1:port") from error
    if not is_here and not everywhere:
        hint = "ask for certificates (--tlscert --tlskey --tlscacert), or let clients come to a unix socket by ssh"
        raise InputError(f"{address}: whoever can reach it would rule this machine", hint=hint)
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=_BACKLOG
        )
    except OSError as error:
        raise MachineError(f"cannot listen on {address}: {error.strerror or error}") from error
