"""The options of BuildKit's Dockerfile frontend (`build-arg:NAME`, `target`, ...) as `BuildOptions`. Pure.

Reference: BuildKit, docs/reference/buildctl and the frontend's own documentation of its options.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lamina.csvline import join_csv
from lamina.errors import InputError, NotYetError

PASSED_OVER = frozenset(
    {
        # where things are read from: `dockerfile` of this room looks at them
        *("filename", "context", "contextkey", "dockerfilekey", "contextsubdir", "requestid", "cmdline", "source"),
        # told for the record only
        *("frontend.caps", "multi-platform", "cache-imports", "cache-from", "build-arg-raw", "input-metadata"),
    }
)
_PREFIXES = ("vcs:", "local-sessionid:", "input-metadata:", "attest:", "context:", "build-arg:", "label:")
_NETWORKS = {"": "", "default": "", "host": "host", "none": "none", "sandbox": ""}


def options_of(attrs: Mapping[str, str]) -> dict[str, Any]:
    """Return the keyword arguments of `BuildOptions` that these options of a frontend stand for.

    Raises:
        InputError: a value that makes no sense; `NotYetError` for an option that is not carried out.
    """
    found: dict[str, Any] = {
        "build_args": _with_prefix(attrs, "build-arg:"),
        "labels": _with_prefix(attrs, "label:"),
        "build_contexts": _with_prefix(attrs, "context:"),
        "target": attrs.get("target", ""),
        "platforms": _words(attrs.get("platform", "")),
        "add_hosts": [_host(pair) for pair in _words(attrs.get("add-hosts", ""))],
        "pull": attrs.get("image-resolve-mode", "") == "pull",
        "network": _network(attrs.get("force-network-mode", "")),
        "shm_size": _number(attrs, "shm-size"),
        "ulimits": _words(attrs.get("ulimit", "")),
        "hostname": attrs.get("hostname", ""),
        "cgroup_parent": attrs.get("cgroup-parent", ""),
        "cache_from": _imports(attrs),
    }
    if "no-cache" in attrs:
        stages = _words(attrs["no-cache"])
        found["no_cache"], found["no_cache_filter"] = not stages, stages
    found["source_date_epoch"] = _epoch(found["build_args"].get("SOURCE_DATE_EPOCH", ""))
    return found


def unknown_options(attrs: Mapping[str, str]) -> list[str]:
    """Return the names of options that nobody looks at."""
    known = PASSED_OVER | {
        *("target", "platform", "add-hosts", "image-resolve-mode", "force-network-mode", "shm-size", "ulimit"),
        *("hostname", "cgroup-parent", "no-cache"),
    }
    return sorted(name for name in attrs if name not in known and not name.startswith(_PREFIXES))


def _with_prefix(attrs: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {name.removeprefix(prefix): value for name, value in attrs.items() if name.startswith(prefix)}


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _host(pair: str) -> str:
    name, separator, address = pair.partition("=")
    if not separator or not name or not address:
        raise InputError(f"add-hosts: expected name=address, got {pair!r}")
    return pair


def _network(mode: str) -> str:
    if mode not in _NETWORKS:
        raise InputError(f"force-network-mode: unknown mode {mode!r}", hint="host, none or default")
    return _NETWORKS[mode]


def _number(attrs: Mapping[str, str], name: str) -> int:
    text = attrs.get(name, "") or "0"
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise InputError(f"{name}: expected a number of bytes, got {text!r}")
    return int(text)


def _epoch(text: str) -> int | None:
    if not text:
        return None
    if text == "context":
        raise NotYetError("SOURCE_DATE_EPOCH=context")
    if not (text.isascii() and text.isdecimal() and len(text) < 11):
        raise InputError(f"SOURCE_DATE_EPOCH={text!r} is not a number of seconds")
    return int(text)


def _imports(attrs: Mapping[str, str]) -> list[str]:
    """Return `--cache-from` values: references, and what clients send as JSON."""
    found = [f"type=registry,ref={ref}" for ref in _words(attrs.get("cache-from", ""))]
    text = attrs.get("cache-imports", "")
    if text:
        try:
            entries = json.loads(text)
            found += [cache_text(entry["Type"], entry.get("Attrs") or {}) for entry in entries]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"cache-imports is not what it should be: {text[:200]!r}") from error
    return list(dict.fromkeys(found))


def cache_text(kind: str, attrs: Mapping[str, str]) -> str:
    """Return a cache's type and attributes as `--cache-from` and `--cache-to` take them."""
    return join_csv([f"type={kind}", *(f"{name}={value}" for name, value in attrs.items())])
