"""Solves a definition that somebody made by hand or with `lamina.llb`, and exports its result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, BinaryIO

from lamina.attest.capture import Material
from lamina.cancel import Cancel
from lamina.engine.job import Job, Wanted
from lamina.engine.options import BuildOptions, BuildResult, Environment
from lamina.engine.outputs import plan_outputs
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
    materials: list[Material] | None = None,
) -> BuildResult:
    """Solve and export.

    Args:
        definition: `pb.Definition`, or its bytes; from outside, so every op is checked.
        config: image config for outputs that are images; the platform is filled in.
        materials: gets the sources that were used.
    """
    platform = host_platform()
    fields = {"architecture": platform.architecture, "os": platform.os, "config": {}, **config}
    if platform.variant:
        fields.setdefault("variant", platform.variant)
    graph = load_definition(definition)
    if not options.origin:
        options = replace(options, origin=f"llb:{options.tags[0]}" if options.tags else "llb")
    plan = plan_outputs(options)
    with Job(options, plan, session, environment, sink, cancel, platform=platform, stdout=stdout) as job:
        result = job.deliver([Wanted(platform, graph, fields)])
        job.recording.succeeded(result)
        if materials is not None:
            materials += job.solver.materials().values()
        return result
