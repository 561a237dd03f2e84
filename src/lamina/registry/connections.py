"""urllib3 connections that can be cut from outside, and pools of them. Touches sockets.

Imports urllib3, so `http.py` imports this module only when the first request is made. What it adds to urllib3:
every socket, from before `connect` on, is known to a `LiveSockets`, so that cancelling a build wakes whatever
blocks in connect, TLS handshake, send or waiting for the head of an answer; and the head of an answer as a whole
(not only each piece) has a time limit. Must not decide anything about redirects, retries or authentication.
"""

from __future__ import annotations

import socket
import ssl
import threading
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from lamina.registry.options import RegistryOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLOCK = 64 << 10
"""Bytes handed to the kernel at once when sending; each such piece must be gone within the idle time."""


class LiveSockets:
    """The sockets of one transport that are open now. Thread-safe.

    Invariant: once `shut_all` ran, every socket added later is shut at once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._shut = False

    def add(self, sock: socket.socket) -> None:
        """Make `sock` known."""
        with self._lock:
            self._sockets.add(sock)
            shut = self._shut
        if shut:
            shut_socket(sock)

    def remove(self, sock: socket.socket) -> None:
        """Forget `sock`; it is closed by its owner."""
        with self._lock:
            self._sockets.discard(sock)

    def shut_all(self) -> None:
        """Shut every socket in both directions, which wakes the threads that block on them."""
        with self._lock:
            self._shut = True
            for sock in self._sockets:
                shut_socket(sock)


def shut_socket(sock: socket.socket) -> None:
    """Shut `sock` in both directions; not connected or already closed is fine."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


class _Guarded:
    """What both kinds of connection share: a second descriptor of the socket, by which it can be shut.

    TLS takes the first descriptor away while it shakes hands; the second stays ours until `close`.
    """

    live: LiveSockets
    idle_s: float
    _guard: socket.socket | None = None

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        self.sock.settimeout(self.idle_s)  # type: ignore[attr-defined]

    def request(self, *arguments: Any, **options: Any) -> None:
        # The library would send under the connect time limit, which is too short for a slow line.
        if self.sock is not None:  # type: ignore[attr-defined]
            vars(self)["timeout"] = self.idle_s
        super().request(*arguments, **options)  # type: ignore[misc]

    def _new_conn(self) -> socket.socket:
        host, port, timeout = self._dns_host, self.port, self.timeout  # type: ignore[attr-defined]
        self._drop_guard()
        try:
            sock = self._dial(host, port, timeout)
        except socket.gaierror as error:
            raise NameResolutionError(host, self, error) from error  # type: ignore[arg-type]
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"no answer within {timeout} s") from error
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error  # type: ignore[arg-type]
        self._guard = sock.dup()
        self.live.add(self._guard)
        return sock

    def _dial(self, host: str, port: int, timeout: float | None) -> socket.socket:
        """Connect to the first address of `host` that answers."""
        last: OSError = OSError(f"no address for {host}")
        for family, kind, protocol, _, address in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM):
            sock = socket.socket(family, kind, protocol)
            self.live.add(sock)
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.settimeout(timeout)
                sock.connect(address)
                return sock
            except OSError as error:
                sock.close()
                last = error
            finally:
                self.live.remove(sock)
        raise last

    def _drop_guard(self) -> None:
        guard, self._guard = self._guard, None
        if guard is not None:
            self.live.remove(guard)
            guard.close()

    def close(self) -> None:
        self._drop_guard()
        super().close()  # type: ignore[misc]

    def getresponse(self) -> Any:
        """Read the head of an answer, all of it within the read timeout."""
        guard, timeout = self._guard, self.timeout  # type: ignore[attr-defined]
        if guard is None or not isinstance(timeout, (int, float)):
            return super().getresponse()  # type: ignore[misc]
        late = threading.Event()

        def cut() -> None:
            late.set()
            shut_socket(guard)

        timer = threading.Timer(timeout, cut)
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()  # type: ignore[misc]
        except Exception as error:
            if late.is_set():
                raise TimeoutError("timed out") from error
            raise
        finally:
            timer.cancel()
        if late.is_set():
            # The end of the stream looks like the end of the head.
            response.close()
            raise TimeoutError("timed out")
        return response


def make_manager(
    options: RegistryOptions, live: LiveSockets, *, tls: ssl.SSLContext | None, proxy: str
) -> urllib3.PoolManager:
    """Return a pool manager whose connections are in `live`.

    Args:
        options: for the number of connections that are kept per host.
        live: where open sockets are made known.
        tls: context for https, None when only plain http is spoken.
        proxy: URL of the proxy, "" for none; its user and password are sent to it alone.
    """
    plain, secure = _pool_classes(live, options.timeouts.idle_s)
    common: dict[str, Any] = {"maxsize": options.connections_per_host + 4, "blocksize": BLOCK}
    if tls is not None:
        common["ssl_context"] = tls
        if tls.verify_mode == ssl.CERT_NONE:
            common["cert_reqs"] = "CERT_NONE"
            common["assert_hostname"] = False
    manager: urllib3.PoolManager
    if proxy:
        parsed = urllib3.util.parse_url(proxy)
        headers = urllib3.make_headers(proxy_basic_auth=_unquote(parsed.auth)) if parsed.auth else None
        manager = urllib3.ProxyManager(parsed._replace(auth=None).url, proxy_headers=headers, **common)
    else:
        manager = urllib3.PoolManager(**common)
    manager.pool_classes_by_scheme = {"http": plain, "https": secure}
    return manager


def _unquote(text: str) -> str:
    """Undo percent-encoding of `user:password`."""
    from urllib.parse import unquote

    return unquote(text)


def _pool_classes(sockets: LiveSockets, idle: float) -> tuple[type[HTTPConnectionPool], type[HTTPSConnectionPool]]:
    """Return pools whose connections belong to `sockets`."""

    class Plain(_Guarded, HTTPConnection):
        live = sockets
        idle_s = idle

    class Secure(_Guarded, HTTPSConnection):
        live = sockets
        idle_s = idle

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

        def _validate_conn(self, conn: Any) -> None:
            # The default warns about every unverified request; the user asked for it by name.
            if conn.is_closed:
                conn.connect()

    return PlainPool, SecurePool


def make_tls_context(options: RegistryOptions, host: str, *, verify: bool) -> ssl.SSLContext:
    """Return the TLS context for `host` (`host[:port]`): system trust, CA bundles, client certificates."""
    context = ssl.create_default_context()
    if options.ca is not None:
        _load(context.load_verify_locations, options.ca)
    for bundle in options.host_ca.get(host, ()):
        _load(context.load_verify_locations, bundle)
    for certificate, key in options.client_certs.get(host, ()):
        _load(context.load_cert_chain, certificate, key)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load(into: Callable[..., object], *paths: Path) -> None:
    """Load PEM files; a fault names them, which the library's own words do not."""
    try:
        into(*map(str, paths))
    except OSError as error:
        names = " with ".join(map(str, paths))
        raise ValueError(f"{names}: {error.strerror or 'not a PEM file of the right kind'}") from error
