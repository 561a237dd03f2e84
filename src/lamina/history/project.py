"""What builds are builds of: context, Dockerfile, target, platforms. Imported on the fully cached path: keep it light.

In: the options of a build by field name. Out: a hash under which its builds are compared, a name for people, and the
line that a build found in the memo leaves. No secret and no credential of a URL is in any of them.
"""

from __future__ import annotations

import hashlib
import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

REPEATED = "repeated"
"""Name of the file below `builds/` that cached builds append to."""
_MOST_REPEATED_BYTES = 4 << 20
_MOST_NAME = 200
_CREDENTIALS = re.compile(r"//[^/@\s]*@")


def new_id() -> str:
    """Return a random name for a build: ten hexadecimal digits."""
    return os.urandom(5).hex()


def without_credentials(url: str) -> str:
    """Return a URL without user and password."""
    return _CREDENTIALS.sub("//", url)


def project_place(options: Mapping[str, Any]) -> str:
    """Return where the context is: what the user named when it came from elsewhere, else the directory's real path."""
    origin = without_credentials(str(options.get("origin") or ""))
    if origin:
        return origin
    context = options.get("context") or ""
    return os.path.realpath(context) if context else ""


def project_hash(options: Mapping[str, Any]) -> str:
    """Return the hash under which builds of the same thing are found."""
    platforms = options.get("platforms") or ()
    parts = (project_place(options), _dockerfile(options), options.get("target") or "", *platforms)
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def project_name(options: Mapping[str, Any]) -> str:
    """Return what people call it: the directory's or repository's name, and what is not the default.

    The build argument BUILDKIT_BUILD_NAME says it otherwise.
    """
    given = str((options.get("build_args") or {}).get("BUILDKIT_BUILD_NAME") or "")
    if given:
        return " ".join(given.split())[:_MOST_NAME].encode("utf-8", "replace").decode()
    place = project_place(options).rstrip("/").removesuffix(".git")
    name = place.rpartition("/")[2] or place or "-"
    dockerfile = _dockerfile(options)
    if dockerfile not in ("Dockerfile", "-"):
        name += f" -f {dockerfile}"
    if options.get("target"):
        name += f" --target {options['target']}"
    return name.encode("utf-8", "replace").decode()


def _dockerfile(options: Mapping[str, Any]) -> str:
    return str(options.get("dockerfile_name") or "")


def note_repeated(root: str, options: Mapping[str, Any], same_as: str, steps: int, started: float) -> None:
    """Record a build that was found in the memo whole: one line appended to a file, which `take_repeated` brings in.

    Not a row at once: closing the state file after a write may cost more than the build. Failing costs the record.

    Args:
        root: the state directory.
        same_as: id of the build whose steps it found again.
        steps: how many that were, all cached.
        started: seconds since the epoch.
    """
    import json
    import time

    row = [new_id(), project_hash(options), project_name(options), started, time.time(), steps, steps, same_as]
    path = os.path.join(root, "builds", REPEATED)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        try:
            fd = os.open(path, flags, 0o600)
        except FileNotFoundError:
            os.mkdir(os.path.dirname(path))
            fd = os.open(path, flags, 0o600)
        try:
            if os.fstat(fd).st_size < _MOST_REPEATED_BYTES:
                os.write(fd, json.dumps(row).encode() + b"\n")
        finally:
            os.close(fd)
    except OSError:
        return
