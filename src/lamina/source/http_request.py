"""What an http source asks for, and what its answer's headers say. Pure: no sockets, no files.

In come the identifier and attributes of a SourceOp (BuildKit's names, `http.*`) and header values from a server;
out come checked values. Whatever a server or a graph says about the file's name ends as one harmless name: never a
path, never a whiteout. User information in a URL becomes an Authorization header and is in no text that people see.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit, urlunsplit

from lamina.errors import InputError, NetworkError, NotYetError, SourceRange
from lamina.llb.identity import op_digest
from lamina.oci.digest import Digest

DEFAULT_NAME = "download"
"""The file's name when neither graph, server nor URL give a usable one; BuildKit's choice."""
DEFAULT_MODE = 0o600
_MAX_NAME = 255
_MAX_HEADER = 4096
_MAX_ID = 2**32 - 2
_USER_HEADERS = ("accept", "user-agent")


class HttpError(NetworkError):
    """A download failed. `status` is the HTTP status, 0 when there was no answer."""

    def __init__(self, what: str, *, url: str, hint: str = "", status: int = 0) -> None:
        super().__init__(what, where=show_url(url), hint=hint)
        self.status = status


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One http source, checked.

    Attributes:
        url: absolute, without user information and fragment.
        authorization: what the URL's user information stands for, "" when it has none.
        checksum: sha256 the content must have, None to take what comes.
        filename: name of the file in the result, "" to go by answer and URL.
        mode: permission bits of the file.
        auth_secret: the secret whose value is the Authorization header, "" for the host's usual ones.
        headers: `Accept` and `User-Agent` as the graph wants them, sorted; no other header may be set.
    """

    url: str
    authorization: str = field(default="", repr=False)
    checksum: Digest | None = None
    filename: str = ""
    mode: int = DEFAULT_MODE
    uid: int = 0
    gid: int = 0
    auth_secret: str = ""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def host(self) -> str:
        """The server's name without port, as the names of secrets have it."""
        return urlsplit(self.url).hostname or ""

    @property
    def shown(self) -> str:
        """The URL as people may see it."""
        return show_url(self.url)

    @property
    def origin_key(self) -> str:
        """What decides which content is asked for: answers to equal ones may stand in for each other."""
        return op_digest("http", self.url, self.auth_secret, *(part for pair in self.headers for part in pair))

    def name(self, disposition: str) -> str:
        """Return the name of the file, given the answer's `Content-Disposition` ("" for none)."""
        if self.filename:
            return safe_name(self.filename)
        return disposition_name(disposition) or safe_name(_last_part(self.url))


def parse_http(identifier: str, attrs: Mapping[str, str], source: SourceRange | None = None) -> HttpRequest:
    """Return what a SourceOp with an `http://` or `https://` identifier asks for.

    Attributes that are not known are passed over, as BuildKit does.

    Raises:
        InputError: the URL or an attribute is malformed.
        NotYetError: the signature of the content shall be verified.
    """
    url, authorization = parse_url(identifier, source)
    if attrs.get("http.sig.pubkey") or attrs.get("http.sig.signature"):
        raise NotYetError("http sources with a signature", source=source)
    headers = {}
    for key, value in attrs.items():
        name = key.removeprefix("http.header.").lower()
        if key.startswith("http.header.") and name in _USER_HEADERS:
            headers[name.title()] = _checked_header(value, key, source)
    mode, uid, gid = file_attributes(attrs, source)
    return HttpRequest(
        url,
        authorization,
        checksum=_checksum(attrs.get("http.checksum", ""), source),
        filename=attrs.get("http.filename", ""),
        mode=mode,
        uid=uid,
        gid=gid,
        auth_secret=attrs.get("http.authheadersecret", ""),
        headers=tuple(sorted(headers.items())),
    )


def file_attributes(attrs: Mapping[str, str], source: SourceRange | None = None) -> tuple[int, int, int]:
    """Return permission bits, uid and gid of the file that a source of one file gives.

    Raises:
        InputError: one of them is no number, or too large.
    """
    mode = _number(attrs, "http.perm", 0o777, source) or DEFAULT_MODE
    return mode, _number(attrs, "http.uid", _MAX_ID, source), _number(attrs, "http.gid", _MAX_ID, source)


