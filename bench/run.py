"""Compare `lamina build` with dockerd (BuildKit) and buildah on this machine: `make bench`.

Every row does the same work with each builder, in turns, from whole process to whole process, and prints the medians
and the ratio ours/theirs. Trees and stores lie on tmpfs where there is one. Nothing is timed by tests.

Rows: nothing changed; one file of 2,000 changed; 30 RUN steps; a context of 20,000 files (cold, unchanged, one
changed); a layer of 1 GiB to an OCI archive (ours alone: docker 20.10 cannot write one). Mind that dockerd and buildah
keep layers uncompressed, while ours are packed, compressed and digested.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from support.bases import busybox_context  # noqa: E402

Build = Callable[[Path, list[str]], list[str]]
TAG = "lamina-bench"


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
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(100):
            if Path(f"{folder}/socket").exists():
                break
            time.sleep(0.1)
        yield address
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait()
        subprocess.run(["umount", "-q", "-R", f"{folder}/data"], check=False)


def builders(folder: Path, docker_host: str | None) -> dict[str, tuple[Build, dict[str, str]]]:
    """Return for each builder its command line and its environment."""
    plain = {**os.environ, "LAMINA_ROOT": str(folder / "lamina")}
    found: dict[str, tuple[Build, dict[str, str]]] = {
        "lamina": (lambda c, more: [sys.executable, "-m", "lamina", "build", "-q", "-t", TAG, *more, str(c)], plain)
    }
    if docker_host:
        env = {**os.environ, "DOCKER_HOST": docker_host, "DOCKER_BUILDKIT": "1"}
        found["dockerd"] = (
            lambda c, more: ["/usr/bin/docker", "build", "-q", "--network=host", "-t", TAG, *more, str(c)],
            env,
        )
    if shutil.which("buildah"):
        storage = ["--root", str(folder / "buildah"), "--runroot", str(folder / "buildah-run")]
        bud = ["buildah", *storage, "bud", "-q", "--layers", "--isolation=chroot", "--network=host", "-t", TAG]
        found["buildah"] = (lambda c, more: [*bud, *more, str(c)], dict(os.environ))
    return found


class Bench:
    """Times one row after the other and prints them."""

    def __init__(self, tools: dict[str, tuple[Build, dict[str, str]]], rounds: int) -> None:
        self.tools, self.rounds = tools, rounds

    def row(
        self, name: str, context: Path, before: Callable[[], object] = lambda: None, more: list[str] | None = None
    ) -> None:
        """Time one kind of build with every tool, in turns, after one round that does not count."""
        taken: dict[str, list[float]] = {tool: [] for tool in self.tools}
        for turn in range(self.rounds + 1):
            for tool, (command, env) in self.tools.items():
                before()
                began = time.monotonic()
                done = subprocess.run(command(context, more or []), env=env, capture_output=True, check=False)
                if done.returncode:
                    print(f"  {tool}: {done.stderr.decode()[-300:]}", file=sys.stderr)
                elif turn:
                    taken[tool].append(time.monotonic() - began)
        ours = statistics.median(taken["lamina"]) if taken["lamina"] else float("nan")
        cells = [f"lamina {ours:7.3f} s"]
        for tool, times in taken.items():
            if tool != "lamina" and times:
                theirs = statistics.median(times)
                cells.append(f"{tool} {theirs:7.3f} s ({ours / theirs:5.2f}x)")
        print(f"{name:40s} " + "   ".join(cells), flush=True)


def fill(folder: Path, files: int, low: int, high: int) -> Path:
    """Make that many files of random sizes, half of them text."""
    dice, noise = random.Random(1), os.urandom(1 << 20)
    for number in range(files):
        path = folder / f"d{number // 100}" / f"f{number}"
        path.parent.mkdir(exist_ok=True, parents=True)
        size = dice.randint(low, high)
        path.write_bytes(noise[:size] if number % 2 else (b"line %d of text\n" % number * size)[:size])
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--rounds", type=int, default=3, help="counted runs of each tool and row")
    rounds = parser.parse_args().rounds
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="lamina-bench-", dir=memory) as temporary:
        folder = Path(temporary)
        with dockerd(folder / "docker") as host:
            bench = Bench(builders(folder, host), rounds)
            run_rows(bench, folder)
    return 0


def run_rows(bench: Bench, folder: Path) -> None:
    """Make the contexts and time every row."""
    ten = busybox_context(folder / "ten", "FROM base\n" + "".join(f"RUN echo {n} > /{n}\n" for n in range(8)))
    bench.row("10 steps, nothing changed", ten)

    many = fill(folder / "many", 2000, 1000, 20_000)
    (many / "Dockerfile").write_text("FROM scratch\nCOPY . /src\n")
    bench.row("1 file of 2,000 changed", many, lambda: (many / "d1" / "f101").write_text(str(time.time())))

    steps = busybox_context(folder / "steps", "FROM base\n" + "".join(f"RUN echo {n} > /{n}\n" for n in range(30)))
    bench.row("30 RUN steps", steps, more=["--no-cache"])

    big = fill(folder / "big", 20_000, 1000, 60_000)
    (big / "Dockerfile").write_text("FROM scratch\nCOPY . /src\n")
    bench.row("context of 20,000 files: cold", big, more=["--no-cache"])
    bench.row("context of 20,000 files: unchanged", big)
    bench.row("context of 20,000 files: one changed", big, lambda: (big / "d1" / "f101").write_text(str(time.time())))

    layer = folder / "layer"
    layer.mkdir()
    with (layer / "blob").open("wb") as file:
        for number in range(1024):
            file.write(os.urandom(1 << 19) + b"line %6d\n" % number * (1 << 16))
            file.truncate((number + 1) << 20)
            file.seek((number + 1) << 20)
    (layer / "Dockerfile").write_text("FROM scratch\nCOPY blob /\n")
    bench.tools = {"lamina": bench.tools["lamina"]}
    bench.row(
        "1 GiB layer to OCI archive (gzip)", layer, more=["--no-cache", "-o", f"type=oci,dest={folder / 'o.tar'}"]
    )


if __name__ == "__main__":
    sys.exit(main())
