"""Writes down what a whole build observed and came to, for `engine.fast` to find.

Recorded only when every observation can be checked again cheaply: one context directory, base images by name.
The stat fingerprint is taken before anything is read, so a file that changes during the build changes it too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lamina.engine import fast
from lamina.engine.options import BuildResult
from lamina.git_url import is_commit
from lamina.llb.definition import Graph
from lamina.source.fingerprint import fingerprint
from lamina.source.statcache import file_clock_ns, is_settled
from lamina.state.db import State


@dataclass(frozen=True, slots=True)
class Observation:
    """What the files of one local source looked like before the build read them."""

    prefixes: list[str]
    ignore: list[str]
    fingerprint: str


def observe(context: str, graph: Graph) -> list[Observation] | None:
    """Take the fingerprint of every local source; None when the build cannot be memoized by it."""
    found = []
    now = file_clock_ns()
    for vertex in graph.vertices:
        if vertex.op.WhichOneof("op") == "exec" and len(vertex.op.exec.cdiDevices):
            return None  # which devices this machine has is looked up each time
        if vertex.op.WhichOneof("op") != "source" or _is_pinned(vertex.op.source):
            continue
        if vertex.op.source.identifier != "local://context":
            return None
        attrs = vertex.op.source.attrs
        prefixes = json.loads(attrs.get("local.followpaths") or attrs.get("local.includepattern") or '["."]')
        ignore = json.loads(attrs.get("local.excludepatterns") or "[]")
        taken = fingerprint(context, prefixes, ignore)
        if taken is None or not is_settled(taken[1], now):
            return None
        found.append(Observation(prefixes, ignore, taken[0].hex()))
    return found


def _is_pinned(source: Any) -> bool:
    """Tell whether a source is looked at by other means: images by their pins, the rest by what the graph says."""
    identifier = str(source.identifier)
    if identifier.startswith(("http://", "https://")):
        return bool(source.attrs.get("http.checksum"))
    if identifier.startswith("git://"):
        return is_commit(identifier.partition("#")[2].partition(":")[0])
    return identifier.startswith(("docker-image://", "oci-layout://"))


def remember(
    state: State,
    options: Mapping[str, Any],
    observed: list[Observation] | None,
    pins: Mapping[str, tuple[str, str]],
    result: BuildResult,
    counted: int,
) -> None:
    """Record a finished build.

    Args:
        options: what the build was asked, by field name.
        observed: what `observe` gave before the build.
        pins: for each base image's full name: the digest it stood for, and the key under which that is noted.
        result: what came out.
        counted: how many steps have a key.
    """
    # what a build without cache made is what the next one with it would find
    options = {**options, "no_cache": False, "no_cache_filter": [], "pull": False}
    if observed is None or not result.digest or not fast.is_memoizable(options):
        return
    value = {
        "digest": result.digest,
        "config_digest": result.config_digest,
        "metadata": result.metadata,
        "names": list(result.names),
        "steps": [timing.name for timing in result.timings],
        "warnings": list(result.warnings),
        "build": result.build,
        "counted": counted,
        "pins": {name: digest for name, (digest, _) in pins.items()},
        "pin_keys": {name: key for name, (_, key) in pins.items()},
        "sources": [
            {"prefixes": item.prefixes, "ignore": item.ignore, "fingerprint": item.fingerprint} for item in observed
        ],
    }
    row = (fast.memo_key(options), json.dumps(value, sort_keys=True), time.time())
    state.execute("INSERT OR REPLACE INTO memo VALUES (?, ?, ?)", row)
