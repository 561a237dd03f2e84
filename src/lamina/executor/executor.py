"""Run steps: the caller's side of the step helper.

In: a `Step`, a function that takes output, a `Cancel`. Out: a `StepResult`. One helper process serves one
`Executor` (one build); it is started at the first step, or earlier by `start()`, and never forked from the calling
process's memory. Any number of threads may call `run` at once; each reads its own step's output.
The calling process itself changes no namespace, mounts nothing, installs no signal handler and starts no thread.

    with Executor(find_runtime(path), work_dir) as executor:
        result = executor.run(step, lambda fd, data: print(fd, data), Cancel())
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import sys
import threading

from lamina.errors import CancelledError, InputError, MachineError
from lamina.executor import wire
from lamina.executor.attach import Attached, Follower, Streams
from lamina.executor.spec import ALL_CAPABILITIES, Place, build_config
from lamina.executor.step import Step, StepResult

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lamina.cancel import Cancel
    from lamina.executor.runtime import Runtime

_ANSWER_BYTES = 1 << 18
_GRACE_S = 10.0
_LAUNCH = "import sys; sys.path.insert(0, sys.argv.pop(1)); from lamina.executor import helper; helper.main()"


class Executor:
    """Runs steps under one helper process. Close it (or use it as a context manager) when the build ends.

    Args:
        runtime: the OCI runtime, see `find_runtime`.
        work_dir: existing private directory; a directory is made in it for the helper to mount on, seen empty from
            outside, and removed by `close`.
        python: interpreter that runs the helper.
    """

    def __init__(self, runtime: Runtime, work_dir: Path, *, python: str = sys.executable) -> None:
        self._runtime = runtime
        self._home = os.path.abspath(work_dir / "helper")
        self._python = python
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._closed = False
        self._pid = 0
        self._errors = -1  # memory file that takes the helper's standard error
        self._place: Place | None = None

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the helper if it does not run yet; returns at once, errors appear at the first step.

        Raises:
            MachineError: the helper process cannot be started.
        """
        with self._lock:
            if self._closed:
                raise MachineError("the executor is closed")
            if self._control is not None:
                return
            self._place = read_place()
            os.makedirs(self._home, mode=0o700, exist_ok=True)
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._errors = os.memfd_create("lamina-helper", os.MFD_CLOEXEC)
            try:
                self._pid = self._spawn(theirs.fileno())
            except OSError as error:
                ours.close()
                raise MachineError(f"cannot start the step helper: {error.strerror}", where=self._python) from error
            finally:
                theirs.close()
            self._control = ours

    def run(
        self, step: Step, on_output: Callable[[int, bytes], None], cancel: Cancel, attached: Attached | None = None
    ) -> StepResult:
        """Run one step to its end.

        Args:
            step: what to run.
            on_output: called in this thread with 1 or 2 (standard output or error) and a chunk of bytes.
            cancel: kills the step and all its processes.
            attached: the user who sits in front of it: input, signals, window size; None for nobody.

        Returns:
            How it ended; a program that cannot be started is exit code 127 or 126 with a message.

        Raises:
            InputError: the step itself is not right.
            MachineError: the helper or the runtime could not run it.
            CancelledError: cancelled; the step's processes and mounts are gone by then.
        """
        cancel.check()
        self.start()
        assert self._place is not None
        request = wire.encode_request(step, build_config(step, self._place))
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        streams = Streams(step, attached)
        follower = Follower(mine, streams.outputs, on_output, attached, streams.sink)
        try:
            try:
                self._send(theirs.fileno(), streams.given, request)
            finally:
                theirs.close()
                streams.close_given()
            if attached is not None:
                attached.bind(mine)
            with cancel.closing(lambda: _hang_up(mine)):
                answer = follower.run(cancel)
        except BaseException:
            # The step must not run on, or hold its upper, when its caller has gone (on_output raised, say).
            _hang_up(mine)
            _wait_ended(mine)
            raise
        finally:
            if attached is not None:
                attached.unbind()
            follower.close()
            mine.close()
        if answer is None:
            raise CancelledError("cancelled; the step's processes did not end in time")
        cancel.check()
        return self._result(answer)

    def close(self) -> None:
        """End the helper with all that still runs under it; idempotent."""
        with self._lock:
            self._closed = True
            control, self._control = self._control, None
            if control is None:
                return
            control.close()
            os.waitpid(self._pid, 0)
            os.close(self._errors)
            try:
                os.rmdir(self._home)
            except OSError:
                pass

    def _spawn(self, control: int) -> int:
        package_root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        arguments = [self._python, "-I", "-S", "-c", _LAUNCH, package_root]
        arguments += [self._home, self._runtime.path, self._runtime.name]
        actions = [
            (os.POSIX_SPAWN_DUP2, control, wire.CONTROL_FD + 1),  # out of the way of 0-3, whatever number it had
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, 0, 1),
            (os.POSIX_SPAWN_DUP2, self._errors, 2),
            (os.POSIX_SPAWN_DUP2, wire.CONTROL_FD + 1, wire.CONTROL_FD),
            (os.POSIX_SPAWN_CLOSE, wire.CONTROL_FD + 1),
        ]
        return os.posix_spawn(self._python, arguments, {"LANG": "C.UTF-8"}, file_actions=actions)

    def _send(self, step_socket: int, given: list[int], request: bytes) -> None:
        memory = os.memfd_create("lamina-step", os.MFD_CLOEXEC)
        try:
            view = memoryview(request)
            while view:
                view = view[os.write(memory, view) :]
            fds = array.array("i", [step_socket, memory, *given])
            control = self._control
            if control is None:
                raise MachineError("the executor is closed")
            control.sendmsg([b"step"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)], socket.MSG_NOSIGNAL)
        except OSError as error:
            raise self._lost() from error
        finally:
            os.close(memory)

    def _result(self, data: bytes | None) -> StepResult:
        if not data:
            raise self._lost()
        answer: dict[str, object] = json.loads(data)
        if "error" in answer:
            raise (InputError if answer.get("of_step") else MachineError)(str(answer["error"]))
        return StepResult(
            exit_code=int(str(answer["exit_code"])),
            signal=int(str(answer["signal"])),
            oom=bool(answer["oom"]),
            duration_s=float(str(answer["duration_s"])),
            message=str(answer["message"]),
        )

    def _lost(self) -> MachineError:
        """Return the error for a helper that has gone, with its own last words."""
        control = self._control
        if control is None:
            return MachineError("the executor was closed while a step ran")
        # It left requests unread, so the first call reports that (ECONNRESET); its words come with the second.
        for _ in range(2):
            try:
                what = str(json.loads(control.recv(_ANSWER_BYTES, socket.MSG_DONTWAIT))["error"])
            except (OSError, ValueError, KeyError):
                continue
            hint = "run as root, or let user namespaces be made (see `lamina doctor`)"
            return MachineError(what, hint=hint)
        words = os.pread(self._errors, _ANSWER_BYTES, 0).decode("utf-8", "replace").strip().splitlines()
        return MachineError("the step helper ended unexpectedly", log=words[-10:])


