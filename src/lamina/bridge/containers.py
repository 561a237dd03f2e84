"""Containers that a frontend asks for, to run processes in what was built: debuggers, tests, detectors.

A container is a set of mounts and its first process; others join that one, see what it wrote, and end when it does.
What they write is thrown away with the container. Input, output, window size and signals travel with each process.
"""

from __future__ import annotations

import os
import secrets
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
from lamina.ops.mounts import Mounts
from lamina.solver.protocol import Result

MAX_CONTAINERS = 64
_MOST_ROWS = 1 << 15


@dataclass(slots=True)
class Container:
    """What processes run in."""

    request: gw.NewContainerRequest
    inputs: Sequence[Result]
    mounts: Sequence[pb.Mount]
    leader: Process | None = None


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
        """Forget a container, and end what runs in it.

        Raises:
            NotFoundError: there is none.
        """
        with self._guard:
            found = self._containers.pop(name, None)
        if found is None:
            raise NotFoundError(f"no such container: {name[:80]!r}")
        if found.leader is not None:
            found.leader.cancel.cancel()

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
        process = Process(ExecOp(op, job.solver.worker, None), Cancel(job.cancel), on_output, terminal=init.Tty)
        with self._guard:
            if found.leader is None:
                found.leader = process
                process.leads(found.inputs)
            else:
                process.joins(found.leader)
        return process


class Process:
    """One process; `run` blocks until it has ended, the rest may be called from other threads meanwhile."""

    def __init__(
        self,
        op: ExecOp,
        cancel: Cancel,
        on_output: Callable[[int, bytes], None],
        *,
        terminal: bool,
    ) -> None:
        self._op, self._on_output, self._terminal = op, on_output, terminal
        self._inputs: Sequence[Result] = ()
        self._leader: Process | None = None
        self._name = secrets.token_hex(8)
        self._mounts: Mounts | None = None
        self._settled = threading.Event()  # the mounts are there, or will never be
        self.cancel = cancel
        self._stdin, self._feed = os.pipe2(os.O_CLOEXEC)
        self._attached = Attached(self._stdin)
        self._guard = threading.Lock()

    def leads(self, inputs: Sequence[Result]) -> None:
        """Make it the first process of a container that stands on these results."""
        self._inputs = inputs

    def joins(self, leader: Process) -> None:
        """Make it another process beside the first one."""
        self._leader = leader

    def run(self) -> StepResult:
        """Run it, and return how it ended.

        Raises:
            InputError: the container's first process has ended; Error: it cannot be run.
        """
        try:
            if self._leader is not None:
                return self._run_beside(self._leader)
            return self._op.attach(
                self._inputs,
                self.cancel,
                self._attached,
                self._on_output,
                terminal=self._terminal,
                name=self._name,
                on_mounted=self._mounted,
            )
        finally:
            self._mounts = None
            self._settled.set()
            self.end_input()
            os.close(self._stdin)

    def _mounted(self, mounts: Mounts) -> None:
        self._mounts = mounts
        self._settled.set()

    def _run_beside(self, leader: Process) -> StepResult:
        with self.cancel.closing(leader._settled.set):
            leader._settled.wait()
        self.cancel.check()
        if (mounts := leader._mounts) is None:
            raise InputError("the container's first process has ended", hint="make another container")
        return self._op.join(
            leader._name, mounts, self.cancel, self._attached, self._on_output, terminal=self._terminal
        )

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
