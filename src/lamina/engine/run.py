"""`lamina run`: try an image. Foreground, its config honoured, nothing kept.

The image's layers become an overlay with a throw-away upper; the step helper runs the command in it, on the
host's network (ports of the image are ports of the machine).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from lamina.cancel import Cancel
from lamina.engine.options import Environment
from lamina.engine.place import CredentialSource, Place
from lamina.errors import InputError
from lamina.executor.executor import Executor
from lamina.executor.names import host_resolv_conf, hosts_file
from lamina.executor.runtime import find_runtime
from lamina.executor.step import Rootfs, Step, StepMount
from lamina.layer.tree import remove_tree
from lamina.oci.reference import Reference
from lamina.ops.user import lookup_user
from lamina.snapshot.rows import LayerRef

OnOutput = Callable[[int, bytes], None]


@dataclass(slots=True)
class RunOptions:
    """How to run an image.

    Attributes:
        command: replaces the image's CMD; the ENTRYPOINT stays unless `entrypoint` is given.
        environment: `NAME=value` settings on top of the image's.
        volumes: (host path, path in the image, read-only).
        entrypoint: replaces the image's; None keeps it.
    """

    command: Sequence[str] = ()
    environment: Sequence[str] = ()
    volumes: Sequence[tuple[str, str, bool]] = ()
    user: str = ""
    workdir: str = ""
    entrypoint: Sequence[str] | None = None
    network: str = "host"
    hostname: str = ""
    add_hosts: Sequence[tuple[str, str]] = field(default_factory=tuple)


def run_image(
    name: str,
    options: RunOptions,
    environment: Environment,
    cancel: Cancel,
    on_output: OnOutput,
    credentials: CredentialSource | None = None,
) -> int:
    """Run an image and return its exit code; the image is pulled when it is not in the store.

    Raises:
        InputError: no such image, nothing to run, an unknown user.
        MachineError: no runtime on this machine.
    """
    with Place(environment, cancel, credentials=credentials) as place:
        image = place.images.resolve(_reference(place, name), None, cancel)
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
            with Executor(runtime, place.lease.directory) as executor:
                result = executor.run(step, on_output, cancel)
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
    hostname = options.hostname or "lamina"
    mounts = [StepMount(target, "bind", source=source, readonly=ro) for source, target, ro in options.volumes]
    return Step(
        args=tuple(args),
        rootfs=rootfs,
        env=tuple(env),
        cwd=options.workdir or run.get("WorkingDir") or "/",
        uid=user.uid,
        gid=user.gid,
        extra_gids=user.groups,
        mounts=tuple(mounts),
        network=options.network,  # type: ignore[arg-type]
        hostname=hostname,
        hosts=hosts_file(hostname, options.add_hosts),
        resolv_conf=host_resolv_conf(),
    )


def _merge(base: Sequence[str], extra: Sequence[str]) -> list[str]:
    """Return settings with later ones of the same name replacing earlier ones, in place."""
    merged = {line.partition("=")[0]: line for line in base}
    for line in extra:
        merged[line.partition("=")[0]] = line
    return list(merged.values())
