"""Docker's own client, every version of it that is here, against a daemon of ours."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import tempfile
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.daemon import Daemon, running_daemon

PATIENCE_S = 120
_PLUGINS = ("/usr/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins", "/usr/local/lib/docker/cli-plugins")
_PLUGIN_FILES = [f"{folder}/docker-buildx" for folder in _PLUGINS]
BUILDX = next(filter(os.path.exists, _PLUGIN_FILES), shutil.which("docker-buildx") or "")


@functools.cache
def clients() -> tuple[str, ...]:
    """Return the docker clients of this machine, each once."""
    found = ("/usr/bin/docker", shutil.which("docker") or "")
    return tuple(dict.fromkeys(path for path in found if path and os.access(path, os.X_OK)))


@functools.cache
def has_buildkit(client: str) -> bool:
    """Tell whether a client builds by BuildKit without a plugin, as those up to 20.10 do."""
    with tempfile.TemporaryDirectory() as empty:
        environment = {"DOCKER_CONFIG": empty, "DOCKER_BUILDKIT": "1"}  # without it, the help is of the other builder
        shown = subprocess.run(
            [client, "build", "--help"], capture_output=True, text=True, check=False, env=environment
        )
    return "--secret" in shown.stdout


@dataclass(frozen=True)
class DockerClient:
    """One client, pointed at a daemon, with a configuration of its own."""

    path: str
    host: str
    config: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.config),
            "DOCKER_CONFIG": str(self.config),
            "DOCKER_HOST": self.host,
            "DOCKER_CLI_HINTS": "false",
            **self.environ,
        }

    def __call__(
        self, *words: str | Path, check: bool = True, data: bytes = b"", cwd: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command; unless `check` is False, a failure shows what it said."""
        done = subprocess.run(
            [self.path, *map(str, words)],
            input=data,
            capture_output=True,
            check=False,
            timeout=PATIENCE_S,
            env=self.environment,
            cwd=cwd,
        )
        if check and done.returncode:
            raise AssertionError(f"docker {' '.join(map(str, words))}:\n{done.stdout.decode()}\n{done.stderr.decode()}")
        return done

    def on_terminal(self, *words: str | Path, size: tuple[int, int] = (40, 120)) -> tuple[int, str]:
        """Run a command with a terminal as its streams; return its exit code and all that the terminal was sent."""
        ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, size)
        environment = {**self.environment, "TERM": "xterm"}
        command = [self.path, *map(str, words)]
        with subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        ) as process:
            os.close(theirs)
            seen = b""
            try:
                while data := os.read(ours, 65536):
                    seen += data
            except OSError:
                pass  # the last of those who had it open has gone
            os.close(ours)
            return process.wait(PATIENCE_S), seen.decode(errors="replace")

    def text(self, *words: str | Path, **options: object) -> str:
        """Run a command and return what it printed."""
        return self(*words, **options).stdout.decode().strip()  # type: ignore[arg-type]

    def interrupted(self, mark: bytes, *words: str | Path) -> int:
        """Run a command, interrupt it once it has printed the mark, and return its exit code."""
        with subprocess.Popen(
            [self.path, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.environment
        ) as process:
            assert process.stdout is not None
            seen = b""
            while mark not in seen:
                data = os.read(process.stdout.fileno(), 4096)
                assert data, seen.decode()
                seen += data
            process.send_signal(signal.SIGINT)
            process.stdout.read()
            return process.wait(PATIENCE_S)


@contextmanager
def running_docker_daemon(root: Path) -> Iterator[tuple[Daemon, str]]:
    """Run `lamina serve --docker-addr`; yield it and what DOCKER_HOST is to be."""
    with tempfile.TemporaryDirectory(prefix="lamina-d-") as folder:
        host = f"unix://{folder}/d"
        with running_daemon(root, "--docker-addr", host, "--allow-insecure-entitlement", "network.host") as daemon:
            yield daemon, host
