"""The builders that are compared: their daemons, their command lines for one kind of output."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TAG = "lamina-bench"
STORE, ARCHIVE = "store", "archive"


@dataclass(frozen=True)
class Peer:
    """One builder.

    Attributes:
        commands: for each kind of output the command lines that make it, with `{context}` and `{dest}` to be put in.
        no_cache: what makes it do everything anew.
        cache_to, cache_from: options with `{ref}` (or `{repository}`, without a tag); empty where no cache travels.
        forget: command that empties its local cache.
    """

    name: str
    commands: dict[str, list[list[str]]]
    env: dict[str, str]
    no_cache: str = "--no-cache"
    cache_to: list[str] = field(default_factory=list)
    cache_from: list[str] = field(default_factory=list)
    forget: list[str] = field(default_factory=list)

    def build(self, context: Path, output: str, dest: Path, extra: list[str]) -> bool:
        """Build; return whether it worked, having shown the end of what it said when not."""
        for number, command in enumerate(self.commands[output]):
            if not number:  # options stand before the context
                at = command.index("{context}") if "{context}" in command else len(command)
                command = [*command[:at], *extra, *command[at:]]
            words = [word.format(context=context, dest=dest) for word in command]
            done = subprocess.run(words, env=self.env, capture_output=True, check=False)
            if done.returncode:
                print(f"  {self.name}: {done.stderr.decode()[-300:]}", file=sys.stderr)
                return False
        return True


@contextmanager
def peers(folder: Path) -> Iterator[list[Peer]]:
    """Start what is here of the peers and yield them, ours first."""
    with dockerd(folder / "docker") as docker_host, buildkitd(folder / "buildkit") as address:
        found = [lamina(folder)]
        if address:
            found.append(buildctl(address))
        if docker_host:
            found.append(docker(docker_host))
        if shutil.which("buildah"):
            found.append(buildah(folder))
        yield found


def lamina(folder: Path) -> Peer:
    """Ours, as the command line."""
    build = [sys.executable, "-m", "lamina", "build", "-q", "-t", TAG, "{context}"]
    root = folder / "lamina"
    return Peer(
        "lamina",
        {STORE: [build], ARCHIVE: [[*build, "-o", "type=oci,dest={dest}"]]},
        {**os.environ, "LAMINA_ROOT": str(root)},
        cache_to=["--cache-to", "type=registry,ref={ref},mode=max"],
        cache_from=["--cache-from", "type=registry,ref={ref}"],
        forget=["rm", "-rf", str(root)],
    )


def docker(host: str) -> Peer:
    """Debian's docker with its built-in BuildKit. It keeps layers uncompressed and cannot write an OCI archive."""
    build = ["/usr/bin/docker", "build", "-q", "--network=host", "-t", TAG, "{context}"]
    return Peer("dockerd", {STORE: [build]}, {**os.environ, "DOCKER_HOST": host, "DOCKER_BUILDKIT": "1"})


def buildah(folder: Path) -> Peer:
    """Debian's buildah. It keeps layers uncompressed; an archive is a second command."""
    storage = ["--root", str(folder / "buildah"), "--runroot", str(folder / "buildah-run")]
    bud = ["buildah", *storage, "bud", "-q", "--layers", "--isolation=chroot", "--network=host", "-t", TAG, "{context}"]
    push = ["buildah", *storage, "push", "-q", TAG, "oci-archive:{dest}"]
    return Peer(
        "buildah",
        {STORE: [bud], ARCHIVE: [bud, push]},
        dict(os.environ),
        cache_to=["--tls-verify=false", "--cache-to={repository}"],
        cache_from=["--tls-verify=false", "--cache-from={repository}"],
        forget=["buildah", *storage, "rmi", "--all", "--force"],
    )


def buildctl(address: str) -> Peer:
    """A current BuildKit; its image is packed, like ours."""
    build = ["buildctl", "--addr", address, "build", "--progress=plain", "--frontend=dockerfile.v0"]
    build += ["--local=context={context}", "--local=dockerfile={context}"]
    image = [*build, f"--output=type=image,name={TAG}"]
    return Peer(
        "buildkitd",
        {STORE: [image], ARCHIVE: [[*build, "--output=type=oci,dest={dest}"]]},
        dict(os.environ),
        cache_to=["--export-cache=type=registry,ref={ref},mode=max"],
        cache_from=["--import-cache=type=registry,ref={ref}"],
        forget=["buildctl", "--addr", address, "prune", "--all"],
    )


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Run our daemon with docker's API and give that address."""
    folder.mkdir()
    command = [sys.executable, "-m", "lamina", "serve", f"--root={folder}/root", f"--addr=unix://{folder}/buildkit"]
    command += [f"--docker-addr=unix://{folder}/socket", "--allow-insecure-entitlement=network.host"]
    with _running(command, folder / "log", folder / "socket"):
        yield f"unix://{folder}/socket"


@contextmanager
def dockerd(folder: Path) -> Iterator[str | None]:
    """Run a private docker daemon and give its address; None where there is none."""
    if not Path("/usr/sbin/dockerd").exists() or os.geteuid() != 0:
        yield None
        return
    folder.mkdir()
    address = f"unix://{folder}/socket"
    command = ["/usr/sbin/dockerd", "--iptables=false", "--bridge=none", f"--host={address}", f"--pidfile={folder}/pid"]
    command += [f"--data-root={folder}/data", f"--exec-root={folder}/exec"]
    with _running(command, folder / "log", folder / "socket"):
        yield address
    subprocess.run(["umount", "-q", "-R", f"{folder}/data"], check=False)


@contextmanager
def buildkitd(folder: Path) -> Iterator[str | None]:
    """Run a private buildkitd and give its address; None where it, buildctl or an OCI runtime is not on PATH."""
    runtime = shutil.which("runc") or shutil.which("crun")
    if not (shutil.which("buildkitd") and shutil.which("buildctl") and runtime) or os.geteuid() != 0:
        yield None
        return
    folder.mkdir()
    address = f"unix://{folder}/socket"
    command = ["buildkitd", f"--root={folder}/root", f"--addr={address}", "--containerd-worker=false"]
    command += [f"--oci-worker-binary={runtime}", "--oci-worker-net=host"]
    with _running(command, folder / "log", folder / "socket"):
        yield address


@contextmanager
def _running(command: list[str], log: Path, socket: Path) -> Iterator[None]:
    with log.open("wb") as file:
        daemon = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    try:
        for _ in range(100):
            if socket.exists():
                break
            time.sleep(0.1)
        yield
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()
