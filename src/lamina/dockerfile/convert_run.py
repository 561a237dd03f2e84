"""RUN: one ExecOp on the stage's root, with its mounts, environment and here-documents."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Any

from lamina.dockerfile import instructions as ins
from lamina.dockerfile.convert_config import DEFAULT_SHELL, command_line
from lamina.dockerfile.convert_sources import platform_pb
from lamina.dockerfile.graph import Node, inputs_of
from lamina.dockerfile.mounts import parse_mount
from lamina.errors import InputError, SourceRange
from lamina.llb.pb import ops_pb2 as pb

if TYPE_CHECKING:
    from lamina.dockerfile.convert_stage import StageState

_NETWORKS: dict[str, Any] = {"": 0, "default": 0, "host": 1, "none": 2}
_SHARING: dict[str, Any] = {"": 0, "shared": 0, "private": 1, "locked": 2}
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
_SCRIPTS = "/dev/pipes/"


def convert_run(item: ins.Run, state: StageState) -> None:
    """Carry out RUN."""
    source, options = item.source, state.conversion.options
    builder = _Builder(state, source)
    args = _arguments(item, state, builder)
    for text in item.mounts:
        builder.mount(parse_mount(text, source, lambda value: state.expand(value, source)))
    if options.shm_size:
        size = pb.TmpfsOpt(size=options.shm_size)
        builder.mounts.append(pb.Mount(input=-1, dest="/dev/shm", output=-1, mountType=pb.TMPFS, TmpfsOpt=size))
    meta = _meta(args, state)
    if builder.agents and "SSH_AUTH_SOCK" not in state.variables():
        meta.env.append(f"SSH_AUTH_SOCK={builder.agents[0]}")
    exec_op = pb.ExecOp(
        meta=meta,
        mounts=builder.mounts,
        network=_NETWORKS[item.network or options.network],
        security=pb.INSECURE if item.security == "insecure" else pb.SANDBOX,
        secretenv=builder.secret_env,
        cdiDevices=[pb.CDIDevice(name=device.name, optional=not device.required) for device in item.devices],
    )
    op = pb.Op(inputs=inputs_of(builder.nodes), exec=exec_op, platform=platform_pb(state.platform))
    title = state.title(f"RUN {item.original.partition(' ')[2].strip() or ' '.join(args)}")
    state.add(op, title, source, build_args=tuple(state.declared))
    shown = [f"{name}={state.variables().get(name, value)}" for name, value in state.declared.items()]
    declared = f"|{len(shown)} {' '.join(shown)} " if shown else ""
    state.history(f"RUN {declared}{' '.join(args)} # buildkit", layer=True)


def _arguments(item: ins.Run, state: StageState, builder: _Builder) -> list[str]:
    """Return the process's arguments; a script with an interpreter line is mounted and run by the shell."""
    command = item.command
    if isinstance(command, ins.ExecForm) or command.script is None:
        return command_line(command, state)
    script = command.script
    text = script.text()
    shell = [*(state.config.get("Shell") or DEFAULT_SHELL)]
    if not text.startswith("#!"):
        return [*shell, text]
    path = posixpath.join(_SCRIPTS, script.name)
    builder.script(path, text)
    return [*shell, path]


def _meta(args: list[str], state: StageState) -> pb.Meta:
    options = state.conversion.options
    meta = pb.Meta(
        args=args,
        env=[f"{name}={value}" for name, value in state.variables().items()],
        cwd=state.workdir(),
        user=str(state.config.get("User") or ""),
        hostname=options.build_args.get("BUILDKIT_SANDBOX_HOSTNAME", "") or options.hostname,
        cgroupParent=options.cgroup_parent,
    )
    for entry in options.add_hosts:
        name, _, address = entry.partition("=") if "=" in entry else entry.partition(":")
        meta.extraHosts.add(Host=name, IP=address.strip("[]"))
    for limit in options.ulimits:
        name, _, values = limit.partition("=")
        soft, _, hard = values.partition(":")
        meta.ulimit.add(Name=name, Soft=int(soft), Hard=int(hard or soft))
    for name in sorted(options.build_args):
        if name.lower() in _PROXIES:
            setattr(meta.proxy_env, name.lower(), options.build_args[name])
            state.conversion.used_args.add(name)
    return meta


