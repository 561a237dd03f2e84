"""The library: `lamina.build` and `lamina.solve`, with the powers of the command line.

The caller's process reads no environment here but what is passed in; defaults are those of a plain machine. An
ordinary user's process cannot mount: it gets a `MachineError` that says how (the command line enters a user
namespace by starting over, which a library must not do to its caller).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina.cancel import Cancel
from lamina.engine.options import BuildOptions, BuildResult, Environment
from lamina.errors import InputError, MachineError
from lamina.progress import Sink, discard
from lamina.session import Credentials

if TYPE_CHECKING:
    from lamina.engine.history import Why

DEFAULT_ROOT = Path("/var/lib/lamina")


class PlainSession:
    """What a calling program offers: directories, secrets by value, agents by socket, credentials by host."""

    def __init__(
        self,
        contexts: Mapping[str, Path],
        secrets: Mapping[str, bytes],
        ssh: Mapping[str, Path],
        credentials: Mapping[str, Credentials],
    ) -> None:
        self._contexts, self._secrets, self._ssh, self._credentials = contexts, secrets, ssh, credentials

    def context_dir(self, name: str, attrs: Mapping[str, str] | None = None) -> Path | None:
        """Return the directory offered under `name`."""
        return self._contexts.get(name)

    def secret(self, secret_id: str) -> bytes | None:
        """Return a secret's value."""
        return self._secrets.get(secret_id)

    def ssh_socket(self, ssh_id: str) -> Path | None:
        """Return an agent's socket."""
        return self._ssh.get(ssh_id)

    def credentials(self, host: str) -> Credentials | None:
        """Return what opens a registry."""
        return self._credentials.get(host)


def build(
    context: str | Path,
    *,
    dockerfile: str | Path | bytes | None = None,
    tags: Sequence[str] = (),
    target: str = "",
    build_args: Mapping[str, str] | None = None,
    secrets: Mapping[str, bytes] | None = None,
    ssh: Mapping[str, Path] | None = None,
    credentials: Mapping[str, Credentials] | None = None,
    outputs: Sequence[str] = (),
    push: bool = False,
    root: str | Path = DEFAULT_ROOT,
    environment: Environment | None = None,
    progress: Sink = discard,
    cancel: Cancel | None = None,
    **more: Any,
) -> BuildResult:
    """Build an image from a Dockerfile.

    Args:
        context: the build context's directory.
        dockerfile: its path (default: `Dockerfile` in the context), or its bytes.
        tags: names for the result.
        target: stage to build, the last one by default.
        build_args: values for ARG.
        secrets: values by id, for `RUN --mount=type=secret`.
        ssh: agents' sockets by id.
        credentials: what opens registries, by host.
        outputs: as `--output`; the image store under `root` by default.
        push: push to the registries of the tags.
        root: the state directory; `environment` overrides it.
        progress: takes progress events, from many threads.
        cancel: stops the build.
        more: any other field of `BuildOptions`.

    Returns:
        Digest, config, names and timings.

    Raises:
        lamina.errors.Error: what cannot be done, and why.
    """
    from lamina.engine.build import build as run_build

    directory = Path(context)
    if not directory.is_dir():
        raise InputError("the build context is not a directory", where=str(directory))
    data, name, path = _read_dockerfile(directory, dockerfile)
    ignore, ignore_name = _read_ignore(directory, path)
    options = BuildOptions(
        context=str(directory.resolve()),
        dockerfile=data,
        dockerfile_name=name,
        ignore=ignore,
        ignore_name=ignore_name,
        tags=list(tags),
        target=target,
        build_args=dict(build_args or {}),
        outputs=list(outputs),
        push=push,
        **more,
    )
    session = PlainSession({"context": directory.resolve()}, secrets or {}, ssh or {}, credentials or {})
    environment = environment or Environment(Path(root), userns=_inside_user_namespace())
    return run_build(options, session, environment, progress, cancel or Cancel())


