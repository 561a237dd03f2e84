"""What this machine offers for running steps, as facts with the one line that mends what is missing.

For `lamina doctor`. Everything that needs a namespace is tried in a child process; the caller is never changed.
Out: a list of `Probe`, in the order a person should read them.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass

from lamina.errors import Error
from lamina.executor import cgroups
from lamina.executor.runtime import find_runtime

_TIMEOUT_S = 20
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OLDEST_KERNEL = (5, 11)  # overlay in a user namespace
_OLDEST_RUNTIMES = {"crun": (1, 4), "runc": (1, 1, 12)}  # runc: CVE-2024-21626


@dataclass(frozen=True, slots=True)
class Probe:
    """One fact.

    Attributes:
        name: what was looked at.
        ok: whether builds can rely on it.
        detail: what was found.
        fix: the line that mends it, "" when nothing has to be mended or nothing can.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""


def probe_machine(search_path: str, work_dir: str, *, python: str = sys.executable) -> list[Probe]:
    """Return all facts.

    Args:
        search_path: the user's PATH.
        work_dir: existing directory on the disk that builds use; a directory is made in it and removed.
        python: interpreter for the child processes.
    """
    return [
        _kernel(os.uname().release),
        _runtime(search_path),
        _overlay(work_dir, python),
        _user_namespaces(python),
        *_subordinate_ids(),
        _cgroups(),
        _seccomp(),
    ]


def parse_version(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: "6.18.44-fc" is (6, 18, 44)."""
    numbers: list[int] = []
    for part in text.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)


def _kernel(release: str) -> Probe:
    ok = parse_version(release) >= _OLDEST_KERNEL
    fix = "" if ok else f"use Linux {'.'.join(map(str, _OLDEST_KERNEL))} or later"
    return Probe("kernel", ok, release, fix)


def _runtime(search_path: str) -> Probe:
    try:
        runtime = find_runtime(search_path, with_version=True)
    except Error as error:
        return Probe("OCI runtime", False, error.what, error.hint)
    detail = f"{runtime.name} {runtime.version or 'of unknown version'} at {runtime.path}"
    oldest = _OLDEST_RUNTIMES[runtime.name]
    if runtime.version and parse_version(runtime.version) < oldest:
        wanted = ".".join(map(str, oldest))
        return Probe("OCI runtime", True, f"{detail}, which is older than {wanted}", "apt-get install crun")
    return Probe("OCI runtime", True, detail)


def _overlay(work_dir: str, python: str) -> Probe:
    name = "overlay mounts" if os.geteuid() == 0 else "overlay mounts as this user"
    answer = _child("overlay", python, work_dir)
    if answer == "ok":
        return Probe(name, True, f"work in {work_dir}")
    fix = "put LAMINA_ROOT on ext4, xfs or tmpfs, or run as root" if "user namespace" not in answer else _USERNS_FIX
    return Probe(name, False, answer, fix)


_USERNS_FIX = "sysctl -w user.max_user_namespaces=65536 kernel.apparmor_restrict_unprivileged_userns=0"


def _user_namespaces(python: str) -> Probe:
    answer = _child("userns", python)
    return Probe("user namespaces", answer == "ok", "allowed" if answer == "ok" else answer, _fix(answer, _USERNS_FIX))


def _fix(answer: str, fix: str) -> str:
    return "" if answer == "ok" else fix


def _subordinate_ids() -> list[Probe]:
    from lamina.executor.userns import read_ranges

    missing = [tool for tool in ("newuidmap", "newgidmap") if shutil.which(tool, path=_SYSTEM_PATH) is None]
    detail = f"{', '.join(missing)} not found" if missing else "newuidmap and newgidmap are there"
    tools = Probe("id map tools", not missing, detail, "apt-get install uidmap" if missing else "")
    if os.geteuid() == 0:
        return [tools, Probe("subordinate ids", True, "not needed by root")]
    users, groups = read_ranges()
    count = min(sum(count for _, count in users), sum(count for _, count in groups))
    fix = "" if count else "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER"
    return [tools, Probe("subordinate ids", count > 0, f"{count} ids", fix)]


def _cgroups() -> Probe:
    layout = cgroups.layout()
    return Probe("control groups", True, {"none": "none mounted"}.get(layout, layout))


def _seccomp() -> Probe:
    with open("/proc/self/status") as file:
        ok = any(line.startswith("Seccomp:") for line in file)
    return Probe("seccomp", ok, "available" if ok else "the kernel has none; steps run unfiltered")


def _child(check: str, python: str, *arguments: str) -> str:
    """Run one check in a process of its own; return "ok" or what went wrong."""
    import subprocess

    package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    launch = "import sys; sys.path.insert(0, sys.argv.pop(1)); from lamina.executor import probe; probe.child_main()"
    command = [python, "-I", "-S", "-c", launch, package_root, check, *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_TIMEOUT_S, check=False, text=True, stdin=subprocess.DEVNULL, env={}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"could not be tried: {error}"
    return done.stdout.strip() or (done.stderr.strip().splitlines() or ["no answer"])[-1]


def child_main() -> None:
    """In a child process: try what the first argument names and print "ok" or the reason."""
    check, *arguments = sys.argv[1:]
    try:
        _enter()
        if check == "overlay":
            _try_overlay(arguments[0])
        answer = "ok"
    except Error as error:
        answer = str(error)
    except OSError as error:
        answer = f"{check}: {error.strerror}"
    os.write(1, answer.encode("utf-8", "replace"))


def _enter() -> None:
    """Get a mount namespace of our own: directly as root, else in a user namespace."""
    from lamina.executor import kernel, userns

    if os.geteuid() == 0 and sys.argv[1] != "userns":
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    elif os.geteuid() == 0:
        kernel.unshare(kernel.CLONE_NEWUSER)
    else:
        userns.enter_user_namespace()


def _try_overlay(work_dir: str) -> None:
    import tempfile

    from lamina.executor import kernel, overlay

    base = tempfile.mkdtemp(prefix="probe-", dir=work_dir)
    try:
        for name in ("lower", "upper", "work", "root"):
            os.mkdir(f"{base}/{name}")
        with open("/proc/self/uid_map") as file:
            nested = file.read().split() != ["0", "0", "4294967295"]
        root = f"{base}/root"
        overlay.mount_overlay(root, [f"{base}/lower"], f"{base}/upper", f"{base}/work", userxattr=nested)
        os.mkdir(f"{root}/made")
        kernel.umount(root)
    finally:
        shutil.rmtree(base, ignore_errors=True)
