"""Solves a definition that somebody made by hand or with `lamina.llb`, and exports its result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, BinaryIO

from lamina.cancel import Cancel
from lamina.engine.caches import open_caches, without_gone_layers
from lamina.engine.options import BuildOptions, BuildResult, Environment
from lamina.engine.outputs import Built, Exporting, plan_outputs
from lamina.engine.place import Place
from lamina.engine.recording import Recording
from lamina.engine.solve import Solver, SolveSettings, entitlements
from lamina.llb.definition import load_definition
from lamina.oci.platform import host_platform
from lamina.progress import Sink
from lamina.session import Session


def solve_definition(
    definition: Any,
    config: dict[str, Any],
    options: BuildOptions,
    session: Session,
    environment: Environment,
    sink: Sink,
    cancel: Cancel,
    *,
    stdout: BinaryIO | None = None,
) -> BuildResult:
    """Solve and export.

    Args:
        definition: `pb.Definition`, or its bytes; from outside, so every op is checked.
        config: image config for outputs that are images; the platform is filled in.
    """
    platform = host_platform()
    fields = {"architecture": platform.architecture, "os": platform.os, "config": {}, **config}
    if platform.variant:
        fields.setdefault("variant", platform.variant)
    outputs = plan_outputs(options)
    graph = load_definition(definition)
    settings = SolveSettings(
        jobs=options.jobs,
        files_wanted=outputs.files_wanted,
        pack=outputs.layers_wanted,
        trust_host=options.ca == "host",
        compression=outputs.compression,
        source_date_epoch=options.source_date_epoch,
        allow=entitlements(options),
        exact_modes=options.exact_modes,
        counted_secrets=tuple(options.counted_secrets),
        secret_key=options.secret_key,
        cdi_dirs=tuple(options.cdi_dirs),
    )
    if not options.origin:
        options = replace(options, origin=f"llb:{options.tags[0]}" if options.tags else "llb")
    with (
        Place(environment, cancel, credentials=session.credentials, platform=platform, pull=options.pull) as place,
        Recording(place, options, sink) as recording,
        open_caches(place, options, recording.sink) as caches,
        Solver(place, session, recording.sink, settings, caches, recording) as solver,
    ):

        def carry_out() -> BuildResult:
            (ref,) = solver.solve([graph])
            built = [Built(platform, ref, fields)]
            if caches is not None:
                caches.put_inline(built, solver)
            return Exporting(place, outputs, built, solver.packer.finish, options, stdout, recording.sink).run()

        result = without_gone_layers(caches, place, carry_out)
        if caches is not None:
            caches.export(solver)
        timings, explanations = solver.timings, recording.explanations
        result = replace(result, timings=timings, build=recording.id, explanations=explanations)
        recording.succeeded(result)
        return result
