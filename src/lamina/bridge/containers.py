"""Containers that a frontend asks for, to run processes in what was built: debuggers, tests, detectors.

A container is a set of mounts; each process in it is run by itself on the mounts as they were when the container was
made, and what it writes is thrown away. Input, output, window size and signals travel with the process.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lamina.api.errors import NotFoundError
from lamina.api.pb import gateway_pb2 as gw
from lamina.bridge.bridge import Bridge
from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.executor.attach import Attached
from lamina.executor.step import StepResult
from lamina.llb.pb import ops_pb2 as pb
from lamina.ops.exec import ExecOp
from lamina.solver.protocol import Result

MAX_CONTAINERS = 64
_MOST_ROWS = 1 << 15


@dataclass(frozen=True, slots=True)
class Container:
    """What processes run in."""

    request: gw.NewContainerRequest
    inputs: Sequence[Result]
    mounts: Sequence[pb.Mount]


class Containers:
    """The containers of one bridge. Thread-safe."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._containers: dict[str, Container] = {}
        self._guard = threading.Lock()

    def new(self, request: gw.NewContainerRequest) -> None:
        """Make a container; what its mounts stand on is solved now.

        Raises:
            InputError: the name is taken, or the mounts make no sense.
        """
        inputs: list[Result] = []
        mounts = []
        for mount in request.Mounts:
            own = pb.Mount()
            own.CopyFrom(mount)
            own.input, own.output = -1, -1
            if mount.resultID:
                ref = self._bridge.ref(mount.resultID)
                if ref is not None:
                    own.input = len(inputs)
                    inputs.append(ref.layers)
            mounts.append(own)
        with self._guard:
            if request.ContainerID in self._containers or not request.ContainerID:
                raise InputError(f"a container needs a name of its own: {request.ContainerID[:80]!r}")
            if len(self._containers) >= MAX_CONTAINERS:
                raise InputError(f"a frontend may have {MAX_CONTAINERS} containers")
            self._containers[request.ContainerID] = Container(request, inputs, mounts)

    def release(self, name: str) -> None:
        """Forget a container; processes that run in it go on to their ends.

        Raises:
            NotFoundError: there is none.
        """
        with self._guard:
            if self._containers.pop(name, None) is None:
                raise NotFoundError(f"no such container: {name[:80]!r}")

    def start(self, init: gw.InitMessage, on_output: Callable[[int, bytes], None]) -> Process:
        """Return a process that is ready to be run.

        Raises:
            NotFoundError: no such container; InputError: what is to be run makes no sense, or is not allowed.
        """
        with self._guard:
            found = self._containers.get(init.ContainerID)
        if found is None:
            raise NotFoundError(f"no such container: {init.ContainerID[:80]!r}")
        step = pb.ExecOp(
            meta=init.Meta,
            mounts=found.mounts,
            network=found.request.Network,
            security=init.Security,
            secretenv=init.secretenv,
        )
        step.meta.extraHosts.extend(found.request.extraHosts)
        step.meta.hostname = step.meta.hostname or found.request.hostname
        op = pb.Op(exec=step)
        if found.request.HasField("platform"):
            op.platform.CopyFrom(found.request.platform)
        job = self._bridge.job
        exec_op = ExecOp(op, job.solver.worker, None)
        return Process(exec_op, found.inputs, Cancel(job.cancel), on_output, terminal=init.Tty)


class Process:
    """One process; `run` blocks until it has ended, the rest may be called from other threads meanwhile."""

    def __init__(
        self,
        op: ExecOp,
        inputs: Sequence[Result],
        cancel: Cancel,
        on_output: Callable[[int, bytes], None],
        *,
        terminal: bool,
    ) -> None:
        self._op, self._inputs, self._on_output, self._terminal = op, inputs, on_output, terminal
        self.cancel = cancel
        self._stdin, self._feed = os.pipe2(os.O_CLOEXEC)
        self._attached = Attached(self._stdin)
        self._guard = threading.Lock()

    def run(self) -> StepResult:
        """Run it, and return how it ended."""
        try:
            return self._op.attach(self._inputs, self.cancel, self._attached, self._on_output, terminal=self._terminal)
        finally:
            self.end_input()
            os.close(self._stdin)

    def feed(self, data: bytes) -> None:
        """Give it input; what comes after its end is dropped."""
        with self._guard:
            if self._feed < 0:
                return
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(self._feed, view) :]
            except OSError:
                pass

    def end_input(self) -> None:
        """Say that no more input comes. Idempotent."""
        with self._guard:
            if self._feed >= 0:
                os.close(self._feed)
                self._feed = -1

    def resize(self, rows: int, columns: int) -> None:
        """Tell it how large its terminal is."""
        self._attached.resize(min(rows, _MOST_ROWS), min(columns, _MOST_ROWS))

    def signal(self, name: str) -> None:
        """Send it a signal by its name, with or without SIG; unknown names are passed over."""
        number = getattr(signal, name if name.startswith("SIG") else f"SIG{name}", None)
        if isinstance(number, signal.Signals):
            self._attached.send_signal(int(number))
