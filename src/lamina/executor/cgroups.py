"""Control groups, as far as a step needs them: which layout there is, and a group of its own below a given parent.

Without `--cgroup-parent` a step stays in the group of the build, so that a limit put on the build holds for its
steps, and nothing has to be made or removed. With one, the helper itself enters a new group below that parent while
it starts the runtime (a child begins in its parent's group) and goes back; it has a single thread, so nothing else
moves along. Runs in the helper; `layout` may be called anywhere.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

from lamina.executor import kernel
from lamina.executor.limits import controllers, files_v1, files_v2, write
from lamina.executor.stubs import MachineSetupError, SetupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

ROOT = "/sys/fs/cgroup"
_CGROUP2_MAGIC = 0x63677270
_STATFS_BYTES = 256


def layout() -> str:
    """Return "v2", "hybrid", "v1" or "none"."""
    if _magic(ROOT) == _CGROUP2_MAGIC:
        return "v2"
    if _magic(f"{ROOT}/unified") == _CGROUP2_MAGIC:
        return "hybrid"
    return "v1" if _hierarchies() else "none"


def please_runtime() -> None:
    """Show the runtime a layout that it accepts, in our mount namespace.

    crun 1.8 refuses to start beside the unified hierarchy of a hybrid machine, and without any hierarchy at all;
    an empty memory file system in its place looks like the old layout, of which it then uses nothing.
    """
    place = {"hybrid": f"{ROOT}/unified", "none": ROOT}.get(layout())
    if place is not None and os.path.isdir(place):
        # Covered and not unmounted: in a user namespace, inherited mounts cannot be taken away.
        kernel.mount("none", place, "tmpfs", kernel.MS_RDONLY, "size=0")


def make_read_only() -> None:
    """Take the right to make groups away, in our mount namespace: runc cannot be told to leave them alone.

    It then goes on without, which keeps its steps in the build's group, and a killed build leaves no empty groups.
    """
    flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY
    keep = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC | kernel.MS_RELATIME
    for place in {*_hierarchies().values(), *([ROOT] if layout() == "v2" else [])}:
        try:
            kernel.mount("none", place, flags=flags | keep)
        except OSError:
            pass  # then runc tries, and says itself what it may not


class StepGroup:
    """The groups made for one step, one per hierarchy."""

    def __init__(self, paths: list[str]) -> None:
        self._paths = paths

    def remove(self) -> None:
        """Remove the groups; they are empty once the step's processes have gone."""
        for path in self._paths:
            try:
                os.rmdir(path)
            except OSError:
                pass


class Groups:
    """Enters and leaves control groups on behalf of the helper."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._home: list[str] = []  # directories to go back to

    def limit(self, limits: Mapping[str, Any], number: int) -> StepGroup:
        """Enter a new group with limits, in the hierarchies that know them.

        Raises:
            OSError: this machine, or this user, cannot have such a group.
        """
        name, made = f"lamina-{self._token}-{number}", list[str]()
        try:
            for base, home, files in _places(limits):
                path = os.path.join(base, *([] if base == ROOT else [home.strip("/")]), name)
                os.mkdir(path)
                made.append(path)
                _prepare_cpuset(base, path)
                write(path, files)
                _enter(path)
                self._home.append(os.path.join(base, home.strip("/")))
        except OSError:
            self.leave()
            StepGroup(made).remove()
            raise
        return StepGroup(made)

    def join(self, parent: str, number: int) -> StepGroup | None:
        """Enter a new group below `parent` in every hierarchy there is; None when there is no parent to honour.

        Raises:
            SetupError: the group cannot be made or entered.
        """
        if not parent:
            return None
        parts = [part for part in parent.split("/") if part]
        if ".." in parts or "." in parts or "\0" in parent:
            raise SetupError(f"control group {parent!r} is not a plain path")
        homes = _own_groups()
        if not homes:
            raise MachineSetupError(f"cannot use control group {parent!r}: no control groups on this machine")
        made: list[str] = []
        try:
            for base, home in homes.items():
                path = os.path.join(base, *parts, f"lamina-{self._token}-{number}")
                os.makedirs(path, exist_ok=True)
                made.append(path)
                _prepare_cpuset(base, path)
                _enter(path)
                self._home.append(os.path.join(base, home.strip("/")))
        except OSError as error:
            self.leave()
            StepGroup(made).remove()
            raise MachineSetupError(f"cannot use control group {parent!r}: {error.strerror}") from error
        return StepGroup(made)

    def leave(self) -> None:
        """Go back to where the helper was."""
        for path in self._home:
            _enter(path)
        self._home.clear()


def _places(limits: Mapping[str, Any]) -> list[tuple[str, str, dict[str, str]]]:
    """Return base directory, our own group and the files to write, of each hierarchy that limits need.

    Raises:
        OSError: there is none for one of them.
    """
    needed = controllers(limits)
    if layout() == "v2":
        with open(f"{ROOT}/cgroup.subtree_control", "w") as file:
            file.write(" ".join(f"+{name}" for name in needed))
        return [(ROOT, _own_groups().get(ROOT, "/"), files_v2(limits))]
    hierarchies, homes = _hierarchies(), _own_groups()
    found: dict[str, dict[str, str]] = {}
    for name, value in files_v1(limits).items():
        base = hierarchies.get(name.partition(".")[0])
        if base is None or base not in homes:
            raise OSError(errno.ENOENT, f"no control group for {name.partition('.')[0]}")
        found.setdefault(base, {})[name] = value
    return [(base, homes[base], files) for base, files in found.items()]


def _enter(path: str) -> None:
    with open(f"{path}/cgroup.procs", "w") as file:
        file.write("0")  # the writer itself


def _prepare_cpuset(base: str, path: str) -> None:
    """A new v1 cpuset has no processor and takes no process until it is given its parent's."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        here = path
        missing = []
        while here != base and os.path.exists(f"{here}/{name}") and not _text(f"{here}/{name}"):
            missing.append(here)
            here = os.path.dirname(here)
        for directory in reversed(missing):
            with open(f"{directory}/{name}", "w") as file:
                file.write(_text(f"{os.path.dirname(directory)}/{name}"))


def _text(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def _hierarchies() -> dict[str, str]:
    """Return the mounted v1 hierarchies: controllers as /proc/self/cgroup names them -> directory."""
    found: dict[str, str] = {}
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            fstype, _, options = right.split(" ", 2)
            if fstype == "cgroup":
                place = left.split(" ")[4]
                for option in options.strip().split(","):
                    found[option] = place
    return found


def _own_groups() -> dict[str, str]:
    """Return base directory of each hierarchy -> our own group in it."""
    groups: dict[str, str] = {}
    hierarchies = _hierarchies()
    unified = _magic(ROOT) == _CGROUP2_MAGIC
    with open("/proc/self/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if controllers == "":
                if unified:
                    groups[ROOT] = path
                continue
            base = hierarchies.get(controllers.split(",", 1)[0])
            if base is not None:
                groups[base] = path
    return groups


def _magic(path: str) -> int:
    """Return statfs(2)'s f_type, 0 when there is no such path."""
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(path), buffer) != 0:
        if ctypes.get_errno() not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
        return 0
    return int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder)
