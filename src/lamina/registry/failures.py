"""How failures of registry traffic are told: internal faults, and the errors that people read. Pure.

`TransportError` is one attempt that failed below HTTP; `PassingError` is an answer worth another attempt. Neither
leaves the room: `RegistryError` does, with the registry's own words and what to do about it. Messages never hold
credentials, nor the query of a URL (storage services put signatures there).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from lamina.errors import NetworkError
from lamina.registry.wire import RegistryWords


class RegistryError(NetworkError):
    """A registry could not be reached or did not do what it was asked.

    Attributes:
        kind: `unauthorized`, `denied`, `not found`, `conflict`, `rate limit`, `server`, `refused`, `dns`, `tls`,
            `timeout`, `cut`, `proxy`, `protocol` (an answer that must not be), `digest` or `size`.
        status: HTTP status, 0 when there was no answer.
    """

    def __init__(self, what: str, *, kind: str, where: str = "", hint: str = "", status: int = 0) -> None:
        super().__init__(what, where=where, hint=hint)
        self.kind = kind
        self.status = status


class TransportError(Exception):
    """One request failed below HTTP. `kind` is as in `RegistryError`; `detail` is one line for people."""

    def __init__(self, kind: str, detail: str, *, retryable: bool) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.retryable = retryable


class PassingError(Exception):
    """An answer that may be better next time; `error` is what to raise when patience is at its end."""

    def __init__(self, error: RegistryError, after_s: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.after_s = after_s


_TRANSPORT_HINTS = {
    "refused": "is it running, and is the port right?",
    "dns": "check the name and the network; behind a company network, set a proxy",
    "timeout": "check the network, firewall and proxy settings",
    "cut": "the network or a proxy dropped the connection: try again",
    "proxy": "check the proxy settings and the proxy's user and password",
}


def explain_transport(fault: TransportError, host: str, url: str) -> RegistryError:
    """Return the error for a request to `url`, on behalf of registry `host`, that failed below HTTP."""
    hint = _TRANSPORT_HINTS.get(fault.kind, "")
    if fault.kind == "tls":
        hint = _tls_hint(fault.detail, host)
    other = urlsplit(url).hostname or ""
    via = f" (at {other})" if other and other not in host and fault.kind != "proxy" else ""
    return RegistryError(fault.detail + via, kind=fault.kind, where=host, hint=hint)


def _tls_hint(detail: str, host: str) -> str:
    """Return how to mend a TLS failure."""
    low = detail.lower()
    if "expired" in low:
        return "the registry's certificate has expired (or this machine's clock is wrong)"
    if "mismatch" in low or "doesn't match" in low or "not valid for" in low:
        return "the certificate is for another name: use the name it was issued for"
    if "self-signed" in low or "unable to get local issuer" in low or "self signed" in low:
        return f"give the CA that signed it, or trust this host without checking: --insecure {host}"
    if "wrong version number" in low or "record layer" in low or "unexpected eof" in low:
        return f"the host may speak plain http: if you trust the network between, use --insecure {host}"
    return ""


def status_error(status: int, words: RegistryWords, *, host: str, what: str, repository: str = "") -> RegistryError:
    """Return the error for an answer with a failing status.

    Args:
        status: HTTP status.
        words: what the body said.
        host: the registry, as in references.
        what: what was asked, as "pull docker.io/library/x:1".
        repository: `host/repository` for hints, "" when not about one.
    """
    said = f": {words.text}" if words.text else ""
    code = f" ({', '.join(words.codes)})" if words.codes and words.codes[0] not in words.text else ""
    name = repository or host
    if status == 401 or (status == 403 and "UNAUTHORIZED" in words.codes):
        if host == "docker.io" and repository:
            # Docker Hub answers 401 for repositories that do not exist, so as not to tell which do.
            what = f"{repository} not found, or it needs a login"
            return RegistryError(
                f"{what}{said}{code}",
                kind="unauthorized",
                where=host,
                status=status,
                hint="check the name; if the repository is private, run: docker login",
            )
        return RegistryError(
            f"cannot {what}: login required or credentials refused{said}{code}",
            kind="unauthorized",
            where=host,
            status=status,
            hint=f"check the name, or run: docker login {host}",
        )
    if status == 403:
        hint = f"the account in use may lack the right to {name}; another one: docker login {host}"
        return RegistryError(
            f"cannot {what}: access denied{said}{code}", kind="denied", where=host, status=status, hint=hint
        )
    if status == 404:
        return RegistryError(
            f"cannot {what}: not found{said}{code}",
            kind="not found",
            where=host,
            status=status,
            hint="check the name and the tag",
        )
    if status == 409:
        hint = "the tag may be immutable: push under another tag"
        return RegistryError(
            f"cannot {what}: conflict{said}{code}", kind="conflict", where=host, status=status, hint=hint
        )
    if status == 429:
        hint = (
            f"too many requests: wait, or log in for a higher limit: docker login {host if host != 'docker.io' else ''}"
        )
        return RegistryError(
            f"cannot {what}: rate limit reached{said}{code}",
            kind="rate limit",
            where=host,
            status=status,
            hint=hint.rstrip(": "),
        )
    kind = "server" if status >= 500 else "protocol"
    return RegistryError(
        f"cannot {what}: the registry answered {status}{said}{code}", kind=kind, where=host, status=status
    )
