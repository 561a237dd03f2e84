"""Authorization for registries: basic and bearer, one token per scope. Holds tokens, sends token requests.

In come challenges and what the credential store knows; out come values for the `Authorization` header. Sources:
distribution's token documents ("Token Authentication", "OAuth2"). Every realm passes `trust.realm_fault` before
anything is sent there, and redirects of a token server are not followed. Invariants: credentials are asked for by
the registry's exact name; one fetch per (origin, scopes) at a time, whose result all waiting threads use; a token
that was refused is never used again.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from lamina.errors import CancelledError, NetworkError
from lamina.registry.failures import PassingError, RegistryError, TransportError, status_error
from lamina.registry.http import Request, Response, Transport
from lamina.registry.options import RegistryOptions
from lamina.registry.trust import is_loopback, origin_of, realm_fault
from lamina.registry.wire import (
    MAX_ERROR,
    MAX_TOKEN,
    Challenge,
    parse_challenges,
    parse_error_body,
    parse_retry_after,
)
from lamina.session import Credentials, FetchingTokens

LEAST_LIFETIME_S = 60.0
"""A token lives this long when its server does not say (token specification)."""
MARGIN_S = 10.0
"""A token is renewed this long before it ends, so that it does not end on its way."""
CLIENT_ID = "lamina"

CredentialSource = Callable[[str], Credentials | None]
Origin = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Scope:
    """What a request needs: `actions` on `repository`."""

    repository: str
    actions: str = "pull"

    def __str__(self) -> str:
        return f"repository:{self.repository}:{self.actions}"


@dataclass(frozen=True, slots=True)
class _Token:
    """An `Authorization` value and when (monotonic) it should be renewed."""

    header: str = field(repr=False)
    until: float


@dataclass(slots=True)
class _Slot:
    """One (origin, scopes): its lock is held while a token is fetched."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    token: _Token | None = None


