"""What goes over the wire to a registry and comes back, as values. Pure: no sockets, no clock.

In come header values and bodies, which are hostile; out go checked values, or None where the text is not what
it should be. Sources: distribution-spec 1.1 ("Endpoints", "Pushing a blob in chunks", "Content Discovery",
"Error Codes"), RFC 9110 (11.6.1 challenges, 14.4 Content-Range, 10.2.3 Retry-After), RFC 8288 (Link).
Every parser takes linear time and gives up on texts that are too long.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urljoin, urlsplit, urlunsplit

MAX_MANIFEST = 4 << 20
"""Most bytes of a manifest or index; what other tools accept too."""
MAX_TOKEN = 1 << 20
"""Most bytes of a token server's answer."""
MAX_ERROR = 1 << 20
"""Most bytes of an error's body."""
MAX_HEADER = 16 << 10
"""Most characters of a header value that is parsed."""

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
SCHEMA1_TYPES = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
ACCEPT_MANIFEST = ", ".join((*INDEX_TYPES, *MANIFEST_TYPES, "*/*;q=0.1"))

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TOKEN68 = re.compile(r"[ \t]+[A-Za-z0-9\-._~+/]+=*[ \t]*(?=,|\Z)")
_EQUALS = re.compile(r"[ \t]*=[ \t]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_CONTENT_RANGE = re.compile(r"bytes[ \t]+([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)\Z")
_UPLOAD_RANGE = re.compile(r"(?:bytes[= ])?0-([0-9]{1,19})\Z")


def manifest_path(repository: str, target: str) -> str:
    """Return the path of the manifest that `target` (tag or digest) names."""
    return f"/v2/{repository}/manifests/{quote(target, safe=':')}"


def blob_path(repository: str, digest: str) -> str:
    """Return the path of a blob."""
    return f"/v2/{repository}/blobs/{digest}"


def uploads_path(repository: str, *, mount: str = "", source: str = "") -> str:
    """Return the path that opens an upload, or that mounts blob `mount` out of repository `source`."""
    query = "?" + urlencode({"mount": mount, "from": source}) if mount else ""
    return f"/v2/{repository}/blobs/uploads/{query}"


def tags_path(repository: str) -> str:
    """Return the path of the first page of a repository's tags."""
    return f"/v2/{repository}/tags/list?n=1000"


def with_query(url: str, **params: str) -> str:
    """Return `url` with parameters appended and everything it had left as it was."""
    parts = urlsplit(url)
    query = "&".join(text for text in (parts.query, urlencode(params)) if text)
    return urlunsplit(parts._replace(query=query))


def join_location(base: str, location: str) -> str | None:
    """Return the absolute URL that `location` means in an answer from `base`, or None if it is not acceptable.

    Only http and https without user information are accepted. A registry behind a TLS proxy may call itself http:
    when the host is the same, the scheme of `base` is kept, so that it never weakens.
    """
    if not location or len(location) > MAX_HEADER or not location.isprintable() or " " in location:
        return None
    try:
        parts = urlsplit(urljoin(base, location))
        origin = urlsplit(base)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        return None
    weaker = origin.scheme == "https" and parts.scheme == "http"
    if weaker and parts.hostname == origin.hostname and port in (None, 80, origin.port):
        parts = parts._replace(scheme="https", netloc=origin.netloc)
    return urlunsplit(parts._replace(fragment=""))


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way a server offers to authenticate: the scheme in lower case and its parameters."""

    scheme: str
    params: Mapping[str, str]


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Return the challenges of all `WWW-Authenticate` headers; what cannot be read ends its header."""
    found: list[Challenge] = []
    for text in values:
        if len(text) <= MAX_HEADER:
            found += _challenges_of(text)
    return found


def _challenges_of(text: str) -> list[Challenge]:
    """Parse one header value (RFC 9110 11.6.1); a name followed by "=" is a parameter, else a new scheme."""
    found: list[Challenge] = []
    params: dict[str, str] = {}
    at = 0
    while True:
        while at < len(text) and text[at] in " \t,":
            at += 1
        name = _TOKEN.match(text, at)
        if name is None:
            return found
        at = name.end()
        equals = _EQUALS.match(text, at)
        if equals is None or not found:
            params = {}
            found.append(Challenge(name[0].lower(), params))
            token68 = _TOKEN68.match(text, at)
            at = token68.end() if token68 else at
            continue
        quoted = _QUOTED.match(text, equals.end())
        value = quoted or _TOKEN.match(text, equals.end())
        if value is None:
            return found
        at = value.end()
        params.setdefault(name[0].lower(), re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else value[0])


def parse_next_link(value: str) -> str | None:
    """Return the target of the link with `rel="next"`, or None."""
    if len(value) > MAX_HEADER:
        return None
    for match in re.finditer(r"<([^<>]*)>([^,<]*)", value):
        if re.search(r';[ \t]*rel[ \t]*=[ \t]*"?next"?[ \t]*(?:;|\Z)', match[2]):
            return match[1]
    return None


@dataclass(frozen=True, slots=True)
class ContentRange:
    """The bytes `start` to `end` (inclusive) of `total`, None when the server does not say how many there are."""

    start: int
    end: int
    total: int | None


def parse_content_range(value: str) -> ContentRange | None:
    """Parse `bytes 5-9/10`; None when the text is not a satisfied range."""
    match = _CONTENT_RANGE.match(value.strip()) if len(value) < 100 else None
    if match is None:
        return None
    total = None if match[3] == "*" else int(match[3])
    start, end = int(match[1]), int(match[2])
    if start > end or (total is not None and end >= total):
        return None
    return ContentRange(start, end, total)


def parse_upload_offset(value: str) -> int | None:
    """Return how many bytes an upload already holds, from its `Range: 0-N` header; None when it does not say.

    `0-0` may mean one byte or none (registries disagree), so it counts as "does not say".
    """
    match = _UPLOAD_RANGE.match(value.strip()) if len(value) < 100 else None
    return int(match[1]) + 1 if match and int(match[1]) > 0 else None


def parse_retry_after(value: str, now: float) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, from seconds or a date; None when unreadable.

    Args:
        value: the header.
        now: seconds since the epoch.
    """
    value = value.strip()
    if re.fullmatch(r"[0-9]{1,15}", value):
        return float(value)
    if not value or len(value) > 64:
        return None
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class RegistryWords:
    """What a registry says about a failure: its codes and its messages, made safe to print."""

    codes: tuple[str, ...] = ()
    text: str = ""


def parse_error_body(body: bytes) -> RegistryWords:
    """Read an error body: the distribution-spec's JSON, a token server's JSON, or any short text."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        text = body[:2000].decode("utf-8", "replace")
        return RegistryWords(text="" if "<" in text else printable(text))
    if not isinstance(document, dict):
        return RegistryWords()
    items = document.get("errors")
    if not isinstance(items, list):
        plain = [document.get(key) for key in ("error", "error_description", "details", "message")]
        return RegistryWords(text=printable(": ".join(item for item in plain if isinstance(item, str) and item)))
    codes, texts = [], []
    for item in items[:5]:
        if isinstance(item, dict):
            code, message = item.get("code"), item.get("message")
            if isinstance(code, str) and code:
                codes.append(printable(code, 60))
            if isinstance(message, str) and message:
                texts.append(printable(message))
    return RegistryWords(tuple(codes), "; ".join(texts) or ", ".join(codes))


def printable(text: str, limit: int = 300) -> str:
    """Return `text` on one line, without control characters, cut to `limit` characters."""
    clean = " ".join("".join(char if char.isprintable() else " " for char in text[: limit * 4]).split())
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."


def media_type_of(body: bytes, content_type: str) -> tuple[str, str]:
    """Return the media type of a manifest, and what is wrong with it ("" when nothing is).

    The body's own `mediaType` decides; a header that names a different manifest type is a contradiction
    (image-spec "Media type conflicts"), one that names something general is not.
    """
    header = content_type.partition(";")[0].strip().lower()
    if header in SCHEMA1_TYPES:
        return (
            header,
            "it is a schema 1 manifest, a format that was given up in 2017: push the image again with any tool",
        )
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return header, "it is not JSON"
    if not isinstance(document, dict):
        return header, "it is not a JSON object"
    if document.get("schemaVersion") == 1:
        return (
            header,
            "it is a schema 1 manifest, a format that was given up in 2017: push the image again with any tool",
        )
    if "manifests" in document and ("layers" in document or "config" in document):
        return header, "it claims to be a manifest and an index at once"
    inner = document.get("mediaType", "")
    if not isinstance(inner, str):
        return header, "its mediaType is not text"
    known = (*INDEX_TYPES, *MANIFEST_TYPES)
    if inner:
        if header in known and header != inner:
            return inner, f"its body says {printable(inner, 100)}, its Content-Type says {header}"
        return inner, ""
    if header in known:
        if (header in INDEX_TYPES) != ("manifests" in document):
            return header, f"its content does not fit its Content-Type {header}"
        return header, ""
    return (INDEX_TYPES if "manifests" in document else MANIFEST_TYPES)[0], ""
