"""Statements that came out of a build as files become attestations: a generator's SBOMs, a frontend's bundle. Pure.

Files are hostile: capped, checked to be statements, and none may be provenance, which only the builder says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from lamina.attest.values import MAX_BYTES, RAW, SLSA, SPDX, Attestation, Subject
from lamina.errors import InputError


@dataclass(frozen=True, slots=True)
class Bundle:
    """A directory of whole statements.

    Attributes:
        predicate_type: that all of them must have, "" for any.
        reason, inline_only, core: of the attestations that come out, see `Attestation`.
    """

    predicate_type: str = ""
    reason: str = ""
    inline_only: bool = False
    core: str = ""


def unbundle(bundle: Bundle, files: Iterable[tuple[str, bytes]]) -> list[Attestation]:
    """Return the attestations in a directory; that of the result itself first.

    Args:
        files: (name, content).

    Raises:
        InputError: a file is no statement, or not of the type it should have, or provenance.
    """
    found = [_attestation(bundle, name, data) for name, data in sorted(files)]
    if bundle.predicate_type == SPDX and not found:
        raise InputError("the SBOM generator wrote no SBOM", hint="it must write NAME.spdx.json into /run/out")
    return sorted(found, key=lambda one: one.path.partition(".")[0] != bundle.core)


def refuse_provenance(predicate_type: str) -> None:
    """Raise `InputError` for provenance that the builder did not make."""
    if predicate_type.startswith(SLSA):
        raise InputError("a frontend's result brings provenance, which only the builder can tell")


def _attestation(bundle: Bundle, name: str, data: bytes) -> Attestation:
    if len(data) > MAX_BYTES:
        raise InputError(f"the attestation {name!r} has more than {MAX_BYTES >> 20} MiB")
    try:
        statement = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the attestation {name!r} is not JSON: {error}") from error
    if not isinstance(statement, dict) or not isinstance(statement.get("predicateType"), str):
        raise InputError(f"the attestation {name!r} is no in-toto statement")
    predicate_type = statement["predicateType"]
    refuse_provenance(predicate_type)
    if bundle.predicate_type and predicate_type != bundle.predicate_type:
        raise InputError(f"the attestation {name!r} is a {predicate_type[:200]!r}, not a {bundle.predicate_type!r}")
    predicate = json.dumps(statement.get("predicate"), ensure_ascii=False).encode()
    return Attestation(
        predicate_type,
        name,
        partial(bytes, predicate),
        bundle.reason,
        bundle.inline_only,
        bundle.core,
        _subjects(name, statement.get("subject") or []),
    )


def _subjects(name: str, listed: Any) -> tuple[Subject, ...]:
    try:
        return tuple(Subject(RAW, str(one.get("name", "")), _digests(one["digest"])) for one in listed)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise InputError(f"the attestation {name!r} has subjects that are none") from error


def _digests(found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(text, str) for item in found.items() for text in item):
        raise ValueError(found)
    return found