class Authorizer:
    """Answers challenges and remembers the answers. Thread-safe.

    Args:
        options: hosts that may see credentials, time limits.
        transport: sends the token requests.
        credentials: returns what opens the registry of exactly that name, or None.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        options: RegistryOptions,
        transport: Transport,
        credentials: CredentialSource,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._transport = transport
        self._credentials = credentials
        self._clock = clock
        self._lock = threading.Lock()
        self._slots: dict[tuple[Origin, tuple[str, ...]], _Slot] = {}
        self._challenges: dict[Origin, Challenge] = {}
        self._known: dict[str, Credentials | None] = {}

    def header(self, url: str, registry: str, scopes: Iterable[Scope]) -> str:
        """Return the `Authorization` to send with a request, "" when none is known to be needed.

        Once an origin has challenged, tokens for further scopes are fetched ahead, which saves a refusal each.
        """
        origin = origin_of(url)
        with self._lock:
            known = self._challenges.get(origin)
        if known is None:
            return ""
        return self._obtain(url, registry, known, _names(scopes), refused="")

    def answer(self, response: Response, registry: str, scopes: Iterable[Scope], refused: str) -> str:
        """Return the `Authorization` to try after a 401, "" when there is nothing (more) to offer.

        Args:
            response: the 401.
            registry: name of the registry, for its credentials.
            scopes: what the request needs; the challenge's own scope is added.
            refused: the value that the refused request carried, "" for none.

        Raises:
            RegistryError: the token server refused, or must not be asked.
        """
        challenges = parse_and_sort(response)
        for challenge in challenges:
            if challenge.scheme == "basic" and self._credentials_of(registry) is None:
                continue
            origin = origin_of(response.url)
            general = Challenge(challenge.scheme, {k: v for k, v in challenge.params.items() if k != "scope"})
            with self._lock:
                self._challenges[origin] = general
            return self._obtain(response.url, registry, challenge, _names(scopes), refused)
        return ""

    def _obtain(self, url: str, registry: str, challenge: Challenge, names: tuple[str, ...], refused: str) -> str:
        """Return a fresh enough header for these scopes other than `refused`, or "" if there is no other."""
        if challenge.scheme == "basic":
            credentials = self._credentials_of(registry)
            header = _basic(credentials) if credentials else ""
            return "" if header == refused else header
        with self._lock:
            slot = self._slots.setdefault((origin_of(url), names), _Slot())
        with slot.lock:
            token = slot.token
            if token is None or token.header == refused or token.until <= self._clock():
                slot.token = None
                slot.token = token = self._fetch(url, registry, challenge, names)
            return token.header

    def _credentials_of(self, registry: str) -> Credentials | None:
        """Ask for credentials once per registry: a credential helper is a process."""
        with self._lock:
            if registry in self._known:
                return self._known[registry]
        found = self._credentials(registry)
        with self._lock:
            return self._known.setdefault(registry, found)

    def _fetch(self, url: str, registry: str, challenge: Challenge, names: tuple[str, ...]) -> _Token:
        """Get a token from the challenge's realm."""
        realm = challenge.params.get("realm", "")
        service = challenge.params.get("service", "")
        # A registry that knows the repository under another name says so in its challenge.
        scopes = list(dict.fromkeys([*names, *challenge.params.get("scope", "")[:2000].split()]))
        if (token := self._by_user(url, registry, realm, service, scopes)) is not None:
            return token
        credentials = self._credentials_of(registry)
        trusted = self._options.token_hosts.get(registry, frozenset())
        if fault := realm_fault(url, realm, with_credentials=credentials is not None, trusted=trusted):
            host = urlsplit(realm).hostname or "?"
            raise RegistryError(
                f"the registry asks to fetch a token from {host}, which is refused: {fault}",
                kind="unauthorized",
                where=registry,
                hint=f"if you trust {host} with this registry's credentials, name it as a token host of {registry}",
            )
        body = self._ask(realm, service, scopes, credentials, registry)
        return self._parse_token(body, registry)

    def _by_user(self, url: str, registry: str, realm: str, service: str, scopes: list[str]) -> _Token | None:
        """Return a token that the user fetched, None when the user leaves that to us.

        The user would send the password there, whether or not there is one, so the realm must be fit for it.
        """
        user, trusted = self._credentials, self._options.token_hosts.get(registry, frozenset())
        if not isinstance(user, FetchingTokens) or realm_fault(url, realm, with_credentials=True, trusted=trusted):
            return None
        try:
            found = user.token(registry, realm, service, scopes)
        except CancelledError:
            raise
        except NetworkError as error:
            what = f"no token from {urlsplit(realm).hostname}: {error.what}"
            raise RegistryError(what, kind="unauthorized", where=registry) from error
        return self._token(*found, registry) if found is not None else None

    def _ask(
        self, realm: str, service: str, scopes: list[str], credentials: Credentials | None, registry: str
    ) -> bytes:
        """Return the body of the token server's good answer: POST for identity tokens, GET otherwise."""
        verify = urlsplit(realm).netloc not in self._options.insecure
        verify = verify and not (self._options.ca is None and is_loopback(urlsplit(realm).hostname or ""))
        if credentials is not None and (identity := _identity(credentials)):
            form = {"grant_type": "refresh_token", "service": service, "client_id": CLIENT_ID}
            form |= {"scope": " ".join(scopes), "refresh_token": identity}
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            return self._exchange(Request("POST", realm, headers, urlencode(form).encode(), verify=verify), registry)
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes]
        headers = {}
        if credentials is not None:
            query.append(("account", credentials.username))
            headers["Authorization"] = _basic(credentials)
        target = realm + ("&" if urlsplit(realm).query else "?") + urlencode(query)
        return self._exchange(Request("GET", target, headers, verify=verify), registry)

    def _exchange(self, request: Request, registry: str) -> bytes:
        """Send a token request and return its body; redirects count as refusals."""
        server = urlsplit(request.url).hostname or ""
        try:
            with self._transport.send(request) as response:
                if response.status == 200:
                    return response.read(MAX_TOKEN, what="the token")
                words = parse_error_body(response.read_error(MAX_ERROR))
                status, after = response.status, response.header("Retry-After")
        except TransportError as fault:
            raise TransportError(
                fault.kind, f"{fault.detail} (token server {server})", retryable=fault.retryable
            ) from fault
        if status == 429 or status >= 500:
            error = status_error(status, words, host=registry, what=f"get a token from {server}")
            raise PassingError(error, parse_retry_after(after, time.time()))
        said = f": {words.text}" if words.text else ""
        raise RegistryError(
            f"the token server {server} refused ({status}){said}",
            kind="unauthorized",
            where=registry,
            status=status,
            hint=f"check the name, or run: docker login {registry if registry != 'docker.io' else ''}".rstrip(": "),
        )

    def _parse_token(self, body: bytes, registry: str) -> _Token:
        """Check the answer and return the token in it."""
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        document = document if isinstance(document, dict) else {}
        lifetime = document.get("expires_in")
        usable = isinstance(lifetime, (int, float)) and not isinstance(lifetime, bool)
        text = document.get("token") or document.get("access_token")
        return self._token(text, float(lifetime) if usable and lifetime is not None else 0.0, registry)

    def _token(self, text: object, lifetime: float, registry: str) -> _Token:
        """Return a token that may stand in a header."""
        if not isinstance(text, str) or not text.isascii() or not text.isprintable() or " " in text:
            raise RegistryError("the token server's answer holds no token", kind="protocol", where=registry)
        seconds = lifetime if 0 < lifetime < 1e9 else LEAST_LIFETIME_S
        return _Token(f"Bearer {text}", self._clock() + seconds - min(MARGIN_S, seconds / 4))


def parse_and_sort(response: Response) -> list[Challenge]:
    """Return the challenges of a 401 that we can answer, bearer before basic."""
    offered = parse_challenges(response.header_values("WWW-Authenticate"))
    bearer = [c for c in offered if c.scheme == "bearer" and c.params.get("realm")]
    return bearer + [c for c in offered if c.scheme == "basic"]


def _names(scopes: Iterable[Scope]) -> tuple[str, ...]:
    """Return the scopes as text, sorted: the key of a token."""
    return tuple(sorted({str(scope) for scope in scopes}))


def _basic(credentials: Credentials) -> str:
    """Return the basic `Authorization` of these credentials."""
    text = f"{credentials.username}:{credentials.password}"
    return "Basic " + base64.b64encode(text.encode()).decode("ascii")


def _identity(credentials: Credentials) -> str:
    """Return the identity token among credentials; helpers hand it out as the password of user `<token>`."""
    return credentials.identity_token or (credentials.password if credentials.username == "<token>" else "")
