"""A running `lamina serve` for tests: a process with a socket and a state directory of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc


class Daemon:
    """One process. `address` is as grpcio takes it.

    Args:
        root: the state directory; the log lies beside it.
        words: of the command line, beside the address.
        prefix: a command that executes what follows, such as setpriv.
        environ: variables beside this process's.
        addressed: False where the daemon is to find its address itself, which is `socket`.
    """

    def __init__(
        self,
        root: Path,
        socket: str,
        *words: str,
        prefix: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        addressed: bool = True,
    ) -> None:
        self.root, self.socket, self.address = root, socket, f"unix:{socket}"
        self.log = root.parent / f"{root.name}.log"
        self._words = ("--addr", f"unix://{socket}", *words) if addressed else words
        self._prefix, self._environ = prefix, {**os.environ, "LAMINA_ROOT": str(root), **(environ or {})}
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [*self._prefix, sys.executable, "-m", "lamina", "serve", *self._words]
        with open(self.log, "ab") as log:
            process = subprocess.Popen(command, env=self._environ, stderr=log)
        try:
            with grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                grpc.channel_ready_future(channel).result(60)
        except BaseException:
            process.kill()
            process.wait()
            raise AssertionError(f"the daemon did not start:\n{self.log.read_text()}") from None
        return process

    def kill(self) -> None:
        """End the process as a power cut would."""
        self.process.kill()
        self.process.wait()

    def start(self) -> None:
        """Start it again."""
        self.process = self._start()

    def stop(self) -> int:
        """End it in good order, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the daemon did not stop:\n{self.log.read_text()}") from None


@contextmanager
def running_daemon(root: Path, *words: str) -> Iterator[Daemon]:
    """Run a daemon for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix="lamina-d-") as folder, stopping(Daemon(root, f"{folder}/s", *words)) as it:
        yield it


@contextmanager
def stopping(daemon: Daemon) -> Iterator[Daemon]:
    """Stop a daemon when the block ends, if it runs then."""
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.stop()
