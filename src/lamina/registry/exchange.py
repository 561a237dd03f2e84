"""Requests as a registry wants them: authorized, redirected, retried. Joins transport and authorization.

In comes an endpoint, a method and a path (or an absolute URL that the registry handed out); out comes a `Response`
that the caller closes. Invariants: an `Authorization` header goes to the endpoint's own origin only; a request is
authorized anew at most once; redirects are followed for GET and HEAD only, at most `MAX_REDIRECTS` times.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from lamina.cancel import Cancel
from lamina.registry.auth import Authorizer, CredentialSource, Scope
from lamina.registry.backoff import Patience
from lamina.registry.endpoint import Endpoint
from lamina.registry.failures import PassingError, RegistryError, TransportError, explain_transport, status_error
from lamina.registry.http import Body, Request, Response, Transport
from lamina.registry.options import RegistryOptions
from lamina.registry.trust import is_loopback, origin_of, redirect_fault, split_host
from lamina.registry.wire import MAX_ERROR, join_location, parse_error_body, parse_retry_after

MAX_REDIRECTS = 10
PROBE_S = 5.0
"""Seconds to find out whether a host that may speak plain http speaks TLS."""
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_PASSING = frozenset((408, 429, 500, 502, 503, 504))

T = TypeVar("T")
MakeBody = Callable[[], bytes | Body]


class Exchange:
    """Sends what the client asks for. Thread-safe.

    Args:
        options: see `RegistryOptions`.
        credentials: see `Authorizer`.
        cancel: stops everything.
        notify: is told, in one line, why something waits.
    """

    def __init__(
        self,
        options: RegistryOptions,
        credentials: CredentialSource,
        cancel: Cancel,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self.options = options
        self.cancel = cancel
        self._notify = notify
        self._transport = Transport(options, cancel)
        self._authorizer = Authorizer(options, self._transport, credentials)
        self._lock = threading.Lock()
        self._schemes: dict[str, str] = {}
        self._probing: dict[str, threading.Lock] = {}
        self._seats: dict[str, threading.BoundedSemaphore] = {}

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def patience(self) -> Patience:
        """Return the patience for one operation."""
        return Patience(self.options.retries, random.random)

    @contextmanager
    def seat(self, endpoint: Endpoint) -> Iterator[None]:
        """Hold one of the places for blob transfers with an endpoint; small requests need none."""
        with self._lock:
            seats = self._seats.get(endpoint.address)
            if seats is None:
                seats = threading.BoundedSemaphore(max(1, self.options.connections_per_host))
                self._seats[endpoint.address] = seats
        while not seats.acquire(timeout=0.1):
            self.cancel.check()
        try:
            yield
        finally:
            seats.release()

    def patiently(self, endpoint: Endpoint, attempt: Callable[[], T], patience: Patience | None = None) -> T:
        """Return what `attempt` returns, trying again after passing failures.

        Raises:
            RegistryError: a lasting failure, or the last one when patience ended.
        """
        patience = patience or self.patience()
        while True:
            try:
                return attempt()
            except (TransportError, PassingError) as failure:
                self.pause(endpoint, failure, patience)

    def pause(self, endpoint: Endpoint, failure: TransportError | PassingError, patience: Patience) -> None:
        """Wait before the next attempt.

        Raises:
            RegistryError: no further attempt is due.
            CancelledError: cancelled meanwhile.
        """
        self.cancel.check()
        if isinstance(failure, TransportError):
            error, after = explain_transport(failure, endpoint.registry, f"//{endpoint.address}"), None
            wait = patience.next_wait() if failure.retryable else None
        else:
            error, after = failure.error, failure.after_s
            wait = patience.next_wait(after)
        if wait is None:
            if patience.failures > 1:
                error.what += f" (tried {patience.failures} times)"
            raise error from failure
        if self._notify is not None:
            asked = ", as it asked" if after else ""
            self._notify(f"{endpoint.registry}: {error.what}; trying again in {wait:.0f} s{asked}")
        if self.cancel.wait(wait):
            self.cancel.check()

    def once(
        self,
        endpoint: Endpoint,
        method: str,
        target: str,
        scopes: Sequence[Scope] = (),
        *,
        headers: Mapping[str, str] | None = None,
        body: MakeBody | None = None,
        idle_s: float | None = None,
    ) -> Response:
        """Send one request and return the answer, whatever its status; the caller closes it.

        Args:
            endpoint: on whose behalf.
            method: HTTP method.
            target: path on the endpoint, or an absolute URL that it handed out.
            scopes: what a token must cover.
            headers: further headers.
            body: makes the body; called again when the request is sent again.
            idle_s: how long to wait for the answer, if other than usual.

        Raises:
            TransportError, PassingError: worth another attempt (or not, see `retryable`).
            RegistryError: a redirect or a token server that must not be followed.
        """
        url = target if "://" in target else self.base(endpoint) + target
        for _ in range(MAX_REDIRECTS + 1):
            response = self._authorized(endpoint, method, url, scopes, headers=headers or {}, body=body, idle_s=idle_s)
            if response.status not in _REDIRECTS or method not in ("GET", "HEAD"):
                return response
            with response:
                location = join_location(url, response.header("Location"))
                response.read_error(MAX_ERROR)
            if location is None:
                raise RegistryError("redirected to nowhere sensible", kind="protocol", where=endpoint.registry)
            if fault := redirect_fault(url, location):
                raise RegistryError(f"redirect refused: {fault}", kind="protocol", where=endpoint.registry)
            url = location
        raise RegistryError(f"redirected more than {MAX_REDIRECTS} times", kind="protocol", where=endpoint.registry)

    def _authorized(
        self,
        endpoint: Endpoint,
        method: str,
        url: str,
        scopes: Sequence[Scope],
        *,
        headers: Mapping[str, str],
        body: MakeBody | None,
        idle_s: float | None,
    ) -> Response:
        """Send to one URL; at home with authorization, renewed once if refused."""
        at_home = origin_of(url) == origin_of(self.base(endpoint))
        used = self._authorizer.header(url, endpoint.registry, scopes) if at_home else ""
        for last in (False, True):
            extra = {"Authorization": used} if used else {}
            verify = endpoint.verify if at_home else self._verifies(endpoint, url)
            made = body() if body is not None else None
            request = Request(method, url, {**headers, **extra}, made, verify=verify, idle_s=idle_s)
            response = self._transport.send(request)
            if response.status != 401 or not at_home or last:
                break
            renewed = self._authorizer_answer(response, endpoint, scopes, used)
            if not renewed:
                break
            used = renewed
        return response

    def _authorizer_answer(self, response: Response, endpoint: Endpoint, scopes: Sequence[Scope], used: str) -> str:
        """Return another authorization after a 401 and close the 401; "" leaves it open for its words."""
        try:
            renewed = self._authorizer.answer(response, endpoint.registry, scopes, used)
        except BaseException:
            response.close()
            raise
        if renewed:
            response.read_error(MAX_ERROR)
            response.close()
        return renewed

    @staticmethod
    def _verifies(endpoint: Endpoint, url: str) -> bool:
        """Tell whether certificates are checked at another host: only this machine shares the exemption."""
        return endpoint.verify or not is_loopback(origin_of(url)[1])

    def failure(
        self, response: Response, endpoint: Endpoint, what: str, repository: str = ""
    ) -> RegistryError | PassingError:
        """Return what to raise for a failing answer, with its body's words; closes the answer."""
        with response:
            words = parse_error_body(response.read_error(MAX_ERROR))
        error = status_error(response.status, words, host=endpoint.registry, what=what, repository=repository)
        if response.status in _PASSING:
            return PassingError(error, parse_retry_after(response.header("Retry-After"), time.time()))
        return error

    def base(self, endpoint: Endpoint) -> str:
        """Return `scheme://address`; where plain http is allowed, find out first what the host speaks."""
        if len(endpoint.schemes) == 1:
            return f"{endpoint.schemes[0]}://{endpoint.address}"
        with self._lock:
            scheme = self._schemes.get(endpoint.address)
            probing = self._probing.setdefault(endpoint.address, threading.Lock())
        if scheme is None:
            with probing:
                scheme = self._schemes.get(endpoint.address) or self._probe(endpoint)
                self._schemes[endpoint.address] = scheme
        return f"{scheme}://{endpoint.address}"

    def _probe(self, endpoint: Endpoint) -> str:
        """Return `https` if the host shakes hands, `http` if what it does looks like no TLS at all.

        A certificate that does not verify is an answer in TLS: it never leads to plain http.
        """
        request = Request(
            "GET", f"https://{endpoint.address}/v2/", verify=endpoint.verify, connect_s=PROBE_S, idle_s=PROBE_S
        )
        try:
            with self._transport.send(request) as response:
                response.read_error(MAX_ERROR)
        except TransportError as fault:
            if fault.kind == "tls" and "certificate" in fault.detail.lower():
                raise
            if fault.kind in ("dns", "proxy") or (fault.kind == "refused" and not self._has_no_port(endpoint)):
                raise
            return "http"
        return "https"

    @staticmethod
    def _has_no_port(endpoint: Endpoint) -> bool:
        """Tell whether plain http would go to another port than https did."""
        return ":" not in endpoint.address.removeprefix(f"[{split_host(endpoint.address)}]")
