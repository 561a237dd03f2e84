"""One build from a Dockerfile: parse, convert, solve, assemble, export.

The steps, in order; each is a room below and nothing here knows how it does its part:

    Dockerfile -> AST -> LLB + config (-> checks) -> solver -> chain of layers -> manifest + config -> outputs
"""

from __future__ import annotations

import os
import time
from dataclasses import asdict, replace
from itertools import chain
from typing import BinaryIO

from lamina.cancel import Cancel
from lamina.checks.pragmas import BUILD_ARG as CHECK_ARG
from lamina.dockerfile.convert import ConvertOptions, convert
from lamina.dockerfile.parser import parse
from lamina.dockerfile.syntax import check_syntax
from lamina.engine import memo
from lamina.engine.caches import Caches, open_caches, without_gone_layers
from lamina.engine.check import check_in_build
from lamina.engine.options import BuildOptions, BuildResult, Environment
from lamina.engine.outputs import Built, Exporting, Plan, plan_outputs
from lamina.engine.place import Place
from lamina.engine.recording import Recording
from lamina.engine.resolve import Resolver
from lamina.engine.result_checks import check_built
from lamina.engine.solve import Solver, SolveSettings, entitlements
from lamina.errors import InputError
from lamina.llb.definition import load_definition
from lamina.oci.platform import Platform, host_platform
from lamina.patterns import parse_ignore
from lamina.progress import Sink, StatusEvent, WarningEvent
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
    outputs = plan_outputs(options)
    place = Place(
        environment,
        cancel,
        credentials=session.credentials,
        on_bytes=_Transfers(sink).moved,
        platform=platforms[0],
        pull=options.pull,
    )
    with place, Recording(place, options, sink) as recording:
        result = _build(options, platforms, outputs, place, session, recording, stdout)
        recording.succeeded(result)
        return result


def _build(
    options: BuildOptions,
    platforms: list[Platform],
    outputs: Plan,
    place: Place,
    session: Session,
    recording: Recording,
    stdout: BinaryIO | None,
) -> BuildResult:
    """Do the steps of a build in an open place; every event goes into the record."""
    sink = recording.sink
    check_syntax(options.dockerfile, options.dockerfile_name, options.build_args)
    dockerfile = parse(options.dockerfile, options.dockerfile_name)
    resolve = Resolver(place, place.cancel, sink)
    converted = [convert(dockerfile, convert_options(options, platform), resolve) for platform in platforms]
    asked, options = options, replace(options, source_date_epoch=converted[0].source_date_epoch)
    findings = check_in_build(dockerfile, options, platforms, resolve.configs, sink)
    warnings = tuple(dict.fromkeys(warning for one in converted for warning in one.warnings))
    for warning in warnings:
        sink(WarningEvent("", warning.message, url=warning.rule, source=warning.source))
    with (
        open_caches(place, options, sink) as caches,
        Solver(place, session, sink, _settings(options, outputs, caches), caches, recording) as solver,
    ):
        graphs = [load_definition(one.definition) for one in converted]
        observed = memo.observe(options.context, graphs[0]) if options.context else None

        def carry_out() -> tuple[BuildResult, list[tuple[str, ...]]]:
            refs = solver.solve(graphs)
            built = [
                Built(platform, ref, one.image_config)
                for platform, ref, one in zip(platforms, refs, converted, strict=True)
            ]
            # files that are exported as files are not run from an image
            looked_at = built if outputs.layers_wanted else []
            troubles = [
                check_built(place, one.ref, one.config, one.platform, dockerfile, options, sink) for one in looked_at
            ]
            if caches is not None:
                caches.put_inline(built, solver)
            return Exporting(place, outputs, built, solver.packer.finish, options, stdout, sink).run(), troubles

        result, troubles = without_gone_layers(caches, place, carry_out)
        if caches is not None:
            caches.export(solver)
    result = replace(
        result,
        timings=solver.timings,
        warnings=tuple(dict.fromkeys([*findings, *(one.message for one in warnings), *chain(*troubles)])),
        build=recording.id,
        explanations=recording.explanations,
    )
    memo.remember(place.state, asdict(asked), observed, resolve.pins, result, recording.counted)
    return result


def _settings(options: BuildOptions, outputs: Plan, caches: Caches | None) -> SolveSettings:
    return SolveSettings(
        jobs=options.jobs,
        files_wanted=outputs.files_wanted,
        pack=outputs.layers_wanted,
        trust_host=options.ca == "host",
        shm_size=options.shm_size,
        compression=caches.compression(outputs.compression) if caches else outputs.compression,
        source_date_epoch=options.source_date_epoch,
        allow=entitlements(options),
        exact_modes=options.exact_modes,
        counted_secrets=tuple(options.counted_secrets),
        secret_key=options.secret_key,
        cdi_dirs=tuple(options.cdi_dirs),
    )


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


class _Transfers:
    """Turns the registry client's reports into status events."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def moved(self, digest: str, current: int, total: int) -> None:
        """Tell of a blob that moves."""
        now = time.time()
        self._sink(
            StatusEvent("", digest[:19], current, total, started=now, completed=now if current >= total else None)
        )
