"""What an attestation is before it is bound to what it speaks of. Pure values.

Life: an engine (or a frontend, by the bridge) makes `Attestation`s for one platform; an exporter knows the digest of
the image or the files, asks for the contents, and makes statements of them (`lamina.attest.statement`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

IN_TOTO, BUNDLE = 0, 1
"""Kinds, with the numbers of BuildKit's gateway API: one predicate; a directory of whole statements."""
SELF, RAW = 0, 1
"""Kinds of subjects: what is exported; something named with its digests."""

SPDX = "https://spdx.dev/Document"
SLSA_V1 = "https://slsa.dev/provenance/v1"
SLSA_V02 = "https://slsa.dev/provenance/v0.2"
SLSA = "https://slsa.dev/provenance/"

PROVENANCE_REASON, SBOM_REASON = "provenance", "sbom"
MAX_BYTES = 40 << 20
"""Most bytes of one statement or predicate that comes out of a build."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a statement speaks of.

    Attributes:
        kind: `SELF` (name only adds a name to what is exported) or `RAW`.
        digests: algorithm to hex digits; empty for `SELF`.
    """

    kind: int = SELF
    name: str = ""
    digests: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Attestation:
    """One predicate about a build's result.

    Attributes:
        predicate_type: URI of the predicate's form.
        path: file name it gets in outputs of files.
        content: returns the predicate's JSON; asked when everything else of the output is known.
        reason: why it is there: `provenance`, `sbom`, or what a frontend says.
        inline_only: it belongs into images only, and is no reason to make an index by itself.
        core: name of the SBOM that speaks of the result itself, "" for others.
        subjects: empty for what is exported.
    """

    predicate_type: str
    path: str
    content: Callable[[], bytes] = field(hash=False, compare=False)
    reason: str = ""
    inline_only: bool = False
    core: str = ""
    subjects: tuple[Subject, ...] = ()
