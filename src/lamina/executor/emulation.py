"""Whether a step for another architecture can run here: natively, or through an emulator known to binfmt_misc.

Source: the kernel's Documentation/admin-guide/binfmt-misc.rst. An emulator must be registered with the flag F (opened
at registration), since a step's root does not hold it; Debian's qemu-user-static and tonistiigi/binfmt register so.
"""

from __future__ import annotations

import os

from lamina.errors import MachineError, SourceRange
from lamina.oci.platform import Platform, host_platform

BINFMT = "/proc/sys/fs/binfmt_misc"
_NATIVE = {"amd64": ("amd64", "386"), "arm64": ("arm64", "arm")}
_QEMU = {
    "amd64": "x86_64",
    "386": "i386",
    "arm64": "aarch64",
    "arm": "arm",
    "riscv64": "riscv64",
    "s390x": "s390x",
    "ppc64le": "ppc64le",
    "mips64le": "mips64el",
    "mips64": "mips64",
    "loong64": "loongarch64",
}
_REMEDY = "install emulators with: apt-get install qemu-user-static binfmt-support"


def check_can_run(platform: Platform | None, source: SourceRange | None, folder: str = BINFMT) -> None:
    """Make sure that programs of `platform` run on this machine.

    Raises:
        MachineError: they do not; the hint names the command that mends it.
    """
    host = host_platform()
    if platform is None or platform.os != "linux":
        return
    if platform.architecture in _NATIVE.get(host.architecture, (host.architecture,)):
        return
    flags = _flags(platform.architecture, folder)
    if flags is None:
        raise MachineError(
            f"this step is for {platform} and this machine runs {host}", source=source, hint=_remedy(folder)
        )
    if "F" not in flags:
        raise MachineError(
            f"the emulator for {platform} is registered without the flag F, so no step's root can reach it",
            source=source,
            hint=_REMEDY,
        )


def _flags(architecture: str, folder: str) -> str | None:
    """Return the flags of the enabled emulator for `architecture`, None without one."""
    name = _QEMU.get(architecture, architecture)
    for candidate in (f"qemu-{name}", name):
        try:
            with open(os.path.join(folder, candidate)) as file:
                lines = file.read(4096).splitlines()
        except OSError:
            continue
        if lines and lines[0] == "enabled":
            return next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
    return None


def _remedy(folder: str) -> str:
    if not os.path.exists(os.path.join(folder, "register")):
        return f"{_REMEDY} (and mount -t binfmt_misc binfmt_misc {folder}, which is not mounted)"
    return _REMEDY
