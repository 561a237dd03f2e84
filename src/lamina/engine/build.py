"""One build from a Dockerfile: parse, convert, solve, assemble, export.

The steps, in order; each is a room below and nothing here knows how it does its part:

    Dockerfile -> AST -> LLB + config (-> checks) -> solver -> chain of layers -> manifest + config -> outputs
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import chain
from typing import BinaryIO

from lamina.cancel import Cancel
from lamina.checks.pragmas import BUILD_ARG as CHECK_ARG
from lamina.dockerfile.convert import Converted, ConvertOptions, convert
from lamina.dockerfile.parser import parse
from lamina.dockerfile.syntax import check_syntax
from lamina.engine import memo
from lamina.engine.check import check_in_build
from lamina.engine.job import Job, Wanted
from lamina.engine.options import BuildOptions, BuildResult, Environment
from lamina.engine.outputs import Built, plan_outputs
from lamina.engine.result_checks import check_built
from lamina.engine.upkeep.collect import collect_garbage
from lamina.errors import InputError
from lamina.llb.definition import Graph, load_definition, with_target
from lamina.oci.platform import Platform, host_platform
from lamina.patterns import parse_ignore
from lamina.progress import Sink, WarningEvent
from lamina.session import Session
from lamina.store.files import read_capped

MAX_IGNORE_BYTES = 16 << 20


def build(
    options: BuildOptions,
    session: Session,
    environment: Environment,
    sink: Sink,
    cancel: Cancel,
    *,
    stdout: BinaryIO | None = None,
) -> BuildResult:
    """Build one image (or file tree) and put it where the options say.

    Raises:
        Error: bad input, a failing step, a machine or network that will not do; nothing half-written stays.
    """
    _refuse_unsupported(options)
    platforms = wanted_platforms(options)
    plan = plan_outputs(options)
    with Job(options, plan, session, environment, sink, cancel, platform=platforms[0], stdout=stdout) as job:
        result = _build(options, platforms, job)
        job.recording.succeeded(result)
        return result


def _build(options: BuildOptions, platforms: list[Platform], job: Job) -> BuildResult:
    """Do the steps of a build; every event goes into the record."""
    sink, place, resolve = job.sink, job.place, job.resolve
    with job.trace.phase("frontend dockerfile.v0"):
        check_syntax(options.dockerfile, options.dockerfile_name, options.build_args)
        dockerfile = parse(options.dockerfile, options.dockerfile_name)
        converted = [convert(dockerfile, convert_options(options, platform), resolve) for platform in platforms]
    asked, options = options, replace(options, source_date_epoch=converted[0].source_date_epoch)
    job.options = options
    if options.attests:
        from lamina.engine.asked import invocation_of, read_beside

        job.invocation, job.materials = invocation_of(options), read_beside(options)
    findings = check_in_build(dockerfile, options, platforms, resolve.configs, sink)
    warnings = tuple(dict.fromkeys(warning for one in converted for warning in one.warnings))
    for warning in warnings:
        sink(WarningEvent("", warning.message, url=warning.rule, source=warning.source))
    graphs = [job.gate.admit(load_definition(one.definition)) for one in converted]
    observed = memo.observe(options.context, graphs[0]) if options.context else None
    troubles: list[tuple[str, ...]] = []

    def look(built: Sequence[Built]) -> None:
        # files that are exported as files are not run from an image
        for one in built if job.plan.layers_wanted else ():
            troubles.append(check_built(place, one.ref, one.config, one.platform, dockerfile, options, sink))

    wanted = [
        Wanted(platform, graph, one.image_config, extras_of(graph, one))
        for platform, graph, one in zip(platforms, graphs, converted, strict=True)
    ]
    result = job.deliver(wanted, look)
    result = replace(
        result,
        warnings=tuple(dict.fromkeys([*findings, *(one.message for one in warnings), *chain(*troubles)])),
    )
    collect_garbage(place)
    memo.remember(place.state, asdict(asked), observed, resolve.pins, result, job.recording.counted)
    return result


def extras_of(graph: Graph, converted: Converted) -> dict[str, Graph]:
    """Return what an SBOM shall speak of beside the result."""
    return {name: with_target(graph, target) for name, target in converted.scanned.items()}


def _refuse_unsupported(options: BuildOptions) -> None:
    if options.ca not in ("", "host"):
        raise InputError(f"--ca takes 'host', not {options.ca!r}")


def wanted_platforms(options: BuildOptions) -> list[Platform]:
    """Return the platforms to build for, this machine's by default; each once."""
    return list(dict.fromkeys(map(Platform.parse, options.platforms))) or [host_platform()]


def convert_options(options: BuildOptions, platform: Platform) -> ConvertOptions:
    """Return what conversion depends on, out of what a build depends on."""
    return ConvertOptions(
        build_args={name: value for name, value in options.build_args.items() if name != CHECK_ARG},
        target=options.target,
        platform=platform,
        build_platform=host_platform(),
        labels=dict(options.labels),
        named_contexts=dict(options.build_contexts),
        context_excludes=_context_excludes(options),
        no_cache=options.no_cache,
        no_cache_filter=tuple(options.no_cache_filter),
        network=options.network,
        add_hosts=tuple(options.add_hosts),
        shm_size=options.shm_size,
        ulimits=tuple(options.ulimits),
        exclude_patterns=tuple(parse_ignore(options.ignore)) if options.ignore is not None else (),
        source_date_epoch=options.source_date_epoch,
        hostname=options.hostname,
        cgroup_parent=options.cgroup_parent,
        several_platforms=len(options.platforms) > 1,
    )


def _context_excludes(options: BuildOptions) -> dict[str, tuple[str, ...]]:
    """Return the rules of the ignore files in named contexts that are directories."""
    found = {}
    for name, source in options.build_contexts.items():
        path = os.path.join(source, ".dockerignore")
        if "://" not in source and os.path.isfile(path):
            found[name] = tuple(parse_ignore(read_capped(path, MAX_IGNORE_BYTES)))
    return found