def solve(
    definition: Any,
    *,
    contexts: Mapping[str, Path] | None = None,
    secrets: Mapping[str, bytes] | None = None,
    ssh: Mapping[str, Path] | None = None,
    credentials: Mapping[str, Credentials] | None = None,
    config: Mapping[str, Any] | None = None,
    tags: Sequence[str] = (),
    output: str = "",
    exact_modes: bool = False,
    counted_secrets: Sequence[str] = (),
    secret_key: str | Path = "",
    source_policies: Sequence[tuple[str, str]] = (),
    root: str | Path = DEFAULT_ROOT,
    environment: Environment | None = None,
    progress: Sink = discard,
    cancel: Cancel | None = None,
) -> BuildResult:
    """Solve an LLB definition (see `lamina.llb`) and put the result where `output` says.

    Args:
        definition: what `State.marshal()` returned, or its bytes.
        contexts: directories for `llb.local(NAME)`.
        config: image config for outputs that are images.
        output: as `--output`; the image store by default.
        exact_modes: modes of files in `contexts` count in cache keys as they are, and not as git has them.
        counted_secrets: ids of secrets that count in cache keys: a changed one runs its steps again.
        secret_key: file with the key of their fingerprints, for machines that share a cache.
        source_policies: name and text of files that say which sources may be used.

    Raises:
        lamina.errors.Error: what cannot be done, and why.
    """
    from lamina.engine.graph import solve_definition

    session = PlainSession(contexts or {}, secrets or {}, ssh or {}, credentials or {})
    environment = environment or Environment(Path(root), userns=_inside_user_namespace())
    options = BuildOptions(
        tags=list(tags),
        outputs=[output] if output else [],
        exact_modes=exact_modes,
        counted_secrets=sorted(set(counted_secrets)),
        secret_key=str(secret_key),
        source_policies=list(source_policies),
    )
    return solve_definition(definition, dict(config or {}), options, session, environment, progress, cancel or Cancel())


def why(
    build: str = "", step: str = "", *, root: str | Path = DEFAULT_ROOT, environment: Environment | None = None
) -> Why:
    """Return why steps of a build were not found in the cache.

    Args:
        build: `BuildResult.build` or the beginning of it; `^N` for the Nth last, "" for the last.
        step: number of a step or a part of its name, "" for all that ran.

    Raises:
        InputError: no such build or step.
    """
    from lamina.engine.history import why as find

    return find(environment.root if environment is not None else Path(root), build, step)


def _read_dockerfile(directory: Path, dockerfile: str | Path | bytes | None) -> tuple[bytes, str, Path | None]:
    if isinstance(dockerfile, bytes):
        return dockerfile, "Dockerfile", None
    path = Path(dockerfile) if dockerfile is not None else directory / "Dockerfile"
    try:
        return path.read_bytes(), path.name, path
    except OSError as error:
        raise InputError(f"cannot read the Dockerfile: {error.strerror}", where=str(path)) from error


def _read_ignore(directory: Path, dockerfile: Path | None) -> tuple[bytes | None, str]:
    """Return the ignore file beside the Dockerfile, else the context's."""
    candidates = [directory / ".dockerignore"]
    if dockerfile is not None:
        candidates.insert(0, dockerfile.with_name(f"{dockerfile.name}.dockerignore"))
    for path in candidates:
        try:
            return path.read_bytes(), path.name
        except FileNotFoundError:
            continue
    return None, ".dockerignore"


def _inside_user_namespace() -> bool:
    """Tell whether root here is root of a user namespace only.

    Raises:
        MachineError: not root at all.
    """
    if os.geteuid() != 0:
        raise MachineError(
            "building needs root, or a user namespace in which one is root",
            hint="run the program as root, or under `unshare --map-auto --map-root-user`, or use the `lamina` command",
        )
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.read().split() != ["0", "0", "4294967295"]