def read_place() -> Place:
    """Return the facts about this process that a step's config depends on (reads /proc/self)."""
    uid_map, gid_map = _map("uid_map"), _map("gid_map")
    fields: dict[str, str] = {}
    with open("/proc/self/status") as file:
        for line in file:
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    return Place(
        machine=os.uname().machine,
        user_namespace=uid_map != [(0, 0, 0xFFFFFFFF)],
        maps_tty_group=any(inside <= 5 < inside + count for inside, _, count in gid_map),
        capabilities=int(fields.get("CapBnd", "0"), 16) & ((1 << len(ALL_CAPABILITIES)) - 1),
        seccomp="Seccomp" in fields,
    )


def _map(name: str) -> list[tuple[int, ...]]:
    with open(f"/proc/self/{name}") as file:
        return [tuple(int(word) for word in line.split()) for line in file]


def _hang_up(mine: socket.socket) -> None:
    try:
        mine.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it has ended by itself


def _wait_ended(mine: socket.socket) -> None:
    """Wait, within bounds, until the helper has closed the step's socket."""
    poll = select.poll()
    poll.register(mine, select.POLLIN)
    try:
        while poll.poll(int(_GRACE_S * 1000)) and mine.recv(_ANSWER_BYTES):
            pass
    except OSError:
        pass
