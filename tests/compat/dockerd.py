"""A private docker daemon for tests: its own data, socket and pid file, gone afterwards.

from compat.dockerd import Docker, dockerd  # noqa: F401 - a module-scoped fixture

def test_x(dockerd: Docker) -> None:
    dockerd.run("load", "-i", "x.tar")
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

DAEMON, CLIENT = "/usr/sbin/dockerd", "/usr/bin/docker"
START_TRIES = 300


@dataclass(frozen=True)
class Docker:
    """A running daemon."""

    socket: Path
    root: Path

    def run(self, *args: str, check: bool = True, data: bytes | None = None) -> str:
        """Run the docker client and return its standard output; a failure shows its standard error."""
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(self.root), "DOCKER_HOST": f"unix://{self.socket}",
        }  # fmt: skip
        done = subprocess.run(
            [CLIENT, *args], check=False, capture_output=True, input=data, timeout=120, env=environment
        )
        if check and done.returncode:
            raise AssertionError(f"docker {' '.join(args)}: {done.stderr.decode()}")
        return done.stdout.decode()


@pytest.fixture(scope="module")
def dockerd() -> Iterator[Docker]:
    """Give a daemon without networking of its own; skips where none can run."""
    if os.geteuid() != 0 or not os.path.exists(DAEMON) or not os.path.exists(CLIENT):
        pytest.skip("needs root and dockerd")
    root = Path(tempfile.mkdtemp(prefix="lamina-dockerd-"))
    docker = Docker(root / "docker.sock", root)
    with (root / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [
                DAEMON, "--iptables=false", "--bridge=none", f"--data-root={root / 'data'}",
                f"--exec-root={root / 'exec'}", f"--host=unix://{docker.socket}", f"--pidfile={root / 'pid'}",
                "--insecure-registry=127.0.0.0/8",
            ],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        _wait(docker, daemon)
        yield docker
    finally:
        _stop(daemon, root)


def _wait(docker: Docker, daemon: subprocess.Popen[bytes]) -> None:
    """Return when the daemon answers; the client itself waits a little between its tries."""
    for _ in range(START_TRIES):
        if daemon.poll() is not None:
            pytest.skip(f"dockerd does not run here: {(docker.root / 'log').read_text()[-500:]}")
        if docker.socket.exists() and docker.run("version", check=False).count("Server:"):
            return
        try:
            daemon.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
    pytest.skip("dockerd does not answer")


def _stop(daemon: subprocess.Popen[bytes], root: Path) -> None:
    """End the daemon and its containerd, undo what it mounted, remove its data."""
    daemon.terminate()
    try:
        daemon.wait(30)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
    pid_file = root / "exec" / "containerd" / "containerd.pid"
    if pid_file.exists():
        pid = int(pid_file.read_text())
        if str(root) in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{root}/")), reverse=True):
        subprocess.run(["umount", "-l", mount], check=False)
    shutil.rmtree(root, ignore_errors=True)
