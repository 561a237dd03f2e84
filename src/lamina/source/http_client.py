"""Downloads one URL into one file: conditional, redirected, retried, resumed, hashed. Network by `registry.http`.

In comes a URL with headers and what is known already; out comes the file, its digest and the headers that matter,
or the news that a known version still holds. Invariants: an Authorization header stays with the host it was meant
for, and once it was dropped on a redirect it stays dropped; the file and its hash hold the bytes of one version only
(a resumed download names that version by `If-Range`, RFC 9110 13.1.5, or starts over); the disk is the only bound
on length. What a server says never ends in a message unwashed, and neither do credentials or queries of URLs.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lamina.cancel import Cancel
from lamina.errors import NetworkError, StorageError
from lamina.layer.compress import decompressed
from lamina.layer.errors import CompressionError
from lamina.registry.backoff import Patience
from lamina.registry.failures import TransportError
from lamina.registry.http import Request, Response, Transport
from lamina.registry.options import RegistryOptions
from lamina.registry.trust import origin_of, redirect_fault
from lamina.registry.wire import MAX_ERROR, join_location, parse_content_range, parse_retry_after
from lamina.source.http_request import parse_http_date, plain_etag, show_url, strong_etag

MAX_REDIRECTS = 10
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_PASSING = frozenset((408, 429, 500, 502, 503, 504))
_STEP = 1 << 20
"""Bytes between two reports of progress."""


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told how a download goes.

    Attributes:
        on_bytes: bytes so far and bytes in all (0 when the server does not say).
        on_wait: in one line, why it waits.
    """

    on_bytes: Callable[[int, int], None] = lambda _now, _total: None
    on_wait: Callable[[str], None] = lambda _why: None


class HttpError(NetworkError):
    """A download failed. `status` is the HTTP status, 0 when there was no answer."""

    def __init__(self, what: str, *, url: str, hint: str = "", status: int = 0) -> None:
        super().__init__(what, where=show_url(url), hint=hint)
        self.status = status


