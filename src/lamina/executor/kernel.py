"""The few system calls that Python does not offer, through ctypes: mount, unshare, prctl and the new mount API.

Thin and typed: text in, `OSError` out. Used by the step helper (its own process) and by probes (child processes);
nothing here may be called in a process that did not mean to change its namespaces.
Constants are those of linux/mount.h, linux/sched.h and linux/prctl.h.
"""

from __future__ import annotations

import ctypes
import os

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_NOATIME, MS_NODIRATIME, MS_RELATIME = 32, 1024, 2048, 1 << 21
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x00020000, 0x10000000, 0x20000000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4

_SYS_MOVE_MOUNT, _SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 429, 430, 431, 432
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_MOVE_MOUNT_F_EMPTY_PATH = 4
_FD_CWD = -100

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.syscall.restype = ctypes.c_long


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """Put `source` at `target`, as the system call does. Raises `OSError` with the target as its file name."""
    encoded = os.fsencode(data) if data else None
    result = _libc.mount(os.fsencode(source), os.fsencode(target), os.fsencode(fstype), flags, encoded)
    _check(result, target)


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """Unmount; by default the mount and all that lies on it goes at once, busy or not."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def unshare(flags: int) -> None:
    """Leave the namespaces in `flags`. The caller must have a single thread for CLONE_NEWUSER."""
    _check(_libc.unshare(ctypes.c_int(flags)), "unshare")


def set_death_signal(signal_number: int) -> None:
    """Ask for `signal_number` when the thread that created this process ends."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number), 0, 0, 0), "prctl")


def mount_by_config(fstype: str, target: str, settings: list[tuple[str, str]], flags: int) -> None:
    """Mount by fsopen(2) and fsconfig(2): no limit on the length of all settings together.

    Args:
        fstype: file system.
        target: where to.
        settings: keys and values; a key may repeat (`lowerdir+`); an empty value sets a flag.
        flags: mount attributes; MS_RDONLY, MS_NOSUID, MS_NODEV and MS_NOEXEC have the same bits here.
    """
    fs = _check(_libc.syscall(_SYS_FSOPEN, ctypes.c_char_p(fstype.encode()), 1), target)
    try:
        for key, value in settings:
            command = _FSCONFIG_SET_STRING if value else _FSCONFIG_SET_FLAG
            text = ctypes.c_char_p(os.fsencode(value)) if value else None
            _check(_libc.syscall(_SYS_FSCONFIG, fs, command, ctypes.c_char_p(key.encode()), text, 0), target)
        _check(_libc.syscall(_SYS_FSCONFIG, fs, _FSCONFIG_CMD_CREATE, None, None, 0), target)
        mounted = _check(_libc.syscall(_SYS_FSMOUNT, fs, 1, flags & 0xF), target)
    finally:
        os.close(fs)
    try:
        place = ctypes.c_char_p(os.fsencode(target))
        empty = ctypes.c_char_p(b"")
        _check(_libc.syscall(_SYS_MOVE_MOUNT, mounted, empty, _FD_CWD, place, _MOVE_MOUNT_F_EMPTY_PATH), target)
    finally:
        os.close(mounted)
