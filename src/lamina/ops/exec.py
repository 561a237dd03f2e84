"""ExecOp: one command in a root file system, with mounts beside it.

Inputs that become a writable mount with an output count by identity; read-only and thrown-away mounts count by
the content under their selector. SSH agents, cache mounts and proxies never count, and secrets only where the user
lets them: then by a fingerprint that nobody without its key can test.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina.cancel import Cancel
from lamina.errors import Error, InputError, NotYetError, SourceRange
from lamina.executor.emulation import check_can_run
from lamina.executor.names import host_resolv_conf, hosts_file
from lamina.executor.step import Step, StepResult, Ulimit
from lamina.llb.identity import message_digest, op_digest
from lamina.ops.mounts import SECRET, Mounts
from lamina.ops.output import Output
from lamina.ops.source import platform_of
from lamina.ops.trust import trust_environment
from lamina.ops.user import lookup_user
from lamina.ops.worker import Worker
from lamina.snapshot.rows import LayerRef
from lamina.solver.protocol import CacheMap, Dependency, Result, RunContext

_NETWORKS = {0: "default", 1: "host", 2: "none"}
_PROXY_FIELDS = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")


class StepFailedError(Error):
    """The command of a RUN ended with another code than 0."""


class ExecOp:
    """Runs `op.exec`. Outputs are the writable mounts in order of their output number."""

    def __init__(self, op: Any, worker: Worker, source: SourceRange | None) -> None:
        self._op = op
        self._exec = op.exec
        self._worker = worker
        self._source = source
        if self._exec.security not in (0, 1) or self._exec.network not in _NETWORKS:
            raise InputError("ExecOp has an unknown network or security mode", source=source)
        self._check_entitlements()
        if len(self._exec.cdiDevices):
            raise NotYetError("RUN --device", source=source)
        if not self._exec.meta.args:
            raise InputError("nothing to run: the command is empty", source=source)

    def cache_map(self) -> CacheMap:
        """Everything of the op but its inputs and its proxies."""
        bare = type(self._op)()
        bare.CopyFrom(self._op)
        bare.ClearField("inputs")
        bare.exec.meta.ClearField("proxy_env")
        meta = self._exec.meta
        parts = {
            "kind": "exec",
            "args": list(meta.args),
            "env": list(meta.env),
            "cwd": meta.cwd,
            "user": meta.user,
            "mounts": [f"{mount.dest} {mount.selector}".strip() for mount in self._exec.mounts],
            "network": _NETWORKS[self._exec.network],
        }
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
        by_content = all(mount.dest != "/" and mount.output < 0 and mount.mountType == 0 for mount in mounts)
        return Dependency("", by_content=by_content and bool(mounts))

    def content_key(self, number: int, result: Result, cancel: Cancel) -> str:
        """Return the digest of what the bind mounts of this input show."""
        from lamina.layer.recipe import CopyOptions, content_digest
        from lamina.ops.worker import LocalRef

        view = result.view if isinstance(result, LocalRef) else self._worker.layers.view(result, cancel)
        selectors = sorted({mount.selector or "/" for mount in self._exec.mounts if mount.input == number})
        options = CopyOptions()  # not just its contents: a mount shows the directory's own mode and owner too
        return op_digest("bind", *(f"{s}={content_digest(view, s, options)}" for s in selectors))

    def run(self, inputs: Sequence[Result], context: RunContext) -> list[Result]:
        """Mount, run, and make layers of what was written.

        Raises:
            StepFailedError: the command's exit code is not among the valid ones.
        """
        check_can_run(platform_of(self._op), self._source)
        output = Output(context)
        with Mounts(self._exec, inputs, self._worker, context.cancel, self._source) as mounts:
            step = self._step(mounts, context.cancel)
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
            security="insecure" if self._exec.security == 1 else "sandbox",
        )

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
        command = " ".join(self._exec.meta.args)
        what = f'process "{command}" did not complete successfully: exit code: {result.exit_code}'
        hint = result.message
        if result.oom:
            what += " (killed: out of memory)"
            hint = hint or "the kernel ran out of memory; run fewer steps at once with --jobs"
        elif result.exit_code == 127 and not hint:
            hint = "127 means that a program was not found in the image"
        raise StepFailedError(what, hint=hint, source=self._source, log=output.tail())