class _PassingError(Exception):
    """An answer that may be better next time."""

    def __init__(self, error: HttpError, after_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.after_s = after_s


@dataclass(frozen=True, slots=True)
class Download:
    """What to download.

    Attributes:
        url: absolute, without user information.
        headers: to send wherever redirects lead.
        authorization: for the URL's own host only.
        known: ETags (without weakness mark) of versions that are at hand.
        known_date: `Last-Modified` of the version at hand, for servers without ETags; "" otherwise.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    authorization: str = field(default="", repr=False)
    known: tuple[str, ...] = ()
    known_date: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came.

    Attributes:
        unchanged: a known version still holds (`etag` says which, "" for the one of `known_date`); no file was made.
        digest: sha256 of the file, in hex.
        etag: without weakness mark, "" for none.
        modified: `Last-Modified` as it stands, "" when it is no date.
        disposition: `Content-Disposition` as it stands.
    """

    unchanged: bool
    digest: str = ""
    size: int = 0
    etag: str = ""
    modified: str = ""
    disposition: str = ""


class HttpClient:
    """Downloads. Thread-safe; `close()` closes its connections.

    Args:
        options: trust, proxies, time limits, patience (those of registries).
        cancel: cancelling ends every download with `CancelledError`.
    """

    def __init__(self, options: RegistryOptions, cancel: Cancel) -> None:
        self._options, self._cancel = options, cancel
        self._transport = Transport(options, cancel)

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def fetch(self, download: Download, into: Path, watcher: Watcher | None = None) -> Answer:
        """Download into the new file `into`, or find that a known version still holds.

        Raises:
            HttpError: the server cannot be reached, or does not give the file.
            StorageError: no room for it. In all cases of an error nothing is left at `into`.
            CancelledError: cancelled meanwhile.
        """
        patience = Patience(self._options.retries, random.random)
        watcher = watcher or Watcher()
        with _Target(into, download.url, watcher) as target:
            while True:
                before = target.offset
                try:
                    return self._attempt(download, target)
                except (TransportError, _PassingError) as failure:
                    patience.progressed(target.offset - before)
                    self._pause(download.url, failure, patience, watcher)

    def _attempt(self, download: Download, target: _Target) -> Answer:
        """Ask once, for all or for the rest, and write what comes."""
        response = self._follow(download, target.range_headers() or _conditions(download))
        with response:
            status = response.status
            etag, resumed = plain_etag(response.header("ETag")), target.offset > 0
            if not resumed and (status == 304 or (status == 200 and etag and etag in download.known)):
                return self._unchanged(download, response, etag)
            if status == 206 and resumed:
                target.check_range(response)
            elif 200 <= status < 300 and status != 206:
                target.restart(response)
            elif status == 416 and resumed:
                target.forget()
                raise _PassingError(HttpError("cannot resume the download", url=download.url, status=status))
            else:
                raise self._failure(response, download.url)
            target.receive(response)
            return target.finish()

    @staticmethod
    def _unchanged(download: Download, response: Response, etag: str) -> Answer:
        """Say which known version an answer means; a 304 without ETag means the only one that was named."""
        if not etag and len(download.known) == 1:
            etag = download.known[0]
        if etag not in download.known and not (download.known_date and not download.known):
            raise HttpError("the server says 'not modified' of a version that is not known", url=download.url)
        return Answer(True, etag=etag, disposition=response.header("Content-Disposition"))

    def _follow(self, download: Download, extra: Mapping[str, str]) -> Response:
        """Send the request and follow redirects; the caller closes the answer."""
        url, authorization = download.url, download.authorization
        for _ in range(MAX_REDIRECTS + 1):
            headers = {"Accept": "*/*", **download.headers, **extra}
            if authorization:
                headers["Authorization"] = authorization
            response = self._transport.send(Request("GET", url, headers))
            if response.status not in _REDIRECTS:
                return response
            with response:
                location = join_location(url, response.header("Location"))
                response.read_error(MAX_ERROR)
            if location is None:
                raise HttpError("redirected to nowhere sensible", url=url, status=response.status)
            if fault := redirect_fault(url, location):
                hint = f"it leads to {show_url(location)}: name that URL if you trust it"
                raise HttpError(f"redirect refused: {fault}", url=url, hint=hint, status=response.status)
            if not _same_host(url, location):
                authorization = ""
            url = location
        raise HttpError(f"redirected more than {MAX_REDIRECTS} times", url=download.url)

    def _pause(self, url: str, failure: TransportError | _PassingError, patience: Patience, watcher: Watcher) -> None:
        """Wait before the next attempt, or raise what `failure` means when none is due."""
        self._cancel.check()
        if isinstance(failure, TransportError):
            error, after = _explain(failure, url), None
            wait = patience.next_wait() if failure.retryable else None
        else:
            error, after = failure.error, failure.after_s
            wait = patience.next_wait(after)
        if wait is None:
            if patience.failures > 1:
                error.what += f" (tried {patience.failures} times)"
                error.args = (error.what,)
            raise error from failure
        watcher.on_wait(f"{error}; trying again in {wait:.0f} s")
        if self._cancel.wait(wait):
            self._cancel.check()

    @staticmethod
    def _failure(response: Response, url: str) -> HttpError | _PassingError:
        """Return what to raise for an answer with a failing status. Its body is a page for people: left unread."""
        status = response.status
        error = HttpError(f"the server answered {_words(status)}", url=url, hint=_hint(status, url), status=status)
        if status in _PASSING:
            return _PassingError(error, parse_retry_after(response.header("Retry-After"), time.time()))
        return error


class _Target:
    """The file under construction, with its hash and what names the version that its bytes come from."""

    def __init__(self, path: Path, url: str, watcher: Watcher) -> None:
        self._path, self._url, self._watcher = path, url, watcher
        try:
            self._file = open(path, "xb", buffering=0)  # noqa: SIM115 - closed in __exit__
        except OSError as error:
            raise StorageError(f"cannot keep the download: {error.strerror}", where=str(path.parent)) from error
        self._hash = hashlib.sha256()
        self._done = False
        self._total: int | None = None
        self._unpack = False
        self._validator = ""
        self._said = Answer(False)
        self.offset = 0

    def __enter__(self) -> _Target:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()
        if not self._done:
            self._path.unlink(missing_ok=True)

    def range_headers(self) -> dict[str, str]:
        """Return the headers that ask for the rest; without a name for the version all is asked for again."""
        if self.offset and not self._validator:
            self.forget()
        return {"Range": f"bytes={self.offset}-", "If-Range": self._validator} if self.offset else {}

    def forget(self) -> None:
        """Drop everything received."""
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.sha256()
        self.offset, self._total, self._validator = 0, None, ""

    def restart(self, response: Response) -> None:
        """Make ready for a whole body."""
        self.forget()
        # Nobody asked for an encoding; gzip is undone, as BuildKit's client does.
        self._unpack = response.header("Content-Encoding").strip().lower() in ("gzip", "x-gzip")
        self._total = None if self._unpack else response.content_length()
        self._validator = "" if self._unpack else _validator(response)
        self._said = _said(response)  # now, because a later partial answer may leave these headers out
        status = os.statvfs(self._path.parent)
        if self._total is not None and self._total > status.f_bavail * status.f_frsize:
            raise StorageError(f"a download of {self._total} bytes does not fit the disk", where=str(self._path.parent))

    def check_range(self, response: Response) -> None:
        """Accept a partial answer only if it is exactly the rest."""
        found = parse_content_range(response.header("Content-Range"))
        total = found.total if found is not None else None
        if (
            found is None
            or found.start != self.offset
            or (self._total is not None and total not in (None, self._total))
        ):
            self.forget()
            raise TransportError("protocol", "the server sent another part of the file than asked", retryable=True)
        self._total = found.end + 1 if total is None else total

    def receive(self, response: Response) -> None:
        """Write the body to its end."""
        total, told = self._total, self.offset
        for piece in self._pieces(response):
            if total is not None and self.offset + len(piece) > total:
                self.forget()
                raise TransportError("protocol", f"the server sent more than the {total} bytes it said", retryable=True)
            self._write(piece)
            if self.offset - told >= _STEP:
                told = self.offset
                self._watcher.on_bytes(told, total or 0)
        if total is not None and self.offset < total:
            raise TransportError("cut", f"the file ended after {self.offset} of {total} bytes", retryable=True)

    def _pieces(self, response: Response) -> Iterator[bytes]:
        pieces = iter(response.read_piece, b"")
        if not self._unpack:
            yield from pieces
            return
        try:
            yield from decompressed(_in_bites(pieces))
        except CompressionError as error:
            raise HttpError(f"the server's encoding is broken: {error.what}", url=self._url) from error

    def finish(self) -> Answer:
        """Keep the file."""
        self._done = True
        self._watcher.on_bytes(self.offset, self.offset)
        return replace(self._said, digest=self._hash.hexdigest(), size=self.offset)

    def _write(self, piece: bytes) -> None:
        view = memoryview(piece)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise StorageError(f"cannot keep the download: {error.strerror}", where=str(self._path.parent)) from error
        self._hash.update(piece)
        self.offset += len(piece)


def _said(response: Response) -> Answer:
    """Return what an answer's headers say of the file."""
    modified = response.header("Last-Modified")
    return Answer(
        False,
        etag=plain_etag(response.header("ETag")),
        modified=modified if parse_http_date(modified) is not None else "",
        disposition=response.header("Content-Disposition"),
    )


def _in_bites(pieces: Iterator[bytes]) -> Callable[[int], bytes]:
    """Return a function that reads on in `pieces`, up to so many bytes a call."""
    rest = b""

    def read(size: int) -> bytes:
        nonlocal rest
        rest = rest or next(pieces, b"")
        bite, rest = rest[:size], rest[size:]
        return bite

    return read


def _conditions(download: Download) -> dict[str, str]:
    if download.known:
        return {"If-None-Match": ", ".join(download.known)}
    return {"If-Modified-Since": download.known_date} if download.known_date else {}


def _validator(response: Response) -> str:
    """Return what names a version exactly: a strong ETag, or a date that was a minute old (RFC 9110 8.8.2.2)."""
    etag, modified = response.header("ETag"), response.header("Last-Modified")
    if etag:
        return strong_etag(etag)
    then, now = parse_http_date(modified), parse_http_date(response.header("Date"))
    return modified if then is not None and now is not None and now - then >= 60 else ""


def _same_host(one: str, other: str) -> bool:
    """Tell whether two URLs lead to one server: the same origin, or its https side."""
    mine, theirs = origin_of(one), origin_of(other)
    return mine == theirs or (mine[1] == theirs[1] and (mine[0], mine[2], theirs[0], theirs[2]) == _TO_TLS)


_TO_TLS = ("http", 80, "https", 443)


def _words(status: int) -> str:
    from http import HTTPStatus

    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _hint(status: int, url: str) -> str:
    host = origin_of(url)[1]
    if status in (401, 403):
        return f"if it needs credentials, give them as a secret: --secret id=HTTP_AUTH_TOKEN_{host},src=FILE"
    return "check the URL" if status in (404, 410) else ""


_HINTS = {
    "refused": "is the server running, and is the port right?",
    "dns": "check the name and the network; behind a company network, set a proxy",
    "timeout": "check the network, firewall and proxy settings",
    "cut": "the network or a proxy dropped the connection: try again",
    "proxy": "check the proxy settings and the proxy's user and password",
    "tls": "if its certificate is signed by a CA of your own, name that: LAMINA_CA_FILE=FILE",
}


def _explain(fault: TransportError, url: str) -> HttpError:
    return HttpError(fault.detail, url=url, hint=_HINTS.get(fault.kind, ""))
