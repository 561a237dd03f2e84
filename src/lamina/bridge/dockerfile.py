"""The frontend `dockerfile.v0`: options and inputs of a client in, a result with one reference for each platform out.

The same parser, conversion and checks as `lamina build`; here the Dockerfile and the context are the client's.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina import rooted
from lamina.bridge.options import options_of, unknown_options
from lamina.bridge.values import CONFIG, PLATFORMS, Ref, Result
from lamina.dockerfile.convert import convert
from lamina.dockerfile.parser import parse
from lamina.dockerfile.syntax import BUILD_ARG, find_syntax, is_built_in
from lamina.engine.build import convert_options, wanted_platforms
from lamina.engine.check import check_in_build
from lamina.engine.job import Job
from lamina.engine.options import BuildOptions
from lamina.errors import InputError, NotYetError
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.platform import Platform
from lamina.progress import VertexEvent, WarningEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 16 << 20
"""Most bytes of a Dockerfile or ignore file."""
_NAME = "Dockerfile"
_REMOTE = ("http://", "https://", "git://", "ssh://", "git@", "github.com/")


RunFrontend = Callable[[str, Mapping[str, str], Mapping[str, pb.Definition]], Result]


def solve_dockerfile(
    job: Job, attrs: Mapping[str, str], inputs: Mapping[str, pb.Definition], run_frontend: RunFrontend
) -> Result:
    """Convert the client's Dockerfile; nothing is run.

    Args:
        run_frontend: runs another frontend, where the file's `# syntax=` line (or BUILDKIT_SYNTAX) names one.

    Raises:
        Error: it is not there, or cannot be built.
    """
    unknown = unknown_options(attrs)
    if unknown:
        job.sink(WarningEvent("", f"options of the frontend that mean nothing here: {', '.join(unknown)}"))
    options = read_sources(job, attrs, inputs)
    other = "" if attrs.get("cmdline") else _other_frontend(options)
    if other:
        return run_frontend("gateway.v0", {**attrs, "source": other.split(" ")[0], "cmdline": other}, inputs)
    platforms = wanted_platforms(options)
    dockerfile = parse(options.dockerfile, options.dockerfile_name)
    converted = [convert(dockerfile, convert_options(options, platform), job.resolve) for platform in platforms]
    options = replace(options, source_date_epoch=converted[0].source_date_epoch)
    job.describe(options)
    check_in_build(dockerfile, options, platforms, job.resolve.configs, job.sink)
    for warning in dict.fromkeys(warning for one in converted for warning in one.warnings):
        job.sink(WarningEvent("", warning.message, url=warning.rule, source=warning.source))
    several = len(platforms) > 1 or attrs.get("multi-platform", "").lower() in ("1", "t", "true")
    return _result(job, platforms, [(one.definition, one.image_config) for one in converted], several)


def _other_frontend(options: BuildOptions) -> str:
    """Return the image of the frontend that is asked for, "" where it is this one."""
    given = options.build_args.get(BUILD_ARG, "")
    found = find_syntax(options.dockerfile) if not given else None
    image = given or (found.image if found is not None else "")
    return "" if not image or is_built_in(image.split(" ")[0]) else image


def read_sources(job: Job, attrs: Mapping[str, str], inputs: Mapping[str, pb.Definition]) -> BuildOptions:
    """Return the options of the build with the Dockerfile and the ignore file, as the client has them."""
    if inputs or any(value.startswith("input:") for value in attrs.values()):
        raise NotYetError("contexts that are results of other builds (`input:`)")
    where = attrs.get("context", "")
    if where.startswith(_REMOTE):
        raise NotYetError("a remote build context, asked of the daemon", hint="clone it, and give the directory")
    for name, usual in (("contextkey", "context"), ("dockerfilekey", "dockerfile")):
        if attrs.get(name, usual) != usual:
            raise NotYetError(f"the frontend option {name}={attrs[name]}")
    name = attrs.get("filename", "") or _NAME
    with _shown(job, f"[internal] load build definition from {name}"):
        data, ignore = _dockerfile(job, name)
    ignore_name = f"{name}.dockerignore"
    if ignore is None:
        with _shown(job, "[internal] load .dockerignore"):
            ignore, ignore_name = _read_one(job, "context", ".dockerignore"), ".dockerignore"
    given = options_of(attrs)
    if given["network"] == "host" and "network.host" not in job.options.allow:
        hint = (
            "give the client --allow network.host, and start the daemon with --allow-insecure-entitlement network.host"
        )
        raise InputError("the host's network was not granted to this build", hint=hint)
    cache_from = [*job.options.cache_from, *given.pop("cache_from")]
    # the outputs, the caches and what steps may do stand in the request of the build, not in options of the frontend
    return replace(
        job.options,
        **{**given, "network": given["network"] or job.options.network},
        cache_from=list(dict.fromkeys(cache_from)),
        dockerfile=data,
        dockerfile_name=name,
        ignore=ignore,
        ignore_name=ignore_name,
    )


def _dockerfile(job: Job, name: str) -> tuple[bytes, bytes | None]:
    """Return the Dockerfile and the ignore file of its own."""
    paths = [name, f"{name}.dockerignore"]
    if os.path.basename(name) == _NAME:
        paths.append(os.path.join(os.path.dirname(name), _NAME.lower()))
    directory = _fetch(job, "dockerfile", paths)
    data = _read(directory, name)
    if data is None and len(paths) == 3:
        data = _read(directory, paths[2])
    if data is None:
        raise InputError("no such Dockerfile", where=name, hint="name it with -f")
    return data, _read(directory, paths[1])


def _read_one(job: Job, context: str, path: str) -> bytes | None:
    """Return one file of a context, None when it is not there or there is no such context."""
    directory = _fetch(job, context, [path], must_be=False)
    return _read(directory, path) if directory is not None else None


def _fetch(job: Job, name: str, paths: Sequence[str], *, must_be: bool = True) -> Any:
    attrs = {"local.followpaths": json.dumps(list(paths)), "local.sharedkeyhint": name + "-" + paths[0]}
    directory = job.session.context_dir(name, attrs)
    if directory is None and must_be:
        raise InputError(f"the client offers no directory {name!r}", hint=f"buildctl: --local {name}=DIR")
    return directory


def _read(directory: Path, path: str) -> bytes | None:
    """Return a file's bytes, None when it is not there. What it names stays beneath the directory."""
    root = rooted.open_root(str(directory))
    try:
        fd = rooted.open_beneath(root, os.path.normpath(path).lstrip("/"), os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from error
    finally:
        os.close(root)
    with open(fd, "rb") as file:
        try:
            data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", where=path) from error
    if len(data) > MAX_BYTES:
        raise InputError(f"is larger than {MAX_BYTES >> 20} MiB", where=path)
    return data


@contextmanager
def _shown(job: Job, title: str) -> Iterator[None]:
    """Show as a vertex what is done here."""
    digest, started = f"internal:{title}", time.time()
    job.sink(VertexEvent(digest, title, started=started))
    try:
        yield
    except BaseException as error:
        job.sink(VertexEvent(digest, title, started=started, completed=time.time(), error=str(error)))
        raise
    job.sink(VertexEvent(digest, title, started=started, completed=time.time()))


def _result(
    job: Job, platforms: Sequence[Platform], found: Sequence[tuple[pb.Definition, Mapping[str, Any]]], several: bool
) -> Result:
    """Return the result as BuildKit's exporters and clients know it."""
    result = Result()
    listed = []
    for platform, (definition, config) in zip(platforms, found, strict=True):
        ref, text = Ref(definition, job), json.dumps(config).encode()
        if not several:
            result.ref, result.metadata[CONFIG] = ref, text
            break
        key = str(platform)
        result.refs[key], result.metadata[f"{CONFIG}/{key}"] = ref, text
        fields = {"architecture": platform.architecture, "os": platform.os}
        if platform.variant:
            fields["variant"] = platform.variant
        listed.append({"ID": key, "Platform": fields})
    if listed:
        result.metadata[PLATFORMS] = json.dumps({"Platforms": listed}).encode()
    return result
