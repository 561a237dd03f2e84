"""TLS on a connection, at either end of it: a `ByteStream` of what is inside.

The library's TLS object is fed by hand, under a lock and never while the socket is waited for: a connection is read and
written by two threads at once, which its sockets do not allow.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable

from lamina.errors import InputError
from lamina.tunnel.streams import READ_SIZE, ByteStream, SocketStream

_HANDSHAKE_S = 20.0


def server_context(cert: str, key: str, ca: str) -> ssl.SSLContext:
    """Return the server's side of TLS; with `ca`, clients must show a certificate that it signed.

    Raises:
        InputError: a file cannot be read, or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    _load(cert, lambda: context.load_cert_chain(cert, key))
    if ca:
        _load(ca, lambda: context.load_verify_locations(cafile=ca))
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load(path: str, load: Callable[[], None]) -> None:
    try:
        load()
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or getattr(error, "reason", "") or type(error).__name__
        raise InputError(f"cannot be used for TLS: {reason}", where=path) from error


def tls_wrap(context: ssl.SSLContext) -> Callable[[socket.socket], ByteStream]:
    """Return what makes a stream of an accepted connection.

    Raises (when called):
        OSError: the client did not get through the handshake.
    """
    return lambda accepted: TlsStream(accepted, context)


class TlsStream:
    """The inside of a TLS connection. `tunnel.streams.ByteStream`.

    Args:
        connected: the connection, which belongs to this object when nothing is raised.
        server: whom this end is a client of, "" when it is the server.

    Raises:
        OSError: the handshake failed.
    """

    def __init__(self, connected: socket.socket, context: ssl.SSLContext, server: str = "") -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=not server, server_hostname=server or None)
        self._guard, self._sending = threading.Lock(), threading.Lock()
        self._socket = connected
        connected.settimeout(_HANDSHAKE_S)
        self._shake_hands()
        self._stream = SocketStream(connected)

    def send(self, data: bytes) -> None:
        """See `ByteStream`."""
        with self._sending:  # what is encrypted first goes first
            with self._guard:
                self._tls.write(data)
                out = self._out.read()
            self._stream.send(out)

    def receive(self) -> bytes:
        """See `ByteStream`."""
        while True:
            with self._guard:
                try:
                    return self._tls.read(READ_SIZE)
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError:
                    return b""
            self._flush()  # an answer of TLS itself
            data = self._stream.receive()
            if not data:
                return b""
            with self._guard:
                self._in.write(data)

    def close(self) -> None:
        """See `ByteStream`."""
        self._stream.close()

    def _flush(self) -> None:
        with self._sending:
            with self._guard:
                out = self._out.read()
            if out:
                self._stream.send(out)

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                done = False
            except ssl.SSLError:
                self._socket.sendall(self._out.read())  # the alert that says why
                raise
            if out := self._out.read():
                self._socket.sendall(out)
            if done:
                return
            data = self._socket.recv(READ_SIZE)
            if not data:
                raise ConnectionError("the other end went away in the handshake")
            self._in.write(data)
