"""Look at this machine: runtime, overlay, user namespaces, cgroups, disk. Reads, and tries one mount in a child.

Nothing is changed: the trial mount happens in a child's own mount namespace, in a temporary directory.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lamina.engine.options import Environment
from lamina.errors import Error

_DEVICES_SHOWN = 6
_SINGLE = "steps can only run as root"
_TRY_OVERLAY = """
import os, sys
from lamina.executor import kernel, overlay
base, userns = sys.argv[1], sys.argv[2] == "1"
names = ["lower", "upper", "work", "merged"]
for name in names:
    os.mkdir(os.path.join(base, name))
if userns:
    from lamina.executor.userns import enter_user_namespace
    enter_user_namespace()
else:
    kernel.unshare(0x00020000)
kernel.mount("", "/", flags=(1 << 18) | (1 << 14))
lower, upper, work, merged = (os.path.join(base, name) for name in names)
options = f"lowerdir={lower},upperdir={upper},workdir={work}" + (",userxattr" if userns else "")
kernel.mount("overlay", merged, "overlay", 0, options)
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        mark: "ok", "note" (slower or less without it) or "missing" (RUN steps need it).
        what: the thing; `found`: what is there; `mend`: the line that mends it, "" when nothing is to be done.
    """

    mark: str
    what: str
    found: str
    mend: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the finding as a JSON object."""
        return {"status": self.mark, "what": self.what, "found": self.found, "mend": self.mend}


def probe_machine(environment: Environment, cdi_dirs: Sequence[str] = ()) -> list[Finding]:
    """Return what was found, in the order people read it; devices are looked up in `cdi_dirs`, or the usual places."""
    probes: list[Callable[[Environment], Finding]] = [
        _runtime,
        _kernel,
        _user,
        _overlay,
        _cgroups,
        _seccomp,
        _disk,
    ]
    return [*(probe(environment) for probe in probes), *_devices(cdi_dirs)]


def _devices(dirs: Sequence[str]) -> list[Finding]:
    """What `RUN --device` can ask for; nothing is said where nobody describes devices."""
    from lamina.executor.cdi_registry import DEFAULT_DIRS, CdiRegistry

    registry = CdiRegistry(dirs or DEFAULT_DIRS)
    names, problems = registry.names, registry.problems
    if not names and not problems:
        return []
    shown = ", ".join(names[:_DEVICES_SHOWN]) + (
        f" and {len(names) - _DEVICES_SHOWN} more" * (len(names) > _DEVICES_SHOWN)
    )
    return [Finding("note" if problems else "ok", "devices (CDI)", shown or "none", problems[0] if problems else "")]


def _runtime(environment: Environment) -> Finding:
    from lamina.executor.runtime import find_runtime

    try:
        runtime = find_runtime(environment.search_path, environment.runtime or None, with_version=True)
    except Error as error:
        return Finding("missing", "OCI runtime", error.what, error.hint)
    return Finding("ok", "OCI runtime", f"{runtime.name} {runtime.version} ({runtime.path})")


def _kernel(_environment: Environment) -> Finding:
    release = os.uname().release
    major, _, rest = release.partition(".")
    minor = "".join(c for c in rest.partition(".")[0] if c.isdigit()) or "0"
    if (int(major), int(minor)) < (5, 11):
        return Finding("note", "kernel", release, "5.11 or newer is needed for builds as an ordinary user")
    return Finding("ok", "kernel", f"{release} on {os.uname().machine}")


def _user(environment: Environment) -> Finding:
    """User namespaces: not needed by root; ordinary users need them, and a range of subordinate ids."""
    if os.geteuid() == 0:
        return Finding("ok", "user", "root in a user namespace" if environment.userns else "root")
    for path in ("/proc/sys/kernel/unprivileged_userns_clone", "/proc/sys/user/max_user_namespaces"):
        if _read(path) == "0":
            name = path.removeprefix("/proc/sys/").replace("/", ".")
            return Finding("missing", "user namespaces", f"{name} is 0", f"sysctl -w {name}=10000")
    if _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        mend = "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        return Finding("missing", "user namespaces", "restricted by AppArmor", mend)
    if shutil.which("newuidmap", path=environment.search_path) is None:
        return Finding("note", "user namespaces", f"no newuidmap: {_SINGLE}", "apt-get install uidmap")
    name = pwd.getpwuid(os.geteuid()).pw_name
    for path in ("/etc/subuid", "/etc/subgid"):
        owners = [line.partition(":")[0] for line in _read(path).splitlines()]
        if name not in owners and str(os.geteuid()) not in owners:
            mend = f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"
            return Finding("note", "user namespaces", f"no ids for {name} in {path}: {_SINGLE}", mend)
    return Finding("ok", "user namespaces", f"subordinate ids for {name}")


def _overlay(environment: Environment) -> Finding:
    """Try a real overlay mount where the state lies."""
    root = environment.root
    while not root.exists() and root != root.parent:
        root = root.parent
    folder = str(root) if os.access(root, os.W_OK) else tempfile.gettempdir()
    userns = "0" if os.geteuid() == 0 else "1"
    with tempfile.TemporaryDirectory(prefix=".lamina-doctor-", dir=folder) as base:
        done = subprocess.run(
            [sys.executable, "-c", _TRY_OVERLAY, base, userns],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        _remove_work(base)
    if done.returncode == 0:
        return Finding("ok", "overlay file system", f"works in {folder}")
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return Finding("note", "overlay file system", f"refused in {folder}: {reason}", "modprobe overlay")


def _remove_work(base: str) -> None:
    """Overlay leaves `work/work` without permissions; make it removable."""
    inner = os.path.join(base, "work", "work")
    if os.path.isdir(inner):
        os.chmod(inner, 0o700)


def _cgroups(_environment: Environment) -> Finding:
    from lamina.executor.cgroups import layout

    found = layout()
    if found == "none":
        return Finding("note", "cgroups", "none: steps run without limits", "mount -t cgroup2 none /sys/fs/cgroup")
    return Finding("ok", "cgroups", found)


def _seccomp(_environment: Environment) -> Finding:
    lines = _read("/proc/self/status").splitlines()
    if any(line.startswith("Seccomp:") for line in lines):
        return Finding("ok", "seccomp", "available")
    return Finding("note", "seccomp", "this kernel has none: steps run without a filter")


def _disk(environment: Environment) -> Finding:
    root = environment.root
    while not root.exists() and root != root.parent:
        root = root.parent
    from lamina.cli.terminal import size_text

    free = shutil.disk_usage(root).free
    found = f"{size_text(free)} free for {environment.root}"
    if free < 1 << 30:
        return Finding("note", "disk", found, "lamina prune")
    return Finding("ok", "disk", found)


def _read(path: str) -> str:
    """Return a small file's text without white space around it, "" when it cannot be read."""
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""
