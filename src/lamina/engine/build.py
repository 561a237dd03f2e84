"""One build from a Dockerfile: parse, convert, solve, assemble, export.

The steps, in order; each is a room below and nothing here knows how it does its part:

    Dockerfile -> AST -> LLB + config (-> checks) -> solver -> chain of layers -> manifest + config -> outputs
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from typing import Any, BinaryIO

from lamina.cancel import Cancel
from lamina.checks.pragmas import BUILD_ARG as CHECK_ARG
from lamina.dockerfile.convert import ConvertOptions, ResolvedBase, convert
from lamina.dockerfile.parser import parse
from lamina.engine import memo
from lamina.engine.check import check_in_build
from lamina.engine.options import BuildOptions, BuildResult, Environment
from lamina.engine.outputs import Exporting, plan_outputs
from lamina.engine.place import Place
from lamina.engine.result_checks import check_built
from lamina.engine.solve import Solver, SolveSettings
from lamina.errors import InputError, NotYetError
from lamina.llb.definition import load_definition
from lamina.oci.platform import Platform, host_platform
from lamina.oci.reference import Reference
from lamina.patterns import parse_ignore
from lamina.progress import Sink, StatusEvent, VertexEvent, WarningEvent
from lamina.session import Session
from lamina.source.image import pin_key


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
    platform = _platform(options)
    outputs = plan_outputs(options)
    dockerfile = parse(options.dockerfile, options.dockerfile_name)
    progress = _Transfers(sink)
    with Place(
        environment,
        cancel,
        credentials=session.credentials,
        on_bytes=progress.moved,
        platform=platform,
        pull=options.pull,
    ) as place:
        pins: dict[str, tuple[str, str]] = {}
        resolve = _Resolver(place, cancel, sink, pins)
        converted = convert(dockerfile, convert_options(options, platform), resolve)
        findings = check_in_build(dockerfile, options, platform, resolve.configs, sink)
        for warning in converted.warnings:
            sink(WarningEvent("", warning.message, url=warning.rule, source=warning.source))
        settings = SolveSettings(
            jobs=options.jobs,
            files_wanted=outputs.files_wanted,
            pack=outputs.layers_wanted,
            trust_host=options.ca == "host",
            shm_size=options.shm_size,
            compression=outputs.compression,
            source_date_epoch=options.source_date_epoch,
        )
        with Solver(place, session, sink, settings) as solver:
            graph = load_definition(converted.definition)
            observed = memo.observe(options.context, graph) if options.context else None
            result = solver.solve(graph)
            troubles = check_built(place, result, converted.image_config, platform, dockerfile, options, sink)
            exporting = Exporting(
                place,
                outputs,
                platform,
                result,
                lambda: solver.packer.finish(result),
                converted.image_config,
                options,
                stdout,
                sink,
            )
            built = exporting.run()
        built = replace(
            built,
            timings=solver.timings,
            warnings=(*findings, *(warning.message for warning in converted.warnings), *troubles),
        )
        memo.remember(place.state, asdict(options), observed, pins, built)
        return built


def _refuse_unsupported(options: BuildOptions) -> None:
    if len(options.platforms) > 1:
        raise NotYetError("several platforms in one build", hint="build one --platform at a time")
    if options.cache_from or options.cache_to:
        raise NotYetError("--cache-from and --cache-to")
    if options.ca not in ("", "host"):
        raise InputError(f"--ca takes 'host', not {options.ca!r}")


def _platform(options: BuildOptions) -> Platform:
    return Platform.parse(options.platforms[0]) if options.platforms else host_platform()


def convert_options(options: BuildOptions, platform: Platform) -> ConvertOptions:
    """Return what conversion depends on, out of what a build depends on."""
    return ConvertOptions(
        build_args={name: value for name, value in options.build_args.items() if name != CHECK_ARG},
        target=options.target,
        platform=platform,
        build_platform=host_platform(),
        labels=dict(options.labels),
        named_contexts=dict(options.build_contexts),
        no_cache=options.no_cache,
        no_cache_filter=tuple(options.no_cache_filter),
        network=options.network,
        add_hosts=tuple(options.add_hosts),
        shm_size=options.shm_size,
        ulimits=tuple(options.ulimits),
        exclude_patterns=tuple(parse_ignore(options.ignore)) if options.ignore is not None else (),
        source_date_epoch=options.source_date_epoch,
        hostname=options.hostname,
    )


class _Resolver:
    """What the frontend asks for base images; notes what each name was pinned to."""

    def __init__(self, place: Place, cancel: Cancel, sink: Sink, pins: dict[str, tuple[str, str]]) -> None:
        self._place, self._cancel, self._sink, self._pins = place, cancel, sink, pins
        self.configs: dict[tuple[str, str], dict[str, Any]] = {}

    def __call__(self, name: str, platform: Platform) -> ResolvedBase:
        digest = "resolve:" + name
        started = time.time()
        shown = f"[internal] load metadata for {Reference.parse(name)}"
        self._sink(VertexEvent(digest, shown, started=started))
        try:
            image = self._place.images.resolve(Reference.parse(name), platform, self._cancel)
        except BaseException as error:
            self._sink(VertexEvent(digest, shown, started=started, completed=time.time(), error=str(error)))
            raise
        self._sink(VertexEvent(digest, shown, started=started, completed=time.time()))
        reference = Reference.parse(name)
        if reference.digest is None:
            self._pins[str(reference)] = (str(image.reference.digest), pin_key(reference, platform))
        config = self.configs[str(reference), str(platform)] = dict(image.config.fields)
        return ResolvedBase(str(image.reference), str(image.digest), config)


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
