"""What a CDI device brings, put on a step: environment, groups, device files, mounts, hooks.

In: a `Step` and the `Edits` of its devices. Out: the step with them. Looks at the machine's device files (lstat) and
changes nothing.
Where the build is root, the runtime makes the device files (mknod) with the number of the machine's file, for the
step's user; in a user namespace, where nobody may, the machine's file is bound (`executor.spec` chooses). They go under
/dev only: that is a file system of the step's own, so no device file gets into a layer, and everything else that a
sandboxed step sees is mounted `nodev`.
Hooks are programs of this machine. They come from the machine's CDI files only, never from a build's context, and run
as BuildKit has them run: by the OCI runtime, with the build's rights, in the step's helper, so they end with it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import replace

from lamina.errors import InputError, MachineError
from lamina.executor.cdi import DeviceNode, Edits, HostMount
from lamina.executor.step import Step, StepMount

_BINDS = ("", "bind", "none")
# How a mount spreads to others says nothing in a namespace that ends with the step; times of access neither.
_IDLE_OPTIONS = frozenset(
    (
        *("bind", "rbind", "private", "rprivate", "slave", "rslave", "shared", "rshared"),
        *("rw", "dev", "suid", "exec", "defaults"),
        *("noatime", "relatime", "strictatime", "nodiratime", "diratime", "atime"),
    )
)
_FLAGS = ("nosuid", "nodev", "noexec")


def with_devices(step: Step, edits: Edits) -> Step:
    """Return the step with what its devices bring.

    Raises:
        InputError: a device file outside /dev, a kind or option of a mount that steps cannot be given.
        MachineError: a device file that the machine should have is not there.
    """
    return replace(
        step,
        env=_replaced(step.env, edits.env),
        extra_gids=tuple(dict.fromkeys((*step.extra_gids, *edits.gids))),
        devices=tuple({node.path: _on_machine(node, step) for node in edits.nodes}.values()),
        mounts=(*step.mounts, *(_mount(mount) for mount in edits.mounts)),
        hooks=edits.hooks,
    )


def _replaced(env: Iterable[str], more: Iterable[str]) -> tuple[str, ...]:
    """Return variables, each name once; a later one takes the place of an earlier."""
    found = {line.partition("=")[0]: line for line in (*env, *more)}
    return tuple(found.values())


def _on_machine(node: DeviceNode, step: Step) -> DeviceNode:
    """Return a device file with everything said: what the file leaves open, the machine's file says."""
    if not os.path.normpath(node.path).startswith("/dev/"):
        raise InputError(f"a CDI device puts a device file at {node.path!r}", hint="they can be under /dev/ only")
    kind = "c" if node.type == "u" else node.type
    is_complete = kind == "p" or (kind != "" and node.major != 0)
    major, minor, mode = node.major, node.minor, node.mode
    try:
        status = os.lstat(node.host_path)
    except OSError as error:
        if not is_complete:
            what = f"a CDI device needs {node.host_path}, which cannot be looked at: {error.strerror}"
            raise MachineError(what, hint="is its driver loaded?") from None
    else:
        mode = stat.S_IMODE(status.st_mode) if mode is None else mode
        if not is_complete:
            actual = _kind(status.st_mode)
            if not actual or kind not in ("", actual):
                raise MachineError(
                    f"a CDI device needs {node.host_path} to be a device file{f' of type {kind}' if kind else ''}",
                    hint="it is something else on this machine; is the CDI file out of date?",
                )
            kind, major, minor = actual, os.major(status.st_rdev), os.minor(status.st_rdev)
    return replace(
        node,
        path=os.path.normpath(node.path),
        type=kind,
        major=major,
        minor=minor,
        mode=0o666 if mode is None else mode,
        uid=step.uid if node.uid is None else node.uid,
        gid=step.gid if node.gid is None else node.gid,
    )


def _kind(mode: int) -> str:
    if stat.S_ISCHR(mode):
        return "c"
    if stat.S_ISBLK(mode):
        return "b"
    return "p" if stat.S_ISFIFO(mode) else ""


def _mount(mount: HostMount) -> StepMount:
    given = set(mount.options) - _IDLE_OPTIONS
    readonly = "ro" in given
    flags = tuple(flag for flag in _FLAGS if flag in given)
    unknown = sorted(given - {"ro", *_FLAGS})
    if unknown or mount.type not in (*_BINDS, "tmpfs"):
        what = f"option {unknown[0]!r}" if unknown else f"type {mount.type!r}"
        raise InputError(
            f"a CDI device mounts {mount.container_path} with {what}",
            hint="binds and tmpfs with ro, nosuid, nodev and noexec are what steps can be given",
        )
    if mount.type == "tmpfs":
        return StepMount(mount.container_path, "tmpfs", readonly=readonly)
    return StepMount(mount.container_path, "bind", source=mount.host_path, readonly=readonly, flags=flags)
