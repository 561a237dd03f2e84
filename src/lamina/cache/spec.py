"""`--cache-from` and `--cache-to` values, checked. Pure.

The names of types and attributes are BuildKit's, so that what stands in people's CI files means the same here
(BuildKit docs, "Cache storage backends"); `mounts`, `ttl` and `limit` are ours. Secrets among the attributes never
leave a `CacheSpec` by `shown()` or `origin()`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lamina.csvline import parse_pairs
from lamina.errors import InputError

_EXPORT = {
    "mode",
    "compression",
    "compression-level",
    "force-compression",
    "ignore-error",
    "mounts",
    "mounts-size",
    "ttl",
    "limit",
}
_FORM = {"image-manifest", "oci-mediatypes"}
_IMPORT = {"timeout"}
_BOTH: dict[str, frozenset[str]] = {
    "registry": frozenset({"ref", "registry.insecure"}),
    "local": frozenset({"tag"}),
    "inline": frozenset(),
    "gha": frozenset({"scope", "url", "url_v2", "token", "ghtoken", "repository", "version", "timeout"}),
    "s3": frozenset(
        {
            "bucket", "region", "name", "prefix", "blobs_prefix", "manifests_prefix", "endpoint_url", "use_path_style",
            "access_key_id", "secret_access_key", "session_token", "touch_refresh", "upload_parallelism", "retry_mode",
            "retry_max_attempts", "disable_accept_encoding",
        }
    ),
    "azblob": frozenset({"account_url", "account_name", "container", "name", "prefix", "secret_access_key"}),
}  # fmt: skip
_ONLY_FROM = {"local": frozenset({"src", "digest"}), "registry": _IMPORT}
_ONLY_TO = {"local": frozenset({"dest", "reset"}) | _FORM, "registry": frozenset(_FORM)}
_NEEDED = {"registry": "ref"}
_SECRET = frozenset({"token", "ghtoken", "access_key_id", "secret_access_key", "session_token"})
_COMPRESSIONS = ("uncompressed", "gzip", "zstd")
_AGE = re.compile(r"(\d+)([smhdw])")
_SIZE = re.compile(r"(\d+)([kmgt]?)i?b?")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
TYPES = tuple(_BOTH)

DEFAULT_TTL_S = 30 * 86400
DEFAULT_LIMIT = 2000
DEFAULT_MOUNTS_BYTES = 5 * 10**9


@dataclass(frozen=True, slots=True)
class CacheSpec:
    """One place that a cache comes from or goes to.

    Attributes:
        type: one of `TYPES`.
        attributes: the backend's own, as the user wrote them.
        max: every step's result is exported, not just what the image consists of.
        compression: of new layers; "" leaves that to the outputs. `level` None is the compression's default.
        ignore_error: a failing export is a warning. The user's word, or True.
        mounts: ids of cache mounts that travel along, each perhaps with `@FILE`: a lock file of the context that says
            which content belongs to it. On import, the only ones to be taken; none means any.
        mounts_bytes: the most that one of them may have.
        ttl_s: records not used for so long are left out of the next export; `limit` records are kept at most.
    """

    type: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    max: bool = False
    compression: str = ""
    level: int | None = None
    force_compression: bool = False
    ignore_error: bool = True
    mounts: tuple[str, ...] = ()
    mounts_bytes: int = DEFAULT_MOUNTS_BYTES
    ttl_s: int = DEFAULT_TTL_S
    limit: int = DEFAULT_LIMIT

    def flag(self, name: str, default: bool) -> bool:
        """Return a yes-or-no attribute."""
        return _flag(self.attributes, name, default)

    def shown(self) -> str:
        """Return how messages name the place."""
        keys = ("ref", "src", "dest", "bucket", "account_url", "scope", "name")
        parts = [value for key in keys if (value := self.attributes.get(key))]
        return " ".join([self.type, *parts])

    def origin(self) -> str:
        """Return the value as text that `parse_spec` takes for reading, without secrets."""
        fields = [("type", self.type)]
        for key, value in sorted(self.attributes.items()):
            if key not in _SECRET and key not in _FORM | {"reset"}:
                fields.append(("src" if key == "dest" else key, value))
        return ",".join(_quoted(f"{key}={value}") for key, value in fields)


def parse_spec(text: str, *, export: bool) -> CacheSpec:
    """Return what one option asks for; a value without `=` is an image or registry reference.

    Raises:
        InputError: an unknown type or attribute, a missing or impossible value.
    """
    option = "--cache-to" if export else "--cache-from"
    if "=" not in text and "," not in text and text.strip():
        text = f"type=registry,ref={text.strip()}"
    pairs = parse_pairs(text, option)
    kind = pairs.pop("type", "")
    if kind not in _BOTH:
        what = f"unknown type {kind!r}" if kind else f"no type in {text!r}"
        raise InputError(f"{option}: {what}", hint=f"type= is one of {', '.join(TYPES)}")
    if kind == "inline" and not export:
        raise InputError(f"{option}: an inline cache is read from its image", hint="type=registry,ref=IMAGE")
    own = _BOTH[kind] | (_ONLY_TO if export else _ONLY_FROM).get(kind, frozenset())
    known = own | (_EXPORT if export else {"mounts"})
    for key in pairs:
        if key not in known:
            raise InputError(
                f"{option}: type={kind} has no attribute {key!r}", hint=f"it has {', '.join(sorted(known))}"
            )
    needed = ("dest" if export else "src") if kind == "local" else _NEEDED.get(kind, "")
    if needed and not pairs.get(needed):
        raise InputError(f"{option}: type={kind} needs {needed}=")
    return _build(kind, pairs, own, option)


def _build(kind: str, pairs: dict[str, str], own: frozenset[str] | set[str], option: str) -> CacheSpec:
    mode = pairs.get("mode", "min")
    if mode not in ("min", "max"):
        raise InputError(f"{option}: mode is min or max, not {mode!r}")
    if kind == "inline" and mode == "max":
        raise InputError(
            f"{option}: an inline cache holds what the image consists of, so mode=max is not possible",
            hint="use type=registry,ref=...,mode=max",
        )
    compression = pairs.get("compression", "")
    if compression and compression not in _COMPRESSIONS:
        raise InputError(f"{option}: compression is one of {', '.join(_COMPRESSIONS)}, not {compression!r}")
    spec = CacheSpec(
        type=kind,
        attributes={key: value for key, value in pairs.items() if key in own},
        max=mode == "max",
        compression=compression,
        level=_number(pairs, "compression-level", option),
        force_compression=_flag(pairs, "force-compression", False),
        ignore_error=_flag(pairs, "ignore-error", True),
        mounts=tuple(name for name in re.split(r"[;,+]", pairs.get("mounts", "")) if name),
        mounts_bytes=_size(pairs.get("mounts-size", ""), option),
        ttl_s=parse_seconds(pairs["ttl"], f"{option}: ttl") if pairs.get("ttl") else DEFAULT_TTL_S,
        limit=_number(pairs, "limit", option) or DEFAULT_LIMIT,
    )
    for name in ("registry.insecure", "image-manifest", "oci-mediatypes", "reset", "use_path_style"):
        spec.flag(name, False)
    return spec


def _flag(pairs: Mapping[str, str], name: str, default: bool) -> bool:
    text = pairs.get(name, "")
    if not text:
        return default or name in pairs
    if text.lower() not in ("true", "false", "1", "0"):
        raise InputError(f"cache attribute {name} is true or false, not {text!r}")
    return text.lower() in ("true", "1")


def _number(pairs: Mapping[str, str], name: str, option: str) -> int | None:
    text = pairs.get(name, "")
    if not text:
        return None
    if not text.isdecimal() or not text.isascii() or len(text) > 9:
        raise InputError(f"{option}: {name} is a whole number, not {text!r}")
    return int(text)


def _size(text: str, option: str) -> int:
    if not text:
        return DEFAULT_MOUNTS_BYTES
    found = _SIZE.fullmatch(text.lower())
    if found is None or len(text) > 12:
        raise InputError(f"{option}: mounts-size is a size such as 500MB or 2GB, not {text!r}")
    return int(found[1]) * _UNITS[found[2]]


def parse_seconds(text: str, what: str) -> int:
    """Return the seconds that `12h` or `30d` are.

    Raises:
        InputError: it is no such time; `what` names it.
    """
    found = _AGE.fullmatch(text)
    if found is None or len(text) > 9:
        raise InputError(f"{what} is a time such as 12h or 30d, not {text!r}")
    return int(found[1]) * _SECONDS[found[2]]


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if "," in text or '"' in text else text
