"""From a parsed Dockerfile to an LLB graph and an image config. Pure: what base images are, the caller says.

Only the stages that the target needs are converted, in the order in which they need each other. The result is a
function of (Dockerfile, options, what `resolve_image` answers).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lamina.dockerfile.convert_sources import Conversion
from lamina.dockerfile.convert_stage import StageState, start_stage
from lamina.dockerfile.graph import GraphBuilder
from lamina.dockerfile.instructions import Dockerfile, Stage
from lamina.dockerfile.scans import scanned
from lamina.dockerfile.stages import find_target
from lamina.errors import SourceRange
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.platform import Platform, host_platform


@dataclass(frozen=True, slots=True)
class ResolvedBase:
    """A base image: its reference pinned by digest, the digest of its manifest, its config as JSON object."""

    reference: str
    digest: str
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Input:
    """A graph that stands for a context: a result of another build, or a source elsewhere; and its image config."""

    definition: pb.Definition
    config: Mapping[str, Any] = field(default_factory=dict)


ResolveImage = Callable[[str, Platform], ResolvedBase]


@dataclass(frozen=True, slots=True)
class ConvertOptions:
    """What a conversion depends on beside the Dockerfile; see `engine.options.BuildOptions`.

    Attributes:
        platform: what is built for; `build_platform`: where steps run.
        add_hosts: `name:address` or `name=address`.
        named_contexts: name to source (`docker-image://`, `oci-layout://`, `input:NAME`, `local:NAME`, a directory).
        inputs: graphs that `input:NAME` means.
        context: stands for the build context that is no directory of the user's.
        context_excludes: rules of the ignore files that named contexts have.
        exclude_patterns: rules of the ignore file.
        several_platforms: this is one of several conversions, so that steps are named with their platform.
    """

    build_args: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    platform: Platform = field(default_factory=host_platform)
    build_platform: Platform = field(default_factory=host_platform)
    labels: Mapping[str, str] = field(default_factory=dict)
    named_contexts: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Input] = field(default_factory=dict)
    context: Input | None = None
    context_excludes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    network: str = ""
    add_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    ulimits: tuple[str, ...] = ()
    exclude_patterns: tuple[str, ...] = ()
    source_date_epoch: int | None = None
    hostname: str = ""
    cgroup_parent: str = ""
    several_platforms: bool = False


@dataclass(frozen=True, slots=True)
class Warning:  # noqa: A001 - the field's word
    """A finding that does not stop the build."""

    rule: str
    message: str
    source: SourceRange | None = None


@dataclass(frozen=True, slots=True)
class Converted:
    """What a Dockerfile comes to.

    Attributes:
        definition: the graph, with names and source lines.
        image_config: OCI image config without `rootfs`; our history rows have no `created` yet.
        target: name of the stage that was built.
        source_date_epoch: seconds, by the options or else by a global ARG of that name.
        scanned: other vertices of the graph that an SBOM shall speak of, with their outputs, by name.
    """

    definition: pb.Definition
    image_config: Mapping[str, Any]
    warnings: tuple[Warning, ...] = ()
    target: str = ""
    source_date_epoch: int | None = None
    scanned: Mapping[str, tuple[str, int]] = field(default_factory=dict)


def convert(dockerfile: Dockerfile, options: ConvertOptions, resolve_image: ResolveImage) -> Converted:
    """Convert the target stage and what it needs.

    Raises:
        InputError: unknown or cyclic stages, bad values; with the lines they stand on.
        NotYetError: something of the language that is not carried out yet.
    """
    graph = GraphBuilder(dockerfile.filename, dockerfile.text)
    conversion = Conversion(dockerfile, options, resolve_image, graph, _convert_stage)
    target = find_target(dockerfile, options.target)
    final = conversion.stage(target)
    config = final.finish(options.labels)
    scans = scanned(conversion, final)
    settled, *rest = conversion.settle_context(final.node_or_empty(), *scans.values())
    definition = graph.finish(settled)
    warnings = tuple(Warning(rule, text, where) for rule, text, where in conversion.warnings)
    unused = set(options.build_args) - conversion.used_args
    if unused:
        names = ", ".join(sorted(unused))
        warnings += (Warning("UnusedBuildArgs", f"build arguments that no ARG takes: {names}"),)
    named = {name: (node.digest, node.output) for name, node in zip(scans, rest, strict=True)}
    return Converted(definition, config, warnings, target.name or str(target.number), conversion.epoch, named)


def _convert_stage(stage: Stage, conversion: Conversion) -> StageState:
    state = start_stage(stage, conversion)
    if state.finished:
        return state
    for instruction in [*state.triggers, *stage.instructions]:
        state.dispatch(instruction)
    return state
