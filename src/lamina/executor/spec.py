"""The runtime-spec `config.json` of a step: what docker's builder gives a RUN, as one pure function.

In: a `Step` and the facts about where it will run (`Place`). Out: a JSON-able dict without `root.path`, which the
helper fills in together with the mounts that lie under /dev, /proc and /sys.
Spec: OCI runtime-spec 1.0 config.md, config-linux.md. Defaults follow docker: its fourteen capabilities, masked and
read-only paths, no `noNewPrivileges` (sudo and su work in a build), umask 0022.
In a user namespace some things are not ours to mount: a fresh sysfs belongs to the owner of the network namespace,
so with the host's network the outer /sys is bound read-only instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamina.errors import InputError
from lamina.executor import seccomp
from lamina.executor.step import Step

if TYPE_CHECKING:
    from lamina.executor.cdi import DeviceNode

Json = dict[str, object]

_DEFAULT_CAPABILITIES = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL
AUDIT_WRITE
"""
_CAPABILITIES_BY_NUMBER = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_MASKED_PATHS = """
/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/scsi
/proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap /sys/firmware
"""
_ULIMITS = "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
DEFAULT_CAPABILITIES = tuple("CAP_" + name for name in _DEFAULT_CAPABILITIES.split())
ALL_CAPABILITIES = tuple("CAP_" + name for name in _CAPABILITIES_BY_NUMBER.split())
MASKED_PATHS = tuple(_MASKED_PATHS.split())
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
ULIMITS = tuple(_ULIMITS.split())
_TTY_GID = 5


@dataclass(frozen=True, slots=True)
class Place:
    """Where steps run: facts about this process that the spec depends on.

    Attributes:
        machine: uname's machine, "x86_64".
        user_namespace: we are root only inside a user namespace.
        maps_tty_group: group 5 exists in it, so devpts may use it.
        capabilities: mask of those this process may hand on (its bounding set).
        seccomp: the kernel filters system calls.
    """

    machine: str
    user_namespace: bool = False
    maps_tty_group: bool = True
    capabilities: int = (1 << 41) - 1
    seccomp: bool = True


def build_config(step: Step, place: Place) -> Json:
    """Return the runtime-spec config of a step, `root.path` left empty.

    Raises:
        InputError: no program, a relative working directory, an unknown ulimit, a NUL byte in a string.
    """
    _check(step)
    insecure = step.security == "insecure"
    filter_ = None if insecure or not place.seccomp else seccomp.profile(place.machine)
    namespaces = ["pid", "ipc", "uts", "mount"] + (["network"] if step.network == "none" else [])
    linux: Json = {
        "namespaces": [{"type": kind} for kind in namespaces],
        "maskedPaths": [] if insecure else list(MASKED_PATHS),
        "readonlyPaths": [] if insecure else list(READONLY_PATHS),
    }
    if filter_ is not None:
        linux["seccomp"] = filter_
    if step.devices and not place.user_namespace:
        linux["devices"] = [_device(node) for node in step.devices]
    config: Json = {
        "ociVersion": "1.0.2",
        "root": {"path": "", "readonly": step.readonly_root or step.rootfs.upper is None},
        "hostname": step.hostname,
        "process": _process(step, place),
        "mounts": _mounts(step, place),
        "linux": linux,
    }
    if step.hooks:
        config["hooks"] = _hooks(step)
    return config


def _check(step: Step) -> None:
    if not step.args or not step.args[0]:
        raise InputError("the step names no program to run")
    if not step.cwd.startswith("/"):
        raise InputError(f"working directory {step.cwd!r} is not absolute")
    if step.security not in ("sandbox", "insecure") or step.network not in ("default", "host", "none"):
        raise InputError(f"unknown security or network mode: {step.security!r}, {step.network!r}")
    if any("\0" in text for text in (*step.args, *step.env, step.cwd, step.hostname)):
        raise InputError("an argument, variable or path of the step holds a NUL byte")
    for variable in step.env:
        if variable.find("=") < 1:
            raise InputError("an environment variable has no name or no '='")
    for limit in step.ulimits:
        if limit.name not in ULIMITS:
            raise InputError(f"unknown ulimit {limit.name!r}", hint=f"use one of: {', '.join(ULIMITS)}")


def _process(step: Step, place: Place) -> Json:
    wanted = ALL_CAPABILITIES if step.security == "insecure" else DEFAULT_CAPABILITIES
    held = [name for name in wanted if place.capabilities >> ALL_CAPABILITIES.index(name) & 1]
    user: Json = {"uid": step.uid, "gid": step.gid, "umask": 0o022}
    if step.extra_gids:
        user["additionalGids"] = list(step.extra_gids)
    process: Json = {
        "terminal": step.terminal,
        "user": user,
        "args": list(step.args),
        "env": list(step.env),
        "cwd": step.cwd,
        # No inheritable ones: a program started by another user must not gain them.
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), held),
        "noNewPrivileges": False,
        "rlimits": [
            {"type": f"RLIMIT_{limit.name.upper()}", "soft": limit.soft % (1 << 64), "hard": limit.hard % (1 << 64)}
            for limit in step.ulimits
        ],
    }
    if step.terminal and all(step.window):
        process["consoleSize"] = {"height": step.window[0], "width": step.window[1]}
    return process


def _mounts(step: Step, place: Place) -> list[Json]:
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if place.maps_tty_group:
        pts.append(f"gid={_TTY_GID}")
    shm = ["nosuid", "noexec", "nodev", "mode=1777", f"size={step.shm_size_bytes}"]
    return [
        _mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", "devpts", pts),
        _mount("/dev/shm", "tmpfs", "shm", shm),
        _mount("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
        _sys_mount(step, place),
        *(_bound_device(node) for node in step.devices if place.user_namespace),
    ]


def _device(node: DeviceNode) -> Json:
    found: Json = {"path": node.path, "type": node.type, "fileMode": node.mode, "uid": node.uid, "gid": node.gid}
    return found if node.type == "p" else {**found, "major": node.major, "minor": node.minor}


def _bound_device(node: DeviceNode) -> Json:
    """The machine's own file, with its owner and mode: nobody makes device files in a user namespace."""
    return _mount(node.path, "none", node.host_path, ["bind", "rw", "nosuid", "noexec"])


def _hooks(step: Step) -> Json:
    found: dict[str, list[Json]] = {}
    for hook in step.hooks:
        values: Json = {"path": hook.path, "args": list(hook.args or (hook.path,)), "env": list(hook.env)}
        if hook.timeout_s is not None:
            values["timeout"] = hook.timeout_s
        found.setdefault(hook.name, []).append(values)
    return dict(found)


def _sys_mount(step: Step, place: Place) -> Json:
    access = "rw" if step.security == "insecure" else "ro"
    if place.user_namespace and step.network != "none":
        return _mount("/sys", "none", "/sys", ["rbind", "nosuid", "noexec", "nodev", "ro"])
    return _mount("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", access])


def _mount(destination: str, kind: str, source: str, options: list[str]) -> Json:
    return {"destination": destination, "type": kind, "source": source, "options": options}
