"""ExecOp: one command in a root file system, with mounts beside it.

Inputs that become a writable mount with an output count by identity; read-only and thrown-away mounts count by
the content under their selector. SSH agents, cache mounts and proxies never count, and secrets only where the user
lets them: then by a fingerprint that nobody without its key can test; of devices the names of those found on this
machine do, what they bring does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lamina.cancel import Cancel
from lamina.errors import CancelledError, Error, InputError, SourceRange
from lamina.executor.emulation import check_can_run
from lamina.executor.names import host_resolv_conf, hosts_file
from lamina.executor.step import Limits, Step, StepResult, Ulimit
from lamina.llb.identity import message_digest, op_digest
from lamina.ops.mounts import SECRET, Mounts
from lamina.ops.output import Output
from lamina.ops.parts import exec_parts
from lamina.ops.source import platform_of
from lamina.ops.trust import trust_environment
from lamina.ops.user import lookup_user
from lamina.ops.worker import Worker
from lamina.snapshot.rows import LayerRef
from lamina.solver.protocol import CacheMap, Dependency, Result, RunContext

if TYPE_CHECKING:
    from lamina.executor.attach import Attached
    from lamina.layer.recipe_listing import Row
    from lamina.ops.devices import StepDevices

_NETWORKS = {0: "default", 1: "host", 2: "none"}
_PROXY_FIELDS = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")


class StepFailedError(Error):
    """The command of a RUN ended with another code than 0."""


class ExecOp:
    """Runs `op.exec`. Outputs are the writable mounts in order of their output number.

    Args:
        build_args: names of the variables that come from ARG; only told when the cache missed.
        limits: what the step may use.
    """

    def __init__(
        self,
        op: Any,
        worker: Worker,
        source: SourceRange | None,
        *,
        build_args: Sequence[str] = (),
        limits: Limits | None = None,
    ) -> None:
        self._limits = limits
        self._build_args = list(build_args)
        self._op = op
        self._exec = op.exec
        self._worker = worker
        self._source = source
        if self._exec.security not in (0, 1) or self._exec.network not in _NETWORKS:
            raise InputError("ExecOp has an unknown network or security mode", source=source)
        self._check_entitlements()
        self._devices = self._find_devices()
        if not self._exec.meta.args:
            raise InputError("nothing to run: the command is empty", source=source)

    def cache_map(self) -> CacheMap:
        """Everything of the op but its inputs and its proxies."""
        bare = type(self._op)()
        bare.CopyFrom(self._op)
        bare.ClearField("inputs")
        bare.exec.meta.ClearField("proxy_env")
        if self._devices is not None:
            # What was found counts, not what it was asked for as: one build may have a device that another lacks.
            bare.exec.ClearField("cdiDevices")
            for name in self._devices.names:
                bare.exec.cdiDevices.add(name=name)
        parts = {**exec_parts(self._op), "build_args": self._build_args}
        if self._devices is not None:
            parts["devices"] = list(self._devices.names)
        dependencies = tuple(self._dependency(number) for number in range(len(self._op.inputs)))
        digest = message_digest("exec", bare)
        if versions := self._secret_versions():
            digest = op_digest("exec with secrets", digest, *(f"{name}={value}" for name, value in versions))
            parts["secrets"] = {name: value[:16] for name, value in versions}
        return CacheMap(digest, dependencies, parts)

    def _secret_versions(self) -> list[tuple[str, str]]:
        """Return the ids and fingerprints of the secrets given to the step that count."""
        ids = {str(mount.secretOpt.ID) for mount in self._exec.mounts if mount.mountType == SECRET}
        ids |= {str(variable.ID) for variable in self._exec.secretenv}
        return [(name, version) for name in sorted(ids) if (version := self._worker.secret_version(name))]

    def _dependency(self, number: int) -> Dependency:
        mounts = [mount for mount in self._exec.mounts if mount.input == number]
        if any(mount.contentCache == 2 for mount in mounts):  # OFF: the author says that identity counts
            return Dependency()
        by_content = all(mount.dest != "/" and mount.output < 0 and mount.mountType == 0 for mount in mounts)
        return Dependency("", by_content=by_content and bool(mounts))

    def content_key(self, number: int, result: Result, cancel: Cancel) -> str:
        """Return the digest of what the bind mounts of this input show."""
        from lamina.layer.recipe import CopyOptions, content_digest
        from lamina.ops.worker import LocalRef

        view = result.view if isinstance(result, LocalRef) else self._worker.layers.view(result, cancel)
        selectors = sorted({mount.selector or "/" for mount in self._exec.mounts if mount.input == number})
        options = CopyOptions()  # not just its contents: a mount shows the directory's own mode and owner too
        try:
            return op_digest("bind", *(f"{s}={content_digest(view, s, options)}" for s in selectors))
        except Error as error:
            raise self._located(error) from None

    def listing(self, number: int, result: Result, cancel: Cancel) -> Iterator[Row]:
        """Iterate over what `content_key` digests."""
        from lamina.layer.recipe import CopyOptions
        from lamina.layer.recipe_listing import content_rows
        from lamina.ops.worker import LocalRef

        view = result.view if isinstance(result, LocalRef) else self._worker.layers.view(result, cancel)
        for selector in sorted({mount.selector or "/" for mount in self._exec.mounts if mount.input == number}):
            yield from content_rows(view, selector, CopyOptions())

    def run(self, inputs: Sequence[Result], context: RunContext) -> list[Result]:
        """Mount, run, and make layers of what was written.

        Raises:
            StepFailedError: the command's exit code is not among the valid ones.
        """
        try:
            return self._run(inputs, context)
        except Error as error:
            raise self._located(error) from None

    def attach(
        self,
        inputs: Sequence[Result],
        cancel: Cancel,
        attached: Attached,
        on_output: Callable[[int, bytes], None],
        *,
        terminal: bool,
        name: str = "",
        on_mounted: Callable[[Mounts], None] = lambda _mounts: None,
    ) -> StepResult:
        """Run the command with somebody in front of it; nothing is kept of what it writes, and any exit code is well.

        Args:
            name: by which others may `join` it.
            on_mounted: is given the mounts, which hold as long as the command runs.

        Raises:
            Error: it cannot be run.
        """
        check_can_run(platform_of(self._op), self._source)
        with Mounts(self._exec, inputs, self._worker, cancel, self._source) as mounts:
            on_mounted(mounts)
            step = replace(self._step(mounts, cancel), terminal=terminal, name=name)
            return self._worker.executor().run(step, on_output, cancel, attached)

    def join(
        self,
        leader: str,
        mounts: Mounts,
        cancel: Cancel,
        attached: Attached,
        on_output: Callable[[int, bytes], None],
        *,
        terminal: bool,
    ) -> StepResult:
        """Run the command as another process beside the one attached as `leader`, on that one's `mounts`.

        Raises:
            InputError: the leader has ended; Error: it cannot be run.
        """
        step = replace(self._step(mounts.seen_by(self._exec), cancel), terminal=terminal, joins=leader)
        return self._worker.executor().run(step, on_output, cancel, attached)

    def _located(self, error: Error) -> Error:
        """Return the error with the instruction's lines; a path that the message names is not told twice."""
        if error.source is None and not isinstance(error, CancelledError):
            error.source = self._source
        if error.where in error.what:
            error.where = ""
        return error

    def _run(self, inputs: Sequence[Result], context: RunContext) -> list[Result]:
        check_can_run(platform_of(self._op), self._source)
        output = Output(context)
        with Mounts(self._exec, inputs, self._worker, context.cancel, self._source) as mounts:
            output.hide(mounts.secrets)
            step = self._with_devices(self._step(mounts, context.cancel), output)
            result = self._worker.executor().run(step, output.write, context.cancel)
            output.close()
            context.cancel.check()
            self._check(result, output)
            return mounts.commit(" ".join(self._exec.meta.args))

    def _step(self, mounts: Mounts, cancel: Cancel) -> Step:
        meta = self._exec.meta
        user = self._user(mounts.root, meta.user, cancel)
        environment = [*meta.env, *mounts.environment, *self._proxies(meta)]
        known = {line.partition("=")[0] for line in environment}
        if "PATH" not in known:
            environment.append("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        if "HOME" not in known:
            environment.append(f"HOME={user.home}")
        trust, trust_mounts = trust_environment(self._worker.trust)
        environment += [f"{name}={value}" for name, value in trust.items() if name not in known]
        hostname = meta.hostname or "buildkitsandbox"
        hosts = [(entry.Host, entry.IP) for entry in meta.extraHosts]
        network = _NETWORKS[self._exec.network]
        return Step(
            args=tuple(meta.args),
            rootfs=mounts.rootfs,
            env=tuple(environment),
            cwd=meta.cwd or "/",
            uid=user.uid,
            gid=user.gid,
            extra_gids=user.groups,
            mounts=(*mounts.step_mounts, *trust_mounts),
            network=network,  # type: ignore[arg-type]
            hostname=hostname,
            hosts=hosts_file(hostname, hosts),
            resolv_conf=host_resolv_conf(),
            shm_size_bytes=mounts.shm_size or self._worker.shm_size or 64 << 20,
            ulimits=tuple(Ulimit(limit.Name, limit.Soft, limit.Hard) for limit in meta.ulimit),
            readonly_root=mounts.readonly_root,
            cgroup_parent=meta.cgroupParent,
            limits=self._limits,
            security="insecure" if self._exec.security == 1 else "sandbox",
        )

    def _find_devices(self) -> StepDevices | None:
        """Return the step's devices, None when it asks for none: then nobody looks for any."""
        if not len(self._exec.cdiDevices):
            return None
        from lamina.ops.devices import find_devices

        return find_devices(self._exec.cdiDevices, self._worker.devices(), self._worker.allow, self._source)

    def _with_devices(self, step: Step, output: Output) -> Step:
        if self._devices is None:
            return step
        from lamina.executor.devices import with_devices

        for name in self._devices.absent:
            output.write(2, f"optional device {name!r} is not registered on this machine\n".encode())
        return with_devices(step, self._worker.devices().edits(self._devices.names))

    def _check_entitlements(self) -> None:
        """Refuse what the user has to allow first.

        Raises:
            InputError: all rights over the machine, or its network, and no leave for it.
        """
        allowed = self._worker.allow
        if self._exec.security == 1 and "security.insecure" not in allowed:
            raise InputError(
                "RUN --security=insecure gives the step all rights over this machine, which was not allowed",
                source=self._source,
                hint="allow it with --allow security.insecure",
            )
        if self._exec.network == 1 and "network.host" not in allowed:
            raise InputError(
                "RUN --network=host was not allowed for this build",
                source=self._source,
                hint="allow it with --allow network.host, or build with --network=host",
            )

    def _user(self, root: LayerRef, user: str, cancel: Cancel) -> Any:
        view = self._worker.layers.view(root, cancel)
        return lookup_user(user or "0", view)

    def _proxies(self, meta: Any) -> list[str]:
        if not meta.HasField("proxy_env"):
            return []
        found = []
        for name in _PROXY_FIELDS:
            if value := getattr(meta.proxy_env, name, ""):
                found += [f"{name.upper()}={value}", f"{name}={value}"]
        return found

    def _check(self, result: StepResult, output: Output) -> None:
        valid = set(self._exec.meta.validExitCodes) or {0}
        if result.exit_code in valid:
            return
        first, _, more = " ".join(self._exec.meta.args).strip().partition("\n")
        command = f"{first} ..." if more else first
        what = f'process "{command}" did not complete successfully: exit code: {result.exit_code}'
        if result.oom:
            what += " (killed: out of memory)"
        raise StepFailedError(what, hint=self._advice(result), source=self._source, log=output.tail())

    def _advice(self, result: StepResult) -> str:
        """Return what may be behind an exit code; the runtime's message says that nothing was started at all."""
        program, code = self._exec.meta.args[0], result.exit_code
        if result.oom:
            return "the kernel ran out of memory; run fewer steps at once with --jobs"
        if code == 127 and result.message and program == "/bin/sh":
            return 'the image has no /bin/sh: start from one that has, or write RUN ["/program", "argument"]'
        if code == 127 and result.message:
            return f"the image has no {program}, or lacks the interpreter or loader that it needs"
        if code == 126 and result.message:
            return f"{program} cannot be executed: does it miss chmod +x, or a first line such as #!/bin/sh?"
        if code == 127:
            return "127 means that a program, or the interpreter in a script's first line, was not found in the image"
        if code == 126:
            return "126 means that a program was found but cannot be executed: does it miss chmod +x?"
        if result.signal:
            return f"{code} is 128 + {result.signal}: a process was ended by {_signal_name(result.signal)}"
        return result.message


def _signal_name(number: int) -> str:
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
