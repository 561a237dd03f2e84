"""In-toto statements (in-toto attestation framework, v1): a predicate bound to what it speaks of. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lamina.attest.values import MAX_BYTES, SELF, Attestation, Subject
from lamina.errors import InputError

STATEMENT = "https://in-toto.io/Statement/v1"
MEDIA_TYPE = "application/vnd.in-toto+json"
UNNAMED = "_"
"""Name of a subject that has none; a statement must have one."""


def statement(attestation: Attestation, exported: Sequence[Subject]) -> dict[str, Any]:
    """Return the statement about what is exported.

    Args:
        exported: what `SELF` stands for, with digests.

    Raises:
        InputError: the predicate is no JSON, or too large.
    """
    content = attestation.content()
    if len(content) > MAX_BYTES:
        raise InputError(f"an attestation has {len(content)} bytes; at most {MAX_BYTES} are taken")
    try:
        predicate = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the attestation {attestation.path!r} is not JSON: {error}") from error
    subjects: list[dict[str, Any]] = []
    for subject in attestation.subjects or (Subject(),):
        if subject.kind == SELF:
            for one in exported:
                subjects.append({"name": one.name or UNNAMED, "digest": dict(one.digests)})
                if subject.name and subject.name != UNNAMED:
                    subjects.append({"name": subject.name, "digest": dict(one.digests)})
        else:
            subjects.append({"name": subject.name or UNNAMED, "digest": dict(subject.digests)})
    return {
        "_type": STATEMENT,
        "predicateType": attestation.predicate_type,
        "subject": subjects,
        "predicate": predicate,
    }


def dump(value: dict[str, Any], *, indented: bool = False) -> bytes:
    """Return a statement's bytes; the same statement always gives the same."""
    separators = None if indented else (",", ":")
    return json.dumps(value, ensure_ascii=False, indent=2 if indented else None, separators=separators).encode()