class _Builder:
    """The inputs and mounts of one ExecOp; the root is the first of both. `agents`: where sockets of SSH agents are."""

    def __init__(self, state: StageState, source: SourceRange) -> None:
        self._state, self._source = state, source
        root = state.node
        self.nodes: list[Node] = [root] if root is not None else []
        self.mounts: list[pb.Mount] = [pb.Mount(input=0 if root is not None else -1, dest="/", output=0)]
        self.secret_env: list[pb.SecretEnv] = []
        self.agents: list[str] = []

    def _input(self, node: Node | None) -> int:
        if node is None:
            return -1
        if node not in self.nodes:
            self.nodes.append(node)
        return self.nodes.index(node)

    def script(self, path: str, text: str) -> None:
        """Offer a script with its own interpreter at `path`."""
        name = posixpath.basename(path)
        data = text.encode("utf-8", "surrogateescape")
        mkfile = pb.FileActionMkFile(path=f"/{name}", mode=0o755, data=data, timestamp=-1)
        op = pb.Op(file=pb.FileOp(actions=[pb.FileAction(input=-1, secondaryInput=-1, output=0, mkfile=mkfile)]))
        node = self._state.conversion.graph.add(op, f"[{self._state.label}] preparing inline document", self._source)
        self.mounts.append(pb.Mount(input=self._input(node), selector=f"/{name}", dest=path, output=-1, readonly=True))

    def mount(self, mount: ins.Mount) -> None:
        """Add what one `--mount` asks for."""
        kinds = {
            "bind": self._bind,
            "cache": self._cache,
            "tmpfs": self._tmpfs,
            "secret": self._secret,
            "ssh": self._agent,
        }
        kinds[mount.type](mount)

    def _dest(self, mount: ins.Mount) -> str:
        if not mount.target:
            raise InputError(f"--mount=type={mount.type} needs a target", source=self._source, hint="add target=/path")
        dest = self._state.absolute(mount.target).rstrip("/")
        if not dest:
            raise InputError(
                "nothing can be mounted over the root",
                source=self._source,
                hint="name a directory below it: target=/src",
            )
        return dest

    def _from(self, mount: ins.Mount) -> Node | None:
        if not mount.from_:
            return self._state.conversion.context(mount.source)
        return self._state.conversion.source_of(mount.from_, self._state, self._source)

    def _bind(self, mount: ins.Mount) -> None:
        selector = posixpath.normpath("/" + mount.source)
        dest = self._dest(mount)
        self.mounts.append(
            pb.Mount(
                input=self._input(self._from(mount)),
                selector="" if selector == "/" else selector,
                dest=dest,
                output=-1,
                readonly=mount.readonly,
            )
        )

    def _cache(self, mount: ins.Mount) -> None:
        dest = self._dest(mount)
        number = self._input(self._from(mount)) if mount.from_ else -1
        selector = posixpath.normpath("/" + mount.source) if mount.source else ""
        selector = "" if selector == "/" else selector
        if not selector and (mount.mode, mount.uid, mount.gid) != (None, None, None):
            number, selector = self._input(self._cache_root(mount, number)), "/cache"
        namespace = self._state.conversion.options.build_args.get("BUILDKIT_CACHE_MOUNT_NS", "")
        self.mounts.append(
            pb.Mount(
                input=number,
                selector=selector,
                dest=dest,
                output=-1,
                readonly=mount.readonly,
                mountType=pb.CACHE,
                cacheOpt=pb.CacheOpt(ID=f"{namespace}/{mount.id or dest}", sharing=_SHARING[mount.sharing]),
            )
        )

    def _cache_root(self, mount: ins.Mount, below: int) -> Node:
        """Return a directory with the owner and mode that a new cache starts with."""
        base = [self.nodes[below]] if below >= 0 else []
        mkdir = pb.FileActionMkDir(path="/cache", mode=0o755 if mount.mode is None else mount.mode, timestamp=-1)
        mkdir.owner.user.byID, mkdir.owner.group.byID = mount.uid or 0, mount.gid or 0
        action = pb.FileAction(input=0 if base else -1, secondaryInput=-1, output=0, mkdir=mkdir)
        op = pb.Op(inputs=inputs_of(base), file=pb.FileOp(actions=[action]))
        return self._state.conversion.graph.add(op, "[internal] setting cache mount permissions", self._source)

    def _tmpfs(self, mount: ins.Mount) -> None:
        size = pb.TmpfsOpt(size=mount.size_bytes)
        self.mounts.append(pb.Mount(input=-1, dest=self._dest(mount), output=-1, mountType=pb.TMPFS, TmpfsOpt=size))

    def _secret(self, mount: ins.Mount) -> None:
        secret_id = mount.id or mount.source or posixpath.basename(mount.target)
        if not secret_id:
            raise InputError("--mount=type=secret needs an id", source=self._source, hint="write type=secret,id=NAME")
        if mount.env is not None:
            name = mount.env or secret_id
            self.secret_env.append(pb.SecretEnv(ID=secret_id, name=name, optional=not mount.required))
            if not mount.target:
                return
        dest = self._state.absolute(mount.target) if mount.target else f"/run/secrets/{posixpath.basename(secret_id)}"
        option = pb.SecretOpt(
            ID=secret_id,
            uid=mount.uid or 0,
            gid=mount.gid or 0,
            mode=0o400 if mount.mode is None else mount.mode,
            optional=not mount.required,
        )
        self.mounts.append(pb.Mount(input=-1, dest=dest, output=-1, mountType=pb.SECRET, secretOpt=option))

    def _agent(self, mount: ins.Mount) -> None:
        usual = f"/run/buildkit/ssh_agent.{len(self.agents)}"
        dest = self._state.absolute(mount.target) if mount.target else usual
        self.agents.append(dest)
        option = pb.SSHOpt(
            ID=mount.id or "default",
            uid=mount.uid or 0,
            gid=mount.gid or 0,
            mode=0o600 if mount.mode is None else mount.mode,
            optional=not mount.required,
        )
        self.mounts.append(pb.Mount(input=-1, dest=dest, output=-1, mountType=pb.SSH, SSHOpt=option))
