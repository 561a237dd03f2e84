"""Which attestations a build shall have, as clients ask for them: `attest:provenance=mode=max,version=v0.2`. Pure.

In: type to its options, as one CSV record each. Out: checked values. A disabled type is as one not asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lamina.csvline import split_csv
from lamina.errors import InputError, NotYetError

PROVENANCE, SBOM = "provenance", "sbom"
TYPES = (PROVENANCE, SBOM)
GENERATOR = "docker.io/docker/buildkit-syft-scanner:stable-1"
"""The image that makes SBOMs where the user names none; the one that docker's users have."""

_VERSIONS = ("v1", "v0.2")
_MODES = {"min": "min", "max": "max", "full": "max"}
_ON, _OFF = ("1", "t", "true"), ("0", "f", "false")
_KEYS = (
    *("mode", "version", "builder-id", "inline-only", "reproducible", "filename", "complete-materials"),
    *("capture-usage", "disabled"),
)


@dataclass(frozen=True, slots=True)
class ProvenanceRequest:
    """How provenance shall be.

    Attributes:
        mode: `max` tells everything but secrets; `min` neither build arguments nor the graph.
        version: of SLSA's predicate: `v1` or `v0.2`.
        builder_id: URI of who builds.
        inline_only: for images only.
        reproducible: the user promises that the build gives the same bytes again.
        complete: fail when something was used that has no digest.
    """

    mode: str = "max"
    version: str = "v1"
    builder_id: str = ""
    inline_only: bool = False
    reproducible: bool = False
    filename: str = "provenance.json"
    complete: bool = False


@dataclass(frozen=True, slots=True)
class SbomRequest:
    """Which image makes SBOMs, and what it is told (`NAME` becomes `BUILDKIT_SCAN_NAME` in its environment)."""

    generator: str = GENERATOR
    parameters: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class AttestRequest:
    """What is asked for; None for what is not."""

    provenance: ProvenanceRequest | None = None
    sbom: SbomRequest | None = None


def parse_request(values: Mapping[str, str]) -> AttestRequest:
    """Return what the types' options ask for.

    Raises:
        InputError: an unknown type or option, or a value that makes no sense.
        NotYetError: an option that is known and not carried out.
    """
    for kind in values:
        if kind not in TYPES:
            raise InputError(f"unknown attestation type {kind!r}", hint=f"known types: {', '.join(TYPES)}")
    provenance, sbom = (_pairs(values, kind) for kind in TYPES)
    return AttestRequest(
        _provenance(provenance) if provenance is not None else None, _sbom(sbom) if sbom is not None else None
    )


def requests_of(attrs: Mapping[str, str]) -> dict[str, str]:
    """Return type to options out of a frontend's options: `attest:TYPE` and the build args `BUILDKIT_ATTEST_TYPE`."""
    found = {}
    for prefix in ("build-arg:BUILDKIT_ATTEST_", "attest:"):
        for name, value in attrs.items():
            if name.startswith(prefix):
                found[name.removeprefix(prefix).lower()] = value
    return found


def _pairs(values: Mapping[str, str], kind: str) -> dict[str, str] | None:
    """Return a type's options, None when it is not wanted."""
    if kind not in values:
        return None
    pairs: dict[str, str] = {}
    for field_text in split_csv(values[kind], f"attest:{kind}") if values[kind] else ():
        key, _, value = field_text.partition("=")
        if key in pairs:
            raise InputError(f"attest:{kind}: {key!r} is given twice")
        pairs[key] = value
    pairs.pop("type", None)  # buildx says it once more
    return None if _flag(pairs, "disabled", kind) else pairs


def _provenance(pairs: Mapping[str, str]) -> ProvenanceRequest:
    for key in pairs:
        if key not in _KEYS:
            raise InputError(f"provenance has no option {key!r}", hint=f"known: {', '.join(_KEYS)}")
    mode, version = pairs.get("mode", "max"), pairs.get("version", "v1")
    if mode not in _MODES:
        raise InputError(f"provenance: mode {mode!r} is neither min nor max")
    if version not in _VERSIONS:
        raise InputError(f"provenance: unknown version {version!r}", hint=f"known: {', '.join(_VERSIONS)}")
    if _flag(pairs, "capture-usage", PROVENANCE):
        raise NotYetError("provenance with capture-usage=true")
    filename = pairs.get("filename", "") or "provenance.json"
    if "/" in filename or filename in (".", ".."):
        raise InputError(f"provenance: filename {filename!r} is more than a name")
    return ProvenanceRequest(
        mode=_MODES[mode],
        version=version,
        builder_id=pairs.get("builder-id", ""),
        inline_only=_flag(pairs, "inline-only", PROVENANCE),
        reproducible=_flag(pairs, "reproducible", PROVENANCE),
        filename=filename,
        complete=_flag(pairs, "complete-materials", PROVENANCE),
    )


def _sbom(pairs: Mapping[str, str]) -> SbomRequest:
    parameters = {key: value for key, value in pairs.items() if key not in ("generator", "disabled")}
    for key in parameters:
        if not key.isidentifier():
            raise InputError(f"sbom: {key!r} cannot name a variable")
    return SbomRequest(pairs.get("generator", "") or GENERATOR, parameters)


def _flag(pairs: Mapping[str, str], key: str, kind: str) -> bool:
    value = pairs.get(key, "false").lower()
    if value not in (*_ON, *_OFF):
        raise InputError(f"{kind}: {key}={value[:80]!r} is neither true nor false")
    return value in _ON
