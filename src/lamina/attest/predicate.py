"""SLSA provenance predicates, v1 and v0.2, with BuildKit's extensions. Pure.

Specifications: slsa.dev/spec/v1.0/provenance, slsa.dev/provenance/v0.2, and BuildKit's
docs/attestations/slsa-definitions.md, whose build type this is: what reads BuildKit's provenance reads this.

Where we say less than BuildKit: `compatibilityVersion` and `dockerfileVersion`, which are versions of its own parts;
who built is in `builder.version`. What is secret is left out (`lamina.attest.hide`); then `completeness` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lamina.attest.capture import Capture, Material
from lamina.attest.hide import Hiding
from lamina.attest.request import ProvenanceRequest
from lamina.attest.steps import build_config, layer_map, source_map
from lamina.llb.definition import Graph
from lamina.oci.platform import Platform

BUILD_TYPE_V1 = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
BUILD_TYPE_V02 = "https://mobyproject.org/buildkit@v1"
_ARGUMENTS = ("build-arg:", "label:")
_MACHINE = ("cgroup-parent", "image-resolve-mode", "platform", "cache-imports")
"""Options that say something of the machine, not of the build."""

Layers = Callable[[str], Mapping[int, list[dict[str, Any]]]]


@dataclass(frozen=True, slots=True)
class Invocation:
    """What was asked of a frontend: its name ("" for a graph without one) and options, as BuildKit names them."""

    frontend: str = ""
    args: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of one platform's build.

    Attributes:
        invocation: what the graph came from; `root`: what the client asked, if something else.
        graph: of the result, None for an empty one.
        builder: platform of this machine; `versions`: of what built, by name.
        id: of the build; `started`, `finished`: RFC 3339.
        hiding: blanks what must not be told.
        arguments_hidden: an argument's value is secret.
        layers: returns for a vertex the layers of each output that have blobs.
    """

    invocation: Invocation
    capture: Capture
    graph: Graph | None
    builder: Platform
    id: str
    started: str
    finished: str
    hiding: Hiding
    root: Invocation | None = None
    arguments_hidden: bool = False
    versions: Mapping[str, str] = field(default_factory=dict, hash=False)
    layers: Layers = lambda _digest: {}


def predicate(facts: Facts, asked: ProvenanceRequest) -> dict[str, Any]:
    """Return the predicate in the version asked for."""
    found = _v1(facts, asked)
    blanked: dict[str, Any] = facts.hiding.json(found if asked.version == "v1" else as_v02(found))
    return blanked


def _v1(facts: Facts, asked: ProvenanceRequest) -> dict[str, Any]:
    source, request, vcs = _request(facts.invocation, facts.capture)
    if facts.root is not None:
        root_source, root_request, _ = _request(facts.root, facts.capture)
        if (root_source, root_request) != (source, request):
            request["root"] = {"configSource": root_source, "request": root_request}
    seen = facts.capture
    _add_ids(request, seen)
    complete = bool(facts.invocation.frontend) and not facts.arguments_hidden
    if asked.mode == "min":
        complete &= not _scrub(request)
    materials_known = not seen.incomplete and not seen.locals
    internal: dict[str, Any] = {"builderPlatform": str(facts.builder)}
    extension: dict[str, Any] = {"vcs": vcs} if vcs else {}
    if asked.mode == "max" and facts.graph is not None:
        internal["buildConfig"] = build_config(facts.graph)
        extension |= _maps(facts.graph, facts)
    metadata = {
        "invocationId": facts.id,
        "startedOn": facts.started,
        "finishedOn": facts.finished,
        "buildkit_metadata": extension,
        "buildkit_hermetic": materials_known and not seen.network,
        "buildkit_completeness": {"request": complete, "resolvedDependencies": materials_known},
        "buildkit_reproducible": asked.reproducible,
    }
    definition: dict[str, Any] = {"buildType": BUILD_TYPE_V1}
    resolved = seen.resolved()
    if resolved:
        definition["resolvedDependencies"] = resolved
    definition["externalParameters"] = {"configSource": source, "request": request}
    definition["internalParameters"] = internal
    builder: dict[str, Any] = {"id": asked.builder_id}
    if facts.versions:
        builder["version"] = dict(facts.versions)
    kept = {key: value for key, value in metadata.items() if value is not False}
    return {"buildDefinition": definition, "runDetails": {"builder": builder, "metadata": kept}}


