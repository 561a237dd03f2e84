"""What the executor is asked to do and what it answers: one process in one root file system.

Pure values. Host paths are absolute `str` (they go to the kernel byte for byte, surrogateescape); paths in the
step are POSIX `str` as the step sees them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from lamina.executor.cdi import DeviceNode, Hook

MountKind = Literal["bind", "tmpfs", "secret", "chain"]
Network = Literal["default", "host", "none"]
Security = Literal["sandbox", "insecure"]


@dataclass(frozen=True, slots=True)
class Rootfs:
    """A stack of directories to be seen as one.

    Attributes:
        lowers: absolute host directories, topmost first, at least one.
        upper: directory that takes the writes; None makes the view read-only.
        work: overlay's work directory, empty, beside `upper`.
        userxattr: the trees carry `user.overlay.*` marks (user namespace) and not `trusted.overlay.*`.
    """

    lowers: tuple[str, ...]
    upper: str | None = None
    work: str | None = None
    userxattr: bool = False


@dataclass(frozen=True, slots=True)
class StepMount:
    """Something mounted in the step beside its root. Its mount point never shows in the upper.

    Attributes:
        target: absolute path in the step; links in it are followed inside the root.
        kind: "bind" a host directory, file or socket; "tmpfs" empty memory; "secret" a file whose bytes are only
            ever in memory; "chain" a stack of trees (bind mount of a stage or of a filtered context).
        source: bind: absolute host path, trusted.
        subpath: bind and chain: path within the source, resolved with the source as root.
        rootfs: chain: the stack; with an upper it is writable.
        readonly: no writes (secrets never have any).
        size_bytes: tmpfs: limit, 0 for the kernel's own (half of memory).
        data: secret: its bytes. Not shown by `repr`.
        mode: secret and tmpfs: permission bits.
        uid: secret and tmpfs: owner.
        gid: secret and tmpfs: group.
        flags: bind and tmpfs: of `nosuid nodev noexec`; None for the house's rule (`nodev` in a sandbox; memory has
            `nosuid` and `nodev` in any case).
    """

    target: str
    kind: MountKind
    source: str = ""
    subpath: str = ""
    rootfs: Rootfs | None = None
    readonly: bool = False
    size_bytes: int = 0
    data: bytes = field(default=b"", repr=False)
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    flags: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Ulimit:
    """A resource limit: `name` as docker knows it (`nofile`, `core` ...); -1 is unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What one step may use (`pb.LinuxResources`); 0 and "" leave things as they are.

    Attributes:
        memory, memory_swap: bytes; the second counts both, -1 is unlimited.
        cpu_shares: weight among others, 1024 is the usual one.
        cpu_period, cpu_quota: microseconds of processor time in each period of so many.
        cpuset_cpus, cpuset_mems: processors and memory nodes, such as "0-2,4".
    """

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One process to run.

    Attributes:
        args: program and arguments; the program is looked up in the PATH of `env` when it has no "/".
        env: the whole environment, `NAME=value`; nothing is added or inherited.
        cwd: working directory; made by the runtime when missing.
        uid: numeric user.
        gid: numeric group.
        extra_gids: supplementary groups.
        rootfs: the root; without an upper it is read-only.
        mounts: what is mounted in it; order counts only among mounts with equal targets (the last is seen).
        network: "host" shares the machine's network, "none" has a loopback of its own, "default" is the best that
            works (host, for now).
        hostname: name in a UTS namespace of its own.
        hosts: bytes of /etc/hosts; None leaves the image's. See `lamina.executor.names`.
        resolv_conf: bytes of /etc/resolv.conf; None leaves the image's.
        shm_size_bytes: size of /dev/shm.
        ulimits: resource limits.
        security: "sandbox" is docker's default confinement; "insecure" has all capabilities and no filter.
        readonly_root: mount the root read-only although it has an upper.
        cgroup_parent: control group in which the step's own is made; "" stays in the caller's.
        limits: what it may use; where that cannot be set, it runs without, and says so among its errors.
        devices: device files under /dev, everything about them said (`executor.devices`).
        hooks: programs of this machine that the runtime starts; trusted.
        terminal: input, output and errors are one terminal, made in the step's own /dev/pts.
        window: the terminal's rows and columns at first; zeros when unknown.
        name: by which others may join it while it runs; "" for nobody.
        joins: the name of a running step of the same executor: this one is another process in it, sees what it sees
            (root and mounts of its own count for nothing) and ends with it.
    """

    args: tuple[str, ...]
    rootfs: Rootfs
    env: tuple[str, ...] = ()
    cwd: str = "/"
    uid: int = 0
    gid: int = 0
    extra_gids: tuple[int, ...] = ()
    mounts: tuple[StepMount, ...] = ()
    network: Network = "default"
    hostname: str = "buildkitsandbox"
    hosts: bytes | None = None
    resolv_conf: bytes | None = None
    shm_size_bytes: int = 64 << 20
    ulimits: tuple[Ulimit, ...] = ()
    security: Security = "sandbox"
    readonly_root: bool = False
    cgroup_parent: str = ""
    limits: Limits | None = None
    devices: tuple[DeviceNode, ...] = ()
    hooks: tuple[Hook, ...] = ()
    terminal: bool = False
    window: tuple[int, int] = (0, 0)
    name: str = ""
    joins: str = ""


@dataclass(frozen=True, slots=True)
class StepResult:
    """How a step ended.

    Attributes:
        exit_code: 0..255; 128 + n when killed by signal n, 127 no such program, 126 cannot be executed.
        signal: n of the above, else 0. A process that itself exits with 128 + n looks the same, as in a shell.
        oom: killed, and the kernel's count of out-of-memory kills grew meanwhile.
        duration_s: from the start of the runtime to its end.
        message: what the runtime said when it could not start the program, else "".
    """

    exit_code: int
    signal: int = 0
    oom: bool = False
    duration_s: float = 0.0
    message: str = ""
