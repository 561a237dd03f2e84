"""Base images for tests that run something: busybox in a moment, Debian made once per checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = CHECKOUT / ".cache"
DEBIAN_PACKAGES = ("python3", "python3-venv", "ca-certificates")


def find_busybox() -> Path:
    """Return a statically linked busybox; skip the test where there is none."""
    for candidate in ("/bin/busybox", "/usr/bin/busybox"):
        if os.access(candidate, os.X_OK) and not _is_dynamic(Path(candidate)):
            return Path(candidate)
    pytest.skip("no static busybox here: apt-get install busybox-static")


def busybox_rootfs(folder: Path) -> Path:
    """Make a root file system of busybox in the empty `folder` (all applets, a root user) and return it."""
    busybox = find_busybox()
    for name in ("bin", "etc", "root", "tmp", "usr/bin", "var/tmp", "dev", "proc", "sys"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("tmp", "var/tmp"):
        (folder / name).chmod(0o1777)
    shutil.copy(busybox, folder / "bin" / "busybox")
    (folder / "bin" / "busybox").chmod(0o755)
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (folder / "bin" / applet).symlink_to("busybox")
    (folder / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
    (folder / "etc" / "group").write_text("root:x:0:\nnogroup:x:65534:\n")
    return folder


def busybox_context(folder: Path, dockerfile: str = "") -> Path:
    """Make a build context in `folder` whose Dockerfile begins with a busybox base stage named `base`."""
    busybox_rootfs(folder / "rootfs")
    (folder / "Dockerfile").write_text(BUSYBOX_STAGE + dockerfile)
    return folder


BUSYBOX_STAGE = """\
FROM scratch AS base
COPY rootfs /
ENV PATH=/bin:/usr/bin
"""


def debian_rootfs() -> Path:
    """Return a tar archive of a small Debian with Python, made once per checkout; parallel workers wait for it."""
    if shutil.which("mmdebstrap") is None:
        pytest.skip("no mmdebstrap here: apt-get install mmdebstrap")
    archive = CACHE / "debian-python.tar"
    if not archive.exists():
        script = CHECKOUT / "scripts" / "debian_rootfs.py"
        command = [sys.executable, script, archive, *DEBIAN_PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"mmdebstrap does not work here: {done.stderr[-500:]}")
    return archive


def _is_dynamic(program: Path) -> bool:
    """Tell whether an ELF program names an interpreter (a segment of type PT_INTERP)."""
    data = program.read_bytes()[:4096]
    offset = int.from_bytes(data[32:40], "little")
    size, count = int.from_bytes(data[54:56], "little"), int.from_bytes(data[56:58], "little")
    return any(data[offset + n * size : offset + n * size + 4] == b"\x03\0\0\0" for n in range(count))


def link_or_copy(source: Path, target: Path) -> None:
    """Put a large file into a context without copying it where both lie on one file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)