def as_v02(v1: Mapping[str, Any]) -> dict[str, Any]:
    """Return a v1 predicate as v0.2 has it."""
    definition, details = v1["buildDefinition"], v1["runDetails"]
    metadata, external = details["metadata"], definition["externalParameters"]
    internal = dict(definition["internalParameters"])
    source = {{"path": "entryPoint"}.get(key, key): value for key, value in external["configSource"].items()}
    config = internal.pop("buildConfig", None)
    environment = {"platform": internal.pop("builderPlatform"), **internal}
    found: dict[str, Any] = {"builder": {"id": details["builder"]["id"]}, "buildType": BUILD_TYPE_V02}
    if definition.get("resolvedDependencies"):
        found["materials"] = definition["resolvedDependencies"]
    found["invocation"] = {"configSource": source, "parameters": external["request"], "environment": environment}
    if config is not None:
        found["buildConfig"] = config
    complete = metadata["buildkit_completeness"]
    found["metadata"] = {
        "buildInvocationID": metadata["invocationId"],
        "buildStartedOn": metadata["startedOn"],
        "buildFinishedOn": metadata["finishedOn"],
        "completeness": {
            "parameters": complete["request"],
            "environment": True,
            "materials": complete["resolvedDependencies"],
        },
        "reproducible": metadata.get("buildkit_reproducible", False),
        "https://mobyproject.org/buildkit@v1#metadata": metadata["buildkit_metadata"],
    }
    if metadata.get("buildkit_hermetic"):
        found["metadata"]["https://mobyproject.org/buildkit@v1#hermetic"] = True
    return found


def _request(asked: Invocation, seen: Capture) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Return where the build's instructions lay, the other options, and what a client said of version control."""
    args = {key: value for key, value in asked.args.items() if key not in _MACHINE and not key.startswith("attest:")}
    key = args.get("contextkey") or ("input:context" if args.get("input:context") else "context")
    source: dict[str, Any] = {}
    context = args.pop(key, "")
    if context:
        source = _material_of(context, seen) or {"uri": context}
    path = args.pop("filename", "")
    if path:
        source["path"] = path
    vcs = {name.removeprefix("vcs:"): value for name, value in args.items() if name.startswith("vcs:") and value}
    args = {name: value for name, value in sorted(args.items()) if not name.startswith("vcs:")}
    request: dict[str, Any] = {"frontend": asked.frontend} if asked.frontend else {}
    if args:
        request["args"] = args
    return source, request, vcs


def _material_of(context: str, seen: Capture) -> dict[str, Any] | None:
    """Return the descriptor of the source that a context was taken from; a fragment stays in the URI."""
    address = context.partition("#")[0]
    plain = _bare(address)
    for one in seen.materials:
        if one.kind in ("git", "http") and plain in (_bare(one.where), _bare(one.where.partition("#")[0])):
            uri = context if one.kind == "git" else one.where
            return {**one.descriptor(), "uri": uri}
    return None


def _bare(address: str) -> str:
    """Return a URL as it is compared: without user, query, and what git leaves out."""
    rest = address.partition("://")[2] or address
    return rest.partition("?")[0].rpartition("@")[2].removesuffix(".git").rstrip("/")


def _add_ids(request: dict[str, Any], seen: Capture) -> None:
    """Add what steps asked of the client: ids only."""
    for key, ids in (("secrets", seen.secrets), ("ssh", seen.ssh)):
        if ids:
            request[key] = [
                {"id": name, "optional": True} if optional else {"id": name} for name, optional in sorted(ids.items())
            ]
    if seen.locals:
        request["locals"] = [{"name": name} for name in seen.locals]


def _scrub(request: dict[str, Any]) -> bool:
    """Take out what only `max` tells; return whether an argument was among it."""
    args = request.get("args", {})
    kept = {name: value for name, value in args.items() if not name.startswith(_ARGUMENTS)}
    scrubbed = len(kept) != len(args)
    request.pop("args", None)
    if kept:
        request["args"] = kept
    request.pop("secrets", None)
    request.pop("ssh", None)
    if "root" in request:
        scrubbed |= _scrub(request["root"]["request"])
    return scrubbed


def _maps(graph: Graph, facts: Facts) -> dict[str, Any]:
    """Return `source` and `layers` of the graph, where there are any."""
    found = {"source": source_map(graph, facts.hiding), "layers": layer_map(graph, facts.layers)}
    return {key: value for key, value in found.items() if value}


def missing_digests(seen: Capture) -> Sequence[Material]:
    """Return the sources that have none."""
    return [one for one in seen.materials if one.kind == "local"]
