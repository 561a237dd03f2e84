"""Which commit a build context is, for provenance: asked of git, as buildx does; no answer is no error.

Asked only when provenance is wanted. The repository is not trusted: no hook, no monitor and no filter of its
configuration is run, nothing in it is written, and the answers are capped and waited for a few seconds at most.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

_TIMEOUT_S = 10
_MAX_BYTES = 1 << 16
_GIT = ("git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.untrackedCache=false")


def version_control(context: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return `revision` (with `-dirty` where tracked files differ), `source` and `localdir:context`; {} for no git."""
    if environ.get("BUILDX_GIT_INFO", "").lower() in ("false", "0"):
        return {}
    revision = _ask(context, environ, "rev-parse", "--verify", "HEAD")
    if not revision:
        return {}
    filters = _ask(context, environ, "config", "--includes", "--name-only", "--get-regexp", r"^filter\.") or ""
    off = [word for name in filters.split("\n") if name for word in ("-c", f"{name}=")]
    status = ("status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all", ".")
    changed = _ask(context, environ, *off, *status)
    found = {
        "revision": revision + ("-dirty" if changed or changed is None else ""),
        "source": _ask(context, environ, "config", "--get", "remote.origin.url") or "",
        "localdir:context": (_ask(context, environ, "rev-parse", "--show-prefix") or "").rstrip("/") or ".",
    }
    return {name: value for name, value in found.items() if value}


def _ask(context: str, environ: Mapping[str, str], *words: str) -> str | None:
    """Return what git printed, None when it failed."""
    env = {name: environ[name] for name in ("PATH", "HOME") if name in environ}
    env |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [*_GIT, "-C", os.path.abspath(context), *words],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode != 0 or len(done.stdout) > _MAX_BYTES:
        return None
    return done.stdout.decode("utf-8", "replace").strip()
