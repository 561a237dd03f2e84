"""Find the OCI runtime that runs steps: crun first, runc second.

In: the PATH to search, given by the caller (this room does not read the environment), and the name the user asked
for. Out: a `Runtime`. Touches the disk and starts `RUNTIME --version` once.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

from lamina.errors import InputError, MachineError

KNOWN = ("crun", "runc")
_VERSION_TIMEOUT_S = 10
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Runtime:
    """An OCI runtime on this machine.

    Attributes:
        path: absolute path of the program.
        name: "crun" or "runc": which options it knows.
        version: as it says itself, such as "1.8.1"; "" when it was not asked.
    """

    path: str
    name: str
    version: str = ""


def find_runtime(search_path: str, wanted: str | None = None, *, with_version: bool = False) -> Runtime:
    """Return the runtime to use.

    Args:
        search_path: directories separated by ":"; the system's usual ones are searched after it, because an
            ordinary user's PATH often lacks the sbin directories that runc lives in.
        wanted: name or absolute path the user asked for; None takes the first of `KNOWN`.
        with_version: ask the program for its version (costs its start).

    Raises:
        InputError: the wanted one is neither a crun nor a runc.
        MachineError: none is there, with the line that installs one.
    """
    if wanted is not None and not os.path.basename(wanted).startswith(KNOWN):
        raise InputError(f"unknown OCI runtime {wanted!r}", hint=f"use one of: {', '.join(KNOWN)}")
    for candidate in (wanted,) if wanted else KNOWN:
        path = shutil.which(candidate, path=f"{search_path}:{_SYSTEM_PATH}")
        if path is not None:
            path = os.path.realpath(path) if not os.path.isabs(path) else path
            name = next(known for known in KNOWN if os.path.basename(candidate).startswith(known))
            return Runtime(path, name, read_version(path) if with_version else "")
    what = f"no OCI runtime {wanted} found" if wanted else "no OCI runtime found (looked for crun and runc)"
    raise MachineError(what, hint="apt-get install crun")


def read_version(path: str) -> str:
    """Return what `path --version` calls its version, "" when it does not say."""
    import subprocess

    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, timeout=_VERSION_TIMEOUT_S, env={}, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    words = done.stdout.split("\n", 1)[0].split()
    return words[2] if len(words) >= 3 and words[1] == "version" else ""
