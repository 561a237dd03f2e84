"""The step that makes SBOMs: a generator's image run over the result, as a graph. Pure.

Protocol: BuildKit, docs/attestations/sbom-protocol.md. The generator sees the result below `/run/src/core/sbom`, other
file systems below `/run/src/extras`, all read-only, and writes one `NAME.spdx.json` for each into `/run/out`; its
step's second result is that directory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lamina.errors import InputError
from lamina.llb.definition import Graph, Vertex
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.platform import Platform

CORE = "sbom"
"""Name of the SBOM of the result itself; others are called `sbom-NAME`."""
_SOURCES, _OUT = "/run/src", "/run/out"


@dataclass(frozen=True, slots=True)
class Generator:
    """What makes SBOMs.

    Attributes:
        reference: of its image, pinned.
        config: of its image.
        platform: of its image.
        parameters: `NAME` becomes `BUILDKIT_SCAN_NAME`.
    """

    reference: str
    config: Mapping[str, Any] = field(hash=False)
    platform: Platform
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)


def scan_graph(
    generator: Generator, result: Graph, extras: Mapping[str, Graph], shown: str, *, ignore_cache: bool = False
) -> Graph:
    """Return the graph whose target is the directory with the SBOMs.

    Args:
        extras: other file systems by name.
        shown: the platform, for the step's name.

    Raises:
        InputError: the generator's image names nothing to run.
    """
    source = pb.Op(source=pb.SourceOp(identifier=f"docker-image://{generator.reference}"))
    source.platform.CopyFrom(_platform(generator.platform))
    image = _vertex(source, (), f"docker-image://{generator.reference}", ignore_cache=False)
    scanned = [result, *(extras[name] for name in sorted(extras))]
    inputs = list(dict.fromkeys([(image.digest, 0), *(graph.target for graph in scanned)]))
    step = _step(generator, [CORE, *sorted(extras)], [inputs.index(graph.target) for graph in scanned])
    for digest, output in inputs:
        step.inputs.add(digest=digest, index=output)
    title = f"[{shown}] generating sbom using {generator.reference.partition('@')[0]}"
    scan = _vertex(step, inputs, title, ignore_cache=ignore_cache)
    vertices: dict[str, Vertex] = {}
    for graph in scanned:
        vertices |= {vertex.digest: vertex for vertex in graph.vertices}
    vertices |= {image.digest: image, scan.digest: scan}
    return Graph(tuple(vertices.values()), (scan.digest, 1))


def _step(generator: Generator, names: Sequence[str], numbers: Sequence[int]) -> pb.Op:
    config = generator.config.get("config") or {}
    args = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    if not args:
        what = f"the SBOM generator {generator.reference.partition('@')[0]} names nothing to run"
        raise InputError(what, hint="its image needs an ENTRYPOINT or a CMD")
    environment = dict(text.partition("=")[::2] for text in config.get("Env") or ())
    environment["BUILDKIT_SCAN_DESTINATION"] = f"{_OUT}/"
    environment["BUILDKIT_SCAN_SOURCE"] = f"{_SOURCES}/core/{CORE}"
    if len(names) > 1:
        environment["BUILDKIT_SCAN_SOURCE_EXTRAS"] = f"{_SOURCES}/extras/"
    environment |= {f"BUILDKIT_SCAN_{name}": value for name, value in generator.parameters.items()}
    meta = pb.Meta(args=args, cwd=config.get("WorkingDir") or "/", user=config.get("User") or "")
    meta.env.extend(f"{name}={value}" for name, value in environment.items())
    mounts = [
        pb.Mount(input=0, dest="/", output=0),
        pb.Mount(input=-1, dest="/tmp", output=-1, mountType=pb.TMPFS, TmpfsOpt=pb.TmpfsOpt()),
    ]
    for name, number in zip(names, numbers, strict=True):
        where = f"core/{CORE}" if name == CORE else f"extras/{CORE}-{name}"
        mounts.append(pb.Mount(input=number, dest=f"{_SOURCES}/{where}", output=-1, readonly=True))
    mounts.append(pb.Mount(input=-1, dest=_OUT, output=1))
    op = pb.Op(exec=pb.ExecOp(meta=meta, mounts=mounts))
    op.platform.CopyFrom(_platform(generator.platform))
    return op


def _vertex(op: pb.Op, inputs: Sequence[tuple[str, int]], name: str, *, ignore_cache: bool) -> Vertex:
    data = op.SerializeToString(deterministic=True)
    metadata = pb.OpMetadata(ignore_cache=ignore_cache)
    metadata.description["llb.customname"] = name
    return Vertex("sha256:" + hashlib.sha256(data).hexdigest(), op, tuple(inputs), metadata)


def _platform(platform: Platform) -> pb.Platform:
    return pb.Platform(OS=platform.os, Architecture=platform.architecture, Variant=platform.variant)
