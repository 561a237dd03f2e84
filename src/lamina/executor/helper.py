"""The step helper: one small single-threaded process per build that mounts, starts the runtime and cleans up.

Started by `Executor` as `python -I -S -c "... helper.main()"` with the control socket as descriptor 3. It makes a
mount and a pid namespace of its own and forks: the child is pid 1 in there and does all the work, the parent only
waits. When pid 1 ends, for whatever reason, the kernel kills everything in the pid namespace, and with the last
process the mount namespace and all its mounts go. Pid 1 ends when the control socket closes, so a killed build
leaves neither process nor mount.

Control socket (SOCK_SEQPACKET): each message carries four or five descriptors: the step's socket, a memory file with
the request (`wire.py`), the two output pipes, and perhaps the step's input. The answer goes to the step's socket;
what comes from there are signals for the step, and when its other end closes or shuts down, the step is killed.
Imports little, for it must start fast; never imports the engine.
"""

from __future__ import annotations

import array
import json
import os
import select
import signal
import socket
import sys
import time

from lamina.executor import cgroups, kernel, seccomp, seccomp_bpf, wire
from lamina.executor.assemble import Assembly
from lamina.executor.outcome import oom_kills, outcome, runtime_message
from lamina.executor.processes import children, first_process, has_begun, kill, would_end
from lamina.executor.stubs import MachineSetupError, SetupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lamina.executor.terminal import Listener

    Json = dict[str, Any]

_FDS_PER_STEP = (4, 5)
_MSG_CMSG_CLOEXEC = 0x40000000
_KILL_AGAIN_MS = 500
_SIGNAL_AGAIN_MS = 20


class _Step:
    """One running step."""

    def __init__(self, number: int, fds: list[int], home: str) -> None:
        self.number = number
        self.socket = socket.socket(fileno=fds[0])
        self.streams = fds[2:]  # output, errors and perhaps input, until the runtime has them
        self.home = home
        self.terminal = False
        self.window = (0, 0)
        self.console: Listener | None = None  # where crun hands over the step's terminal
        self.signals: list[int] = []  # not delivered yet
        self.name = ""  # by which others may join it
        self.joins = ""
        self.ended_by = 0  # the signal that we ended it for
        self.assembly: Assembly | None = None
        self.cgroup: cgroups.StepGroup | None = None
        self.pid = 0
        self.killed = False
        self.started = 0.0
        self.oom_kills = 0

    def close_streams(self) -> None:
        for fd in self.streams:
            os.close(fd)
        self.streams = []

    @property
    def is_over(self) -> bool:
        """Whether it is being killed, for whatever reason."""
        return self.killed or bool(self.ended_by)