def parse_url(text: str, source: SourceRange | None = None) -> tuple[str, str]:
    """Return an http(s) URL without user information and fragment, and the Authorization header that it implied.

    Raises:
        InputError: it is not an absolute URL that can be requested.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    readable = text.isprintable() and " " not in text and len(text) <= 8192
    if not readable or not host or parts.scheme not in ("http", "https"):
        raise InputError("not a URL that can be downloaded", where=_harmless(text), source=source)
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode("utf-8", "surrogateescape")).decode("ascii")
    netloc = f"[{host}]" if ":" in host else host
    netloc += f":{port}" if port is not None else ""
    return urlunsplit(parts._replace(netloc=netloc, fragment="")), authorization


def show_url(url: str) -> str:
    """Return a URL without user information, query (signatures stand there) and fragment."""
    try:
        parts = urlsplit(url)
        shown = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
    except ValueError:
        return _harmless(url)
    return shown + ("?..." if parts.query else "")


def without_credentials(identifier: str) -> str:
    """Return the name of a source as people may see it."""
    return show_url(identifier) if identifier.startswith(("http://", "https://")) else identifier


def safe_name(text: str) -> str:
    """Return `text` as the name of one file in a layer, `DEFAULT_NAME` when it cannot be one."""
    name = text.strip().rstrip("/").rpartition("/")[2]
    if name in ("", ".", "..") or name.startswith(".wh.") or len(name.encode("utf-8", "surrogateescape")) > _MAX_NAME:
        return DEFAULT_NAME
    if any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in name):
        return DEFAULT_NAME
    return name


def disposition_name(value: str) -> str:
    """Return the file name that a `Content-Disposition` header gives (RFC 6266), made safe; "" when it gives none."""
    if not value or len(value) > _MAX_HEADER:
        return ""
    from email.message import Message

    # Header text comes as latin-1; servers write UTF-8 into it all the same.
    try:
        value = value.encode("latin-1").decode("utf-8")
    except ValueError:
        pass
    message = Message()
    message["Content-Disposition"] = value
    try:
        found = message.get_filename("")
    except (ValueError, TypeError, LookupError):  # a broken RFC 2231 parameter
        return ""
    return safe_name(found) if found and not found.endswith("/") else ""


def parse_http_date(text: str) -> int | None:
    """Return the seconds since the epoch of an HTTP date, None when it is none or lies outside 1970..2106."""
    if not text or len(text) > 64:
        return None
    from email.utils import parsedate_to_datetime

    try:
        seconds = int(parsedate_to_datetime(text).timestamp())
    except (ValueError, OverflowError, TypeError):
        return None
    return seconds if 0 <= seconds < 1 << 32 else None


def strong_etag(value: str) -> str:
    """Return an ETag if it is a strong one (RFC 9110 8.8.3), else ""."""
    return value if value.startswith('"') and value.endswith('"') and 2 < len(value) < 300 else ""


def plain_etag(value: str) -> str:
    """Return an ETag without its weakness mark, for comparison; "" when it is malformed."""
    return strong_etag(value.strip().removeprefix("W/"))


def _last_part(url: str) -> str:
    path = unquote(urlsplit(url).path, errors="surrogateescape")
    return path.rstrip("/").rpartition("/")[2]


def _checksum(text: str, source: SourceRange | None) -> Digest | None:
    if not text:
        return None
    try:
        digest = Digest(text)
    except InputError as error:
        error.source = source
        raise
    if digest.algorithm != "sha256":
        raise InputError(f"checksums of http sources are sha256, not {digest.algorithm}", source=source)
    return digest


def _number(attrs: Mapping[str, str], key: str, most: int, source: SourceRange | None) -> int:
    """Return a number written as Go reads it with base 0: 0644, 0o644, 0x1a4, 420; 0 when absent."""
    text = attrs.get(key, "")
    digits = text.lower()
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        digits = "0o" + digits[1:]
    try:
        number = int(digits, 0) if digits and len(digits) < 20 and digits.isascii() else 0 if not digits else -1
    except ValueError:
        number = -1
    if not 0 <= number <= most:
        raise InputError(f"attribute {key} of an http source is no number up to {most}: {text[:40]!r}", source=source)
    return number


def _checked_header(value: str, key: str, source: SourceRange | None) -> str:
    if not value.isascii() or not value.isprintable() or len(value) > _MAX_HEADER:
        raise InputError(f"attribute {key} cannot be a header", source=source)
    return value


def _harmless(text: str) -> str:
    """Return the start of a text that may hold a password before an "@"."""
    clean = "".join(char for char in text[:8192] if char.isprintable())
    scheme, mark, rest = clean.partition("://")
    return (f"{scheme}{mark}{rest.rpartition('@')[2]}" if mark else clean.rpartition("@")[2])[:200]
