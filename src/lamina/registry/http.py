"""One HTTP request and its answer: connection pools, TLS, proxies, time limits, cancelling. Touches sockets.

In comes a `Request`; out comes a `Response` whose body is read in pieces, or a `TransportError`. No redirects,
no retries, no authentication here: see `exchange.py`. urllib3 is imported with the first request. A `Response`
must be closed (it is a context manager); what was read to its end goes back to the pool, anything else is dropped.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.registry.failures import TransportError
from lamina.registry.options import RegistryOptions
from lamina.registry.trust import bypasses_proxy, origin_of
from lamina.registry.wire import printable

if TYPE_CHECKING:
    import urllib3

CHUNK = 256 << 10
"""Bytes asked of the kernel at once when receiving."""


class Body(Protocol):
    """A request body that is read once; its length is in the `Content-Length` header."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, b"" at the end."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `verify` False accepts any certificate; `idle_s` overrides how long to wait for the answer."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Body | None = None
    verify: bool = True
    connect_s: float | None = None
    idle_s: float | None = None


class Response:
    """The answer to one request; used by one thread."""

    def __init__(
        self, raw: urllib3.BaseHTTPResponse, request: Request, options: RegistryOptions, cancel: Cancel
    ) -> None:
        self._raw = raw
        self._cancel = cancel
        self._limits = options.timeouts
        self._bare = request.method == "HEAD" or raw.status in (204, 304)
        self._ended = False
        self._window_start, self._window_bytes = time.monotonic(), 0
        self.status = raw.status
        self.url = request.url

    def header(self, name: str) -> str:
        """Return a header's value, "" when it is absent."""
        return str(self._raw.headers.get(name, ""))

    def header_values(self, name: str) -> list[str]:
        """Return all values of a header that may stand more than once."""
        return [str(value) for value in self._raw.headers.getlist(name)]

    def content_length(self) -> int | None:
        """Return the `Content-Length`, None when absent or unreadable."""
        text = self.header("Content-Length").strip()
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None

    def read_piece(self, *, decode: bool = False) -> bytes:
        """Return the next piece of the body as soon as there is one, b"" at the end.

        Args:
            decode: undo the `Content-Encoding`; the same for all pieces of one answer.

        Raises:
            TransportError: the connection was cut, stalled or too slow.
            CancelledError: cancelled meanwhile.
        """
        if self._bare or self._ended:
            return b""
        self._cancel.check()
        try:
            piece = self._read(decode)
        except Exception as error:
            self._cancel.check()
            raise fault_of(error) from error
        self._cancel.check()
        if not piece:
            self._ended = True
        self._keep_pace(len(piece))
        return piece

    def _read(self, decode: bool) -> bytes:
        """Read one piece; a decoder may swallow input without giving output, so ask until the body ends."""
        while True:
            with self._cancel.closing(self._shut):
                piece: bytes = self._raw.read1(CHUNK, decode_content=decode)
            if piece or not decode or self._raw.closed:
                return piece

    def _shut(self) -> None:
        """Wake a thread that reads the body; the pool may have let go of the connection already."""
        try:
            self._raw.shutdown()
        except (OSError, ValueError, RuntimeError, AttributeError):
            pass

    def _keep_pace(self, count: int) -> None:
        """Refuse a body that trickles: a window of `idle_s` must bring `min_bytes_per_s` on average."""
        self._window_bytes += count
        now = time.monotonic()
        elapsed = now - self._window_start
        if elapsed < self._limits.idle_s or self._ended:
            return
        if self._window_bytes < self._limits.min_bytes_per_s * elapsed:
            detail = f"the server sent only {self._window_bytes} bytes in {elapsed:.0f} s"
            raise TransportError("timeout", detail, retryable=True)
        self._window_start, self._window_bytes = now, 0

    def read(self, limit: int, *, what: str = "the answer") -> bytes:
        """Return the whole body, decoded, of at most `limit` bytes.

        Raises:
            TransportError: it is longer (not retryable), or the connection failed.
        """
        pieces: list[bytes] = []
        total = 0
        while piece := self.read_piece(decode=True):
            total += len(piece)
            if total > limit:
                raise TransportError("protocol", f"{what} is longer than {limit} bytes", retryable=False)
            pieces.append(piece)
        return b"".join(pieces)

    def read_error(self, limit: int) -> bytes:
        """Return up to `limit` bytes of an error's body; whatever goes wrong meanwhile just ends it."""
        pieces: list[bytes] = []
        total = 0
        try:
            while total < limit and (piece := self.read_piece(decode=True)):
                pieces.append(piece)
                total += len(piece)
        except TransportError:
            pass
        return b"".join(pieces)[:limit]

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else drop it."""
        if self._bare and not self._cancel.is_cancelled():
            self._raw.drain_conn()
        if self._ended or self._bare:
            self._raw.release_conn()
        else:
            self._raw.close()

    def __enter__(self) -> Response:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Transport:
    """Sends requests. Thread-safe; close it to close its connections.

    Args:
        options: trust, proxies, time limits.
        cancel: cancelling shuts every connection and makes every call raise `CancelledError`.
    """

    def __init__(self, options: RegistryOptions, cancel: Cancel) -> None:
        self._options = options
        self._cancel = cancel
        self._lock = threading.Lock()
        self._managers: dict[tuple[str, str, bool], urllib3.PoolManager] = {}
        self._live: Any = None
        self._forget: Any = None

    def send(self, request: Request) -> Response:
        """Send one request and return its answer once its head is here.

        Raises:
            TransportError: no answer; its kind says why.
            CancelledError: cancelled meanwhile.
            InputError: the CA bundle, client certificate or proxy setting cannot be used.
        """
        self._cancel.check()
        manager = self._manager(request)
        import urllib3

        limits = self._options.timeouts
        timeout = urllib3.Timeout(connect=request.connect_s or limits.connect_s, read=request.idle_s or limits.idle_s)
        headers = {"User-Agent": self._options.user_agent, "Accept-Encoding": "identity", **request.headers}
        try:
            raw = manager.urlopen(
                request.method,
                request.url,
                headers=headers,
                body=request.body,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=timeout,
            )
        except BodyError as error:
            raise error.cause from error
        except Exception as error:
            self._cancel.check()
            raise fault_of(error) from error
        return Response(raw, request, self._options, self._cancel)

    def _manager(self, request: Request) -> urllib3.PoolManager:
        """Return the pools for a request: they differ by proxy, certificate checking and client certificate."""
        from lamina.registry.connections import LiveSockets, make_manager, make_tls_context

        scheme, host, port = origin_of(request.url)
        netloc = urlsplit(request.url).netloc
        proxies = self._options.proxies
        proxy = proxies.https if scheme == "https" else proxies.http
        if proxy and bypasses_proxy(host, port, proxies.no_proxy):
            proxy = ""
        has_own = netloc in self._options.client_certs or netloc in self._options.host_ca
        own = netloc if has_own else ""
        key = (proxy, own or scheme, request.verify)
        with self._lock:
            if self._live is None:
                self._live = LiveSockets()
                self._forget = self._cancel.on_cancel(self._live.shut_all)
            manager = self._managers.get(key)
            if manager is None:
                try:
                    tls = make_tls_context(self._options, own, verify=request.verify) if scheme == "https" else None
                    manager = make_manager(self._options, self._live, tls=tls, proxy=proxy)
                except (OSError, ValueError) as error:
                    hint = "check the CA bundle, the client certificate and the proxy setting"
                    raise InputError(f"cannot set up the connection: {error}", where=netloc, hint=hint) from error
                self._managers[key] = manager
        return manager

    def close(self) -> None:
        """Close idle connections; those in use close with their answers."""
        with self._lock:
            managers = list(self._managers.values())
            self._managers.clear()
            if self._forget is not None:
                self._forget()
        for manager in managers:
            # `clear` alone leaves the sockets to the garbage collector.
            for key in list(manager.pools.keys()):
                pool = manager.pools.get(key)
                if pool is not None:
                    pool.close()
            manager.clear()


class BodyError(Exception):
    """Carries an error of our own out of a request body, past the HTTP library, unchanged."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def fault_of(error: Exception) -> TransportError:
    """Return the fault that an exception of the HTTP library, of TLS or of the socket stands for."""
    if isinstance(error, TransportError):
        return error
    from urllib3 import exceptions as http

    if isinstance(error, http.ProxyError):
        return TransportError("proxy", f"the proxy failed: {_cause_text(error)}", retryable=False)
    if isinstance(error, http.NameResolutionError):
        again = "temporary" in str(error).lower()
        return TransportError("dns", "the host name cannot be resolved", retryable=again)
    if isinstance(error, http.NewConnectionError):
        text = _cause_text(error)
        refused = "refused" in text.lower()
        return TransportError(
            "refused", "connection refused" if refused else f"cannot connect: {text}", retryable=False
        )
    if isinstance(error, http.ConnectTimeoutError):
        return TransportError("timeout", "no connection within the time limit", retryable=False)
    if isinstance(error, http.ReadTimeoutError) or isinstance(_root(error), TimeoutError):
        return TransportError("timeout", "the server stopped answering", retryable=True)
    if isinstance(error, http.SSLError) or type(error).__module__ == "ssl":
        return TransportError("tls", f"TLS failed: {_cause_text(error)}", retryable=False)
    if isinstance(error, (http.InvalidHeader, http.LocationValueError, http.DecodeError)):
        return TransportError("protocol", f"broken answer: {_cause_text(error)}", retryable=False)
    if isinstance(error, (http.HTTPError, OSError, ValueError)):
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            return TransportError("cut", f"cannot open a connection: {error.strerror}", retryable=True)
        return TransportError("cut", f"the connection was cut: {_cause_text(error)}", retryable=True)
    raise error


def _root(error: BaseException) -> BaseException:
    """Return the innermost reason that an exception names."""
    for _ in range(5):
        inner = getattr(error, "original_error", None) or error.__cause__ or error.__context__
        if inner is None:
            inner = next((arg for arg in error.args if isinstance(arg, BaseException)), None)
        if inner is None:
            break
        error = inner
    return error


def _cause_text(error: BaseException) -> str:
    """Return one line on the innermost reason that an exception names."""
    root = _root(error)
    text = getattr(root, "verify_message", "") or getattr(root, "strerror", None) or str(root) or type(root).__name__
    return printable(str(text), 200)
