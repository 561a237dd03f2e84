"""The fully cached build, decided in milliseconds.

After a build, `memo.remember` writes down what the whole of it observed: the options and the Dockerfile (the
key), the names of base images and what they were pinned to, and the stat data of the context files it could
read. If all of that is as it was, the result is too, and neither parser nor graph nor solver is needed.

Sound because a file's ctime cannot be set back: equal stat data (path, type, mode, size, mtime, ctime, inode) means
equal files, once they are older than a tick of the clock. This module and all it imports are on the list that
`tests/e2e/test_fast_path.py` holds: nothing heavy.
"""

from __future__ import annotations

import hashlib
import json
import os

from lamina.history.project import note_repeated
from lamina.source.fingerprint import fingerprint
from lamina.store import names as store_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VERSION = "lamina.memo.v1"

# Options that say where a result is shown or how fast it is made, not what it is.
_NOT_COUNTED = (
    *("context", "dockerfile", "ignore", "jobs", "pull", "outputs", "tags"),
    *("origin", "origin_materials", "expect_cached"),
)


class CachedBuild:
    """A whole build found in the memo; `steps` are the names of its vertices, `build` the record of who ran them."""

    __slots__ = ("build", "config_digest", "counted", "digest", "metadata", "names", "steps", "warnings")

    def __init__(self, value: dict[str, Any]) -> None:
        self.digest: str = value["digest"]
        self.config_digest: str = value["config_digest"]
        self.metadata: dict[str, Any] = value["metadata"]
        self.names: list[str] = value["names"]
        self.steps: list[str] = value["steps"]
        self.warnings: list[str] = value["warnings"]
        self.build: str = value.get("build") or "unknown"
        self.counted: int = value.get("counted", 0)


def is_memoizable(options: Mapping[str, Any]) -> bool:
    """Tell whether a build with these options only looks at what a memo holds, and only goes to the store."""
    if options["pull"] or options["no_cache"] or options["no_cache_filter"] or options["push"] or options["load"]:
        return False
    if options["attests"]:
        return False  # they tell of this build
    if options["counted_secrets"]:
        return False  # whether they changed is for those to say who may read them
    if options["build_contexts"] or options["cache_from"] or options["cache_to"] or options["outputs"]:
        return False
    return bool(options["context"]) and len(options["platforms"]) <= 1


def memo_key(options: Mapping[str, Any]) -> str:
    """Return the key of a build's options, Dockerfile and ignore file."""
    state = hashlib.sha256(VERSION.encode())
    counted = {name: value for name, value in options.items() if name not in _NOT_COUNTED}
    counted["context"] = os.path.realpath(options["context"])
    state.update(json.dumps(counted, sort_keys=True, default=str).encode())
    for data in (options["dockerfile"], options["ignore"]):
        state.update(b"-" if data is None else b"%d:" % len(data) + data)
    return "build:" + state.hexdigest()


def try_cached(options: Mapping[str, Any], root: str) -> CachedBuild | None:
    """Return the build's result if nothing that it observes has changed, with its names up to date; else None.

    Never raises for what is missing or broken: the full build then finds out and says so.
    """
    if not is_memoizable(options):
        return None
    path = os.path.join(root, "state.db")
    if not os.path.exists(path):
        return None
    try:
        value = _find(path, memo_key(options))
        if value is None or not _still_holds(value, options, root, path):
            return None
    except (OSError, ValueError, KeyError):
        return None
    return CachedBuild({**value, "names": _wanted_names(options)})


def note(hit: CachedBuild, options: Mapping[str, Any], root: str, started: float) -> None:
    """Leave a record of a build that `try_cached` answered; `started` is in seconds since the epoch."""
    note_repeated(root, options, hit.build, hit.counted, started)


def _find(path: str, key: str) -> dict[str, Any] | None:
    rows = _select(path, "SELECT value FROM memo WHERE key = ?", key)
    return json.loads(rows[0][0]) if rows else None


def _select(path: str, sql: str, *values: str) -> list[Any]:
    import sqlite3

    try:
        connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=5)
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise ValueError(str(error)) from error


def _wanted_names(options: Mapping[str, Any]) -> list[str]:
    """Return the full names of the tags; only tags in a plain form are taken here."""
    found = []
    for tag in options["tags"]:
        name, colon, version = tag.rpartition(":") if ":" in tag.rpartition("/")[2] else (tag, "", "")
        first = name.partition("/")[0]
        if "/" not in name:
            name = f"docker.io/library/{name}"
        elif "." not in first and ":" not in first and first != "localhost":
            name = f"docker.io/{name}"
        found.append(f"{name}:{version if colon else 'latest'}")
    return found


def _still_holds(value: Mapping[str, Any], options: Mapping[str, Any], root: str, path: str) -> bool:
    oci = os.path.join(root, "oci")
    digest = value["digest"]
    if not os.path.exists(os.path.join(oci, "blobs", "sha256", digest.partition(":")[2])):
        return False
    known = store_names.read_names(oci)
    if any(known.get(name) != digest for name in _wanted_names(options)):
        return False
    for name, pinned in value["pins"].items():
        if name in known:
            if known[name] != pinned:
                return False
        elif not _pinned_as(path, value["pin_keys"][name], pinned):
            return False
    for source in value["sources"]:
        found = fingerprint(options["context"], source["prefixes"], source["ignore"])
        if found is None or found[0].hex() != source["fingerprint"]:
            return False
    return True


def _pinned_as(path: str, key: str, digest: str) -> bool:
    rows = _select(path, "SELECT value FROM memo WHERE key = ?", key)
    return bool(rows) and json.loads(rows[0][0])["digest"] == digest