class Helper:
    """Pid 1 of the helper's namespaces: waits for requests, children and closing sockets.

    Args:
        control: the control socket.
        home: directory of a private memory file system.
        runtime: path of the OCI runtime.
        name: "crun" or "runc".
    """

    def __init__(self, control: socket.socket, home: str, runtime: str, name: str, env: dict[str, str]) -> None:
        self._control = control
        self._home = home
        self._runtime = runtime
        self._name = name
        self._env = env
        self._steps: dict[int, _Step] = {}  # by the runtime's pid
        self._joining: list[_Step] = []  # wait for the step they join to begin
        self._count = 0
        self._token = os.urandom(6).hex()  # in here our pid is 1, like that of every other helper
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._groups = cgroups.Groups(self._token)
        self._compiler = seccomp_bpf.Compiler()

    def serve(self) -> None:
        """Work until the control socket closes."""
        self._warm_up()
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        while True:
            for step in self._steps.values():
                if not step.killed:
                    poll.register(step.socket, select.POLLIN)
                if step.console is not None:
                    poll.register(step.console, select.POLLIN)
            ready = {fd for fd, _ in poll.poll(self._wait_ms())}
            if wake_read in ready:
                os.read(wake_read, 4096)
            for step in list(self._steps.values()):
                self._attend(step, ready, poll)
            self._reap(poll)
            self._join()
            if self._control.fileno() in ready and not self._receive():
                return

    def _wait_ms(self) -> int | None:
        """Return how long nothing may happen: signals and kills are tried again."""
        if self._joining or any(step.signals for step in self._steps.values()):
            return _SIGNAL_AGAIN_MS
        return _KILL_AGAIN_MS if any(step.is_over for step in self._steps.values()) else None

    def _attend(self, step: _Step, ready: set[int], poll: select.poll) -> None:
        """Do for one step what its descriptors, or the time that passed, ask for."""
        if not ready and step.is_over:
            self._kill(step, again=True)
        if step.console is not None and step.console.fileno() in ready:
            _forget(poll, step.console)
            if step.console.pass_on(step.socket):
                step.console.close()
                step.console = None
        if step.socket.fileno() in ready and not step.killed:
            number = self._hear(step)
            if number is None:
                poll.unregister(step.socket)  # a closed socket is ready for ever
                step.killed = True
                self._kill(step)
            elif number:
                step.signals.append(number)
        self._deliver(step)

    def _hear(self, step: _Step) -> int | None:
        """Return the signal that came for a step, 0 for none, None when nobody is there any more."""
        try:
            data = step.socket.recv(64, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:
            return None
        return wire.parse_signal(data) if data else None

    def _deliver(self, step: _Step) -> None:
        """Hand over the signals that wait for the step's program to have begun."""
        while step.signals and not step.is_over:
            if step.signals[0] == wire.SIGWINCH:
                if self._name != "crun" and step.terminal:
                    kill(step.pid, signal.SIGWINCH)  # it stands between two terminals
                step.signals.pop(0)
                continue
            pid = first_process(step.home)
            if not pid or not has_begun(pid, step.pid):
                return
            number = step.signals.pop(0)
            if would_end(pid, number):
                step.ended_by = number
                kill(pid)
            else:
                kill(pid, number)
        if step.is_over:
            step.signals.clear()

    def _warm_up(self) -> None:
        """Compile the usual filter before the first step needs it."""
        profile = seccomp.profile(os.uname().machine)
        if profile is not None and self._name == "crun":
            self._compiler.annotation(profile)

    def _receive(self) -> bool:
        """Take one request; False when the other side has gone."""
        room = socket.CMSG_SPACE(max(_FDS_PER_STEP) * 4)
        data, ancillary, _, _ = self._control.recvmsg(64, room, _MSG_CMSG_CLOEXEC)
        if not data:
            return False
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        if len(fds) in _FDS_PER_STEP:
            self._start(list(fds))
        return True

    def _start(self, fds: list[int]) -> None:
        self._count += 1
        home = f"{self._home}/{self._count}"
        step = _Step(self._count, fds, home)
        try:
            header, blobs = wire.decode_request(_read_all(fds[1]))
            os.mkdir(home, 0o700)
            step.name, step.joins = header["name"], header["joins"]
            if step.joins:
                step.terminal, step.window = header["terminal"], header["window"]
                _write(f"{home}/process.json", wire.dump_config(header["config"]["process"]))
                self._joining.append(step)
                self._join()
                return
            assembly = Assembly(home, header["rootfs"], header["mounts"], blobs, nodev=header["nodev"])
            step.assembly = assembly
            step.terminal, step.window = header["terminal"], header["window"]
            config = self._complete(header["config"], assembly, nodev=header["nodev"])
            _write(f"{home}/config.json", wire.dump_config(config))
            if header["cgroup_parent"] and self._name != "crun":
                raise MachineSetupError("--cgroup-parent needs the OCI runtime crun (apt-get install crun)")
            step.cgroup = self._groups.join(header["cgroup_parent"], step.number)
            if header["limits"] is not None:
                self._limit(step, header["limits"])
            self._spawn(step)
        except (SetupError, OSError, ValueError, KeyError) as error:
            of_step = isinstance(error, SetupError) and not isinstance(error, MachineSetupError)
            self._finish(step, {"error": str(error) or type(error).__name__, "of_step": of_step})
        finally:
            os.close(fds[1])
            self._groups.leave()

    def _limit(self, step: _Step, limits: Json) -> None:
        """Put the step under limits; where that cannot be, it says so and runs without."""
        why = "with --cgroup-parent" if step.cgroup is not None else "with this OCI runtime; crun can"
        if step.cgroup is None and self._name == "crun":
            try:
                step.cgroup = self._groups.limit(limits, step.number)
                return
            except OSError as error:
                why = f"here: {error.strerror}"
        os.write(step.streams[1], f"the limits of this step cannot be set {why}\n".encode())

    def _join(self) -> None:
        """Start the steps whose leader has begun by now."""
        for step in list(self._joining):
            answer = self._try_to_join(step)
            if answer is None:
                continue
            self._joining.remove(step)
            if answer:
                self._finish(step, answer)

    def _try_to_join(self, step: _Step) -> Json | None:
        """Start a step in its leader's namespaces; return {} then, None when it is too early, else what is wrong."""
        leader = next((one for one in self._steps.values() if one.name == step.joins and not one.is_over), None)
        if leader is None:
            return {"error": "the container's first process has ended", "of_step": True}
        number = self._hear(step)
        if number is None:
            return {"error": "cancelled"}
        if number:
            step.signals.append(number)
        pid = first_process(leader.home)
        if not pid or not has_begun(pid, leader.pid):
            return None
        try:
            self._spawn(step, leader)
        except OSError as error:
            return {"error": str(error)}
        return {}

    def _complete(self, config: Json, assembly: Assembly, *, nodev: bool) -> Json:
        """Fill in what only we know: the root, mounts under the runtime's own, and crun's particulars."""
        config["root"]["path"] = assembly.root
        config["mounts"] += assembly.late
        if self._name != "crun":
            return config
        if nodev:
            # crun binds the root once more and drops the flags of the mount it binds. It refuses to remount "/" by
            # that name; at the time of the first mount, nothing lies on /proc yet.
            options = ["bind", "remount", "nodev"]
            remount = {"destination": "/proc/..", "type": "bind", "source": assembly.root, "options": options}
            config["mounts"].insert(0, remount)
        profile = config["linux"].get("seccomp")
        compiled = None if profile is None else self._compiler.annotation(profile)
        if compiled is not None:
            del config["linux"]["seccomp"]
            config["annotations"] = {seccomp_bpf.ANNOTATION: compiled}
        return config

    def _spawn(self, step: _Step, leader: _Step | None = None) -> None:
        arguments = [self._runtime, *self._options(step)]
        arguments += ["run", "--bundle", step.home] if leader is None else ["exec", "-p", f"{step.home}/process.json"]
        arguments += ["--pid-file", f"{step.home}/pid"]
        out, err, *inputs = step.streams
        input_ = inputs[0] if inputs else self._null
        if step.terminal:
            from lamina.executor import terminal  # not needed for builds, which start many helpers

            if self._name == "crun":
                step.console = terminal.Listener(step.home)
                arguments += ["--console-socket", step.console.path]
            else:
                input_ = out = err = terminal.open_between(step.socket, step.window)
                step.streams.append(input_)
        actions = [
            (os.POSIX_SPAWN_DUP2, input_, 0),
            (os.POSIX_SPAWN_DUP2, out, 1),
            (os.POSIX_SPAWN_DUP2, err, 2),
        ]
        arguments.append(f"lamina-{self._token}-{(leader or step).number}")
        step.oom_kills = oom_kills()
        step.started = time.monotonic()
        step.pid = os.posix_spawn(self._runtime, arguments, self._env, file_actions=actions, setsid=True)
        self._steps[step.pid] = step
        step.close_streams()
        if step.assembly is not None:
            step.assembly.close_sources()

    def _options(self, step: _Step) -> list[str]:
        options = ["--root", f"{self._home}/state", "--log", f"{step.home}/log", "--log-format", "json"]
        if self._name == "crun":
            return [*options, "--cgroup-manager=disabled"]
        return [*options, "--rootless", "true"]

    def _kill(self, step: _Step, *, again: bool = False) -> None:
        """Kill the step's first process; the kernel kills the rest of its pid namespace and the runtime then ends.

        Called again after a while for a step that is still there: then the runtime itself is killed too.
        """
        below = children(step.pid)
        if step.joins and (pid := first_process(step.home)):
            below.append(pid)
        for pid in below:
            kill(pid)
        if again or not below:
            kill(step.pid)

    def _reap(self, poll: select.poll) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            step = self._steps.pop(pid, None)
            if step is None:
                continue
            if not step.killed:
                poll.unregister(step.socket)
            if step.console is not None:
                _forget(poll, step.console)
            self._sweep()
            while step.console is not None and not step.console.pass_on(step.socket):
                pass  # what a short program wrote is in its terminal, which nobody has taken yet
            self._finish(step, self._result(step, status))

    def _sweep(self) -> None:
        """Kill what has become our child because its runtime died before it."""
        for pid in children(os.getpid()):
            if pid not in self._steps:
                kill(pid)
                try:
                    os.waitpid(pid, 0)
                except ChildProcessError:
                    pass

    def _result(self, step: _Step, status: int) -> Json:
        duration = time.monotonic() - step.started
        message = "" if step.is_over else runtime_message(step.home)
        oom = not step.killed and oom_kills() > step.oom_kills
        return {"duration_s": duration, **outcome(status, message, self._name, ended_by=step.ended_by, oom=oom)}

    def _finish(self, step: _Step, answer: Json) -> None:
        """Undo the step's mounts, then answer: whoever reads the answer may use the upper directory at once."""
        step.close_streams()
        if step.console is not None:
            step.console.close()
            step.console = None
        if step.assembly is not None:
            step.assembly.release()
        if step.cgroup is not None:
            step.cgroup.remove()
        try:
            step.socket.send(json.dumps(answer).encode("ascii"), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass  # nobody waits any more
        step.socket.close()


def _read_all(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    chunks = []
    at = 0
    while at < size and (chunk := os.pread(fd, size - at, at)):
        chunks.append(chunk)
        at += len(chunk)
    return b"".join(chunks)


def _forget(poll: select.poll, console: Listener) -> None:
    """Wait no more; the listener may have become a connection that was not waited on yet."""
    try:
        poll.unregister(console)
    except KeyError:
        pass


def _write(path: str, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)


def _enter(home: str, runtime_name: str) -> None:
    """In pid 1: make the namespaces' own /proc, memory and view of the control groups."""
    kernel.set_death_signal(signal.SIGKILL)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("proc", "/proc", "proc", flags)
    kernel.mount("lamina", home, "tmpfs", kernel.MS_NOSUID, "mode=700")
    cgroups.please_runtime()
    if runtime_name != "crun":
        cgroups.make_read_only()
    os.mkdir(f"{home}/state", 0o700)


def main() -> None:
    """Run the helper; arguments are its home directory, the runtime's path and the runtime's name."""
    home, runtime, name = sys.argv[1:4]
    os.closerange(wire.CONTROL_FD + 1, 1 << 20)
    os.set_inheritable(wire.CONTROL_FD, False)
    control = socket.socket(fileno=wire.CONTROL_FD)
    try:
        os.setsid()  # Ctrl-C is for the build, which then tells us
    except PermissionError:
        pass
    os.umask(0o022)
    try:
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWPID)
        child = os.fork()
        if child == 0:
            _enter(home, name)
    except OSError as error:
        what = f"cannot make the step helper's namespaces: {error.strerror} ({error.filename})"
        control.send(json.dumps({"error": what}).encode("ascii"))
        os._exit(1)
    if child:
        control.close()
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    Helper(control, home, runtime, name, env).serve()
    # No tidying: when we are gone, the kernel kills what still runs in here and drops the mounts.
    os._exit(0)
