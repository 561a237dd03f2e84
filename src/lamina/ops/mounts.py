"""The mounts of one ExecOp: prepared before the step, made into layers or thrown away after it.

Locks on cache mounts are taken in order of their ids and held for the step. Everything is released on every
way out of the `with` block; what was not committed is removed.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lamina.cancel import Cancel
from lamina.errors import InputError, SourceRange
from lamina.executor.step import Rootfs, StepMount
from lamina.layer.recipe_source import missing
from lamina.layer.tree import remove_tree
from lamina.layer.union import clean_path
from lamina.ops.ssh import AgentProxy
from lamina.ops.worker import Worker, not_offered
from lamina.snapshot.rows import LayerRef
from lamina.solver.protocol import Result

BIND, SECRET, SSH, CACHE, TMPFS = 0, 1, 2, 3, 4
SHARED, PRIVATE, LOCKED = 0, 1, 2
_SECRET_LIMIT = 500 << 10


class Mounts:
    """Context manager over the mounts of one step.

    Attributes:
        root: the chain the step's root stands on.
        rootfs: the root as directories.
        step_mounts: everything beside the root.
        environment: variables that mounts bring (`SSH_AUTH_SOCK`, secrets as variables).
        secrets: values the step was given, for blanking them in its output.
        readonly_root: the root takes no writes.
    """

    def __init__(
        self, exec_op: Any, inputs: Sequence[Result], worker: Worker, cancel: Cancel, source: SourceRange | None
    ) -> None:
        self._exec, self._inputs, self._worker, self._cancel, self._source = exec_op, inputs, worker, cancel, source
        self._stack = ExitStack()
        self._caches: list[str] = []
        self._uppers: dict[int, tuple[LayerRef, Path | None]] = {}
        self.root = LayerRef(None)
        self.rootfs = Rootfs(())
        self.step_mounts: list[StepMount] = []
        self.environment: list[str] = []
        self.secrets: list[bytes] = []
        self.readonly_root = False
        self.shm_size = 0
        self._agent: list[str] = []

    def __enter__(self) -> Mounts:
        try:
            self._prepare()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def commit(self, description: str) -> list[Result]:
        """Make a layer of each writable mount with an output, in order of the outputs.

        Raises:
            DiskFullError: what the step wrote does not fit, there or into its cache mounts.
        """
        for name in dict.fromkeys(self._caches):
            self._worker.mount_used(name)
        results: list[Result] = []
        for output in sorted(self._uppers):
            below, upper = self._uppers[output]
            results.append(below if upper is None else self._worker.layers.add_upper(below, upper, description))
        return results

    def _prepare(self) -> None:
        roots = [mount for mount in self._exec.mounts if mount.dest == "/"]
        if len(roots) != 1 or roots[0].mountType != BIND:
            raise InputError("a step needs exactly one root mount", source=self._source)
        self._prepare_root(roots[0])
        caches = sorted((m for m in self._exec.mounts if m.mountType == CACHE), key=lambda m: str(m.cacheOpt.ID))
        prepared = {id(mount): self._cache(mount) for mount in caches}
        for number, mount in enumerate(self._exec.mounts):
            if mount.dest == "/":
                continue
            if mount.mountType == CACHE:
                self.step_mounts.append(prepared[id(mount)])
            elif mount.mountType == BIND:
                self.step_mounts.append(self._bind(mount))
            elif mount.mountType == TMPFS:
                self._tmpfs(mount)
            elif mount.mountType == SECRET:
                self._secret(mount)
            elif mount.mountType == SSH:
                self._ssh(mount, number)
            else:
                raise InputError(f"unknown kind of mount {mount.mountType}", source=self._source)
        self._variables()

    def seen_by(self, exec_op: Any) -> Mounts:
        """Return these mounts as another process in the same container has them: with secret variables of its own.

        They hold as long as these do, and cannot be committed.
        """
        other = Mounts(exec_op, (), self._worker, self._cancel, self._source)
        other.root, other.rootfs, other.readonly_root, other.shm_size = (
            self.root,
            self.rootfs,
            self.readonly_root,
            self.shm_size,
        )
        other._agent = self._agent
        other._variables()
        return other

    def _variables(self) -> None:
        """Set what the mounts bring to the environment, and secrets that are variables."""
        if not any(line.startswith("SSH_AUTH_SOCK=") for line in self._exec.meta.env):
            self.environment += self._agent[:1]
        for variable in self._exec.secretenv:
            value = self._secret_value(variable.ID, variable.optional)
            if value is not None:
                self.environment.append(f"{variable.name}={value.decode('utf-8', 'surrogateescape')}")

    def _prepare_root(self, mount: Any) -> None:
        self.root = self._chain(mount)
        self.readonly_root = bool(mount.readonly)
        if mount.selector not in ("", "/"):
            raise InputError("the root of a step cannot be a part of an input", source=self._source)
        self.rootfs = self._rootfs(self.root, writable=True, output=mount.output)

    def _chain(self, mount: Any) -> LayerRef:
        if mount.input < 0:
            return LayerRef(None)
        return self._worker.as_layers(self._inputs[mount.input], self._cancel)

    def _rootfs(self, ref: LayerRef, *, writable: bool, output: int) -> Rootfs:
        """Return the stack for a chain; an upper is made for writes and kept when there is an output."""
        lowers = self._worker.layers.trees(ref, self._cancel)
        if not lowers:
            empty = self._worker.layers.scratch("e")
            empty.mkdir(mode=0o755)
            self._stack.callback(remove_tree, empty)
            lowers = [str(empty)]
        if not writable:
            if output >= 0:
                self._uppers[output] = (ref, None)
            return Rootfs(tuple(lowers), userxattr=self._worker.userxattr)
        upper = self._worker.layers.new_upper(ref, self._cancel)
        work = self._worker.layers.scratch("w")
        work.mkdir(mode=0o700)
        for path in (upper, work):
            self._stack.callback(_remove_if_there, path)
        if output >= 0:
            self._uppers[output] = (ref, upper)
        return Rootfs(tuple(lowers), str(upper), str(work), userxattr=self._worker.userxattr)

    def _bind(self, mount: Any) -> StepMount:
        ref = self._chain(mount)
        if mount.selector not in ("", "/"):
            view, path = self._worker.layers.view(ref, self._cancel), clean_path(mount.selector)
            if view.lookup(view.resolve(path)) is None:
                raise missing(view, path)
        rootfs = self._rootfs(ref, writable=not mount.readonly, output=mount.output)
        return StepMount(
            mount.dest, "chain", subpath=mount.selector or "/", rootfs=rootfs, readonly=bool(mount.readonly)
        )

    def _tmpfs(self, mount: Any) -> None:
        if mount.dest == "/dev/shm":
            self.shm_size = mount.TmpfsOpt.size
            return
        self.step_mounts.append(StepMount(mount.dest, "tmpfs", size_bytes=mount.TmpfsOpt.size))

    def _secret(self, mount: Any) -> None:
        option = mount.secretOpt
        value = self._secret_value(option.ID, option.optional)
        if value is not None:
            self.step_mounts.append(
                StepMount(mount.dest, "secret", data=value, mode=option.mode or 0o400, uid=option.uid, gid=option.gid)
            )

    def _secret_value(self, secret_id: str, optional: bool) -> bytes | None:
        value = self._worker.session.secret(secret_id)
        if value is None and not optional:
            error = not_offered("secret", secret_id, f"--secret id={secret_id},src=FILE")
            error.source = self._source
            raise error
        if value is not None and len(value) > _SECRET_LIMIT:
            raise InputError(f"secret {secret_id!r} is larger than 500 KiB", source=self._source)
        if value is not None:
            self.secrets.append(value)
        return value

    def _ssh(self, mount: Any, number: int) -> None:
        option = mount.SSHOpt
        agent = self._worker.session.ssh_socket(option.ID or "default")
        if agent is None:
            if option.optional:
                return
            error = not_offered("SSH agent", option.ID or "default", "--ssh default (and start ssh-agent)")
            error.source = self._source
            raise error
        path = self._worker.layers.scratch("s")
        proxy = AgentProxy(path, agent, uid=option.uid, gid=option.gid, mode=option.mode or 0o600)
        self._stack.callback(path.unlink)
        self._stack.callback(proxy.close)
        self.step_mounts.append(StepMount(mount.dest, "bind", source=str(path)))
        self._agent.append(f"SSH_AUTH_SOCK={mount.dest}")

    # -- cache mounts

    def _cache(self, mount: Any) -> StepMount:
        """Return the bind of a cache directory; its sharing mode decides which one and under which lock."""
        name = mount.cacheOpt.ID or mount.dest
        sharing = mount.cacheOpt.sharing
        if sharing not in (SHARED, PRIVATE, LOCKED):
            raise InputError(f"cache mount {name!r} has an unknown sharing mode", source=self._source)
        directory = self._cache_directory(name, sharing)
        if not directory.exists():
            self._seed(directory, mount, name)
        now = time.time()
        self._worker.state.execute(
            """INSERT INTO cachemount(id, name, created, used) VALUES (?, ?, ?, ?)
            ON CONFLICT(id) DO UPDATE SET used = excluded.used, uses = uses + 1""",
            (directory.name, name, now, now),
        )
        self._caches.append(directory.name)
        return StepMount(mount.dest, "bind", source=str(directory), readonly=bool(mount.readonly))

    def _cache_directory(self, name: str, sharing: int) -> Path:
        key = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
        caches = self._worker.root / "caches"
        if sharing == PRIVATE:
            number = 0
            while (fd := self._worker.locks.try_acquire(f"cache:{key}:{number}")) is None:
                number += 1
            self._stack.callback(os.close, fd)
            return caches / (key if number == 0 else f"{key}-{number}")
        self._stack.enter_context(self._worker.locks.hold(f"cache:{key}:0", self._cancel, shared=sharing == SHARED))
        return caches / key

    def _seed(self, directory: Path, mount: Any, name: str) -> None:
        """Make a cache directory with the content (or just the owner and mode) its source gives it."""
        from lamina.layer.recipe import CopyOptions, Plan
        from lamina.layer.tree import TreeWriter
        from lamina.layer.union import Union
        from lamina.ops.worker import LocalRef

        with self._worker.locks.hold(f"seed:{directory.name}", self._cancel):
            if directory.exists():
                return
            making = self._worker.layers.scratch("c")
            making.mkdir(mode=0o755)
            os.chmod(making, 0o755)
            if self._worker.fill_mount is not None and self._worker.fill_mount(name, making):
                pass
            elif mount.input >= 0:
                source = self._inputs[mount.input]
                view = source.view if isinstance(source, LocalRef) else self._worker.layers.view(source, self._cancel)
                plan = Plan(Union([]), now_ns=self._worker.now_ns)
                selector = mount.selector or "/"
                plan.copy(view, selector, "/", CopyOptions(dir_copy_contents=True, create_dest_path=True))
                writer = TreeWriter(making, self._worker.layers.flavour, lower=None)
                for item in plan.items():
                    writer.add(item.entry, item.content)
                writer.finish()
                entry = view.lookup(view.resolve(selector.strip("/")))
                if entry is not None:
                    os.chown(making, entry.uid, entry.gid)
                    os.chmod(making, entry.mode)
            directory.parent.mkdir(parents=True, exist_ok=True)
            os.rename(making, directory)


def _remove_if_there(path: Path) -> None:
    if path.exists():
        remove_tree(path)
