"""Downloads one URL into one file: conditional, redirected, retried, resumed, hashed. Network by `registry.http`.

In comes a URL with headers and what is known already; out comes the file, its digest and the headers that matter,
or the news that a known version still holds. Invariants: an Authorization header stays with the host it was meant
for, and once it was dropped on a redirect it stays dropped; the file and its hash hold the bytes of one version only
(a resumed download names that version by `If-Range`, RFC 9110 13.1.5, or starts over); the disk is the only bound
on length. What a server says never ends in a message unwashed, and neither do credentials or queries of URLs.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lamina.cancel import Cancel
from lamina.registry.backoff import Patience
from lamina.registry.failures import TransportError
from lamina.registry.http import Request, Response, Transport
from lamina.registry.options import RegistryOptions
from lamina.registry.trust import origin_of, redirect_fault
from lamina.registry.wire import MAX_ERROR, join_location, parse_retry_after
from lamina.source.http_file import Answer, Target, Watcher
from lamina.source.http_request import HttpError, plain_etag, show_url

MAX_REDIRECTS = 10
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_PASSING = frozenset((408, 429, 500, 502, 503, 504))


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
        with Target(into, download.url, watcher) as target:
            while True:
                before = target.offset
                try:
                    return self._attempt(download, target)
                except (TransportError, _PassingError) as failure:
                    patience.progressed(target.offset - before)
                    self._pause(download.url, failure, patience, watcher)

    def _attempt(self, download: Download, target: Target) -> Answer:
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


def _conditions(download: Download) -> dict[str, str]:
    if download.known:
        return {"If-None-Match": ", ".join(download.known)}
    return {"If-Modified-Since": download.known_date} if download.known_date else {}


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
