"""`lamina run`: try an image. Foreground, its config honoured, nothing kept.

The image's layers become an overlay with a throw-away upper; the step helper runs the command in it, on the
host's network (ports of the image are ports of the machine).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from lamina.cancel import Cancel
from lamina.engine.options import Environment
from lamina.engine.place import CredentialSource, Place
from lamina.errors import InputError
from lamina.executor.attach import Attached
from lamina.executor.executor import Executor
from lamina.executor.names import host_resolv_conf, hosts_file
from lamina.executor.runtime import find_runtime
from lamina.executor.step import Rootfs, Step, StepMount, Ulimit
from lamina.layer.tree import remove_tree
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.ops.user import lookup_user
from lamina.snapshot.rows import LayerRef

OnOutput = Callable[[int, bytes], None]
Attach = Callable[[], AbstractContextManager[Attached | None]]

_SHM_BYTES = 64 << 20


@dataclass(slots=True)
class RunOptions:
    """How to run an image.

    Attributes:
        command: replaces the image's CMD; the ENTRYPOINT stays unless `entrypoint` is given.
        environment: `NAME=value` settings on top of the image's.
        mounts: what is mounted beside the image's files.
        entrypoint: replaces the image's; None keeps it.
        readonly: the image's files cannot be written.
        shm_size: bytes of /dev/shm, 0 for the usual.
        terminal: the command's streams are one terminal.
        window: its rows and columns at first.
        pull: "missing" asks the registry for what the store lacks, "always" and "never" say so.
        platform: `os/arch`, "" for this machine's.
    """

    command: Sequence[str] = ()
    environment: Sequence[str] = ()
    mounts: Sequence[StepMount] = ()
    user: str = ""
    workdir: str = ""
    entrypoint: Sequence[str] | None = None
    network: str = "host"
    hostname: str = ""
    add_hosts: Sequence[tuple[str, str]] = ()
    readonly: bool = False
    shm_size: int = 0
    ulimits: Sequence[Ulimit] = ()
    terminal: bool = False
    window: tuple[int, int] = (0, 0)
    pull: str = "missing"
    platform: str = ""


def run_image(
    name: str,
    options: RunOptions,
    environment: Environment,
    cancel: Cancel,
    on_output: OnOutput,
    credentials: CredentialSource | None = None,
    attach: Attach = nullcontext,
) -> int:
    """Run an image and return its exit code; the image is pulled when it is not in the store.

    Args:
        attach: entered right before the command starts and left when it has ended; gives the user's side of it.

    Raises:
        InputError: no such image, nothing to run, an unknown user.
        MachineError: no runtime on this machine.
        CancelledError: cancelled; nothing of the command is left.
    """
    platform = Platform.parse(options.platform) if options.platform else None
    with Place(environment, cancel, credentials=credentials, pull=options.pull == "always") as place:
        reference = _reference(place, name)
        if options.pull == "never" and not _is_here(place, reference):
            raise InputError(f"no image {name} in the store", hint="leave out --pull=never to fetch it")
        image = place.images.resolve(reference, platform, cancel)
        ref = LayerRef(place.images.add_layers(image))
        run: dict[str, Any] = dict(image.config.run)
        runtime = find_runtime(environment.search_path, environment.runtime or None)
        layers = place.layers
        lowers = layers.trees(ref, cancel)
        if not lowers:
            raise InputError(f"image {name} has no files: there is nothing to run in it")
        upper, work = layers.new_upper(ref, cancel), layers.scratch("w")
        work.mkdir(mode=0o700)
        rootfs = Rootfs(tuple(lowers), str(upper), str(work), userxattr=environment.userns)
        user = lookup_user(options.user or run.get("User") or "0", layers.view(ref, cancel))
        step = _step(name, run, options, rootfs, user)
        try:
            with Executor(runtime, place.lease.directory) as executor, attach() as attached:
                result = executor.run(step, on_output, cancel, attached)
        finally:
            remove_tree(upper)
            remove_tree(work)
        if result.message:
            on_output(2, f"lamina: {result.message}\n".encode())
        return result.exit_code


def _reference(place: Place, name: str) -> Reference:
    """Return the reference a user means: a name, or the start of an image ID."""
    if name and all(c in "0123456789abcdef" for c in name) and len(name) >= 6:
        found = place.store.resolve_id(name)
        if len(found) == 1:
            return Reference.parse(found[0].name)
    return Reference.parse(name)


def _is_here(place: Place, reference: Reference) -> bool:
    if reference.digest is not None:
        return place.store.has(reference.digest)
    return place.store.resolve(str(reference)) is not None


def _step(name: str, run: dict[str, Any], options: RunOptions, rootfs: Rootfs, user: Any) -> Step:
    entrypoint = list(options.entrypoint if options.entrypoint is not None else run.get("Entrypoint") or [])
    command = list(options.command)
    if not command and options.entrypoint is None:
        command = list(run.get("Cmd") or [])
    args = entrypoint + command
    if not args:
        raise InputError(f"image {name} has neither ENTRYPOINT nor CMD", hint="say what to run after the image's name")
    env = _merge(run.get("Env") or [], options.environment)
    known = {line.partition("=")[0] for line in env}
    if "PATH" not in known:
        env.append("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if "HOME" not in known:
        env.append(f"HOME={user.home}")
    if options.terminal and "TERM" not in known:
        env.append("TERM=xterm")
    hostname = options.hostname or "lamina"
    return Step(
        args=tuple(args),
        rootfs=rootfs,
        env=tuple(env),
        cwd=options.workdir or run.get("WorkingDir") or "/",
        uid=user.uid,
        gid=user.gid,
        extra_gids=user.groups,
        mounts=tuple(options.mounts),
        network=options.network,  # type: ignore[arg-type]
        hostname=hostname,
        hosts=hosts_file(hostname, options.add_hosts),
        resolv_conf=host_resolv_conf(),
        readonly_root=options.readonly,
        shm_size_bytes=options.shm_size or _SHM_BYTES,
        ulimits=tuple(options.ulimits),
        terminal=options.terminal,
        window=options.window,
    )


def _merge(base: Sequence[str], extra: Sequence[str]) -> list[str]:
    """Return settings with later ones of the same name replacing earlier ones, in place."""
    merged = {line.partition("=")[0]: line for line in base}
    for line in extra:
        merged[line.partition("=")[0]] = line
    return list(merged.values())
