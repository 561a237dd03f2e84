"""What a frontend returned as attestations, and what it was asked, in the engine's words. Pure."""

from __future__ import annotations

from lamina.attest.predicate import Invocation
from lamina.attest.values import RAW, SELF, Subject
from lamina.bridge.values import Attestation, Ref, Result
from lamina.engine.attesting import Given
from lamina.errors import InputError

_ON = b"true"


def given_for(result: Result, key: str) -> tuple[Given, ...]:
    """Return a result's attestations for one platform; those of a result with one reference are all for it.

    Raises:
        InputError: a subject's digest is none.
    """
    keys = [key] if result.refs else list(result.attestations)
    return tuple(_given(one) for name in keys for one in result.attestations.get(name, ()))


def invocation_of(ref: Ref | None) -> Invocation | None:
    """Return what was asked of the frontend that made a reference; None when no frontend did."""
    return Invocation(*ref.asked) if ref is not None and ref.asked is not None else None


def _given(one: Attestation) -> Given:
    return Given(
        kind=one.kind,
        graph=one.ref.graph if one.ref is not None else None,
        path=one.path,
        predicate_type=one.predicate_type,
        reason=one.metadata.get("reason", b"").decode("utf-8", "replace"),
        inline_only=one.metadata.get("inline-only", b"") == _ON,
        core=one.metadata.get("sbom-core", b"").decode("utf-8", "replace"),
        subjects=tuple(_subject(*subject) for subject in one.subjects),
    )


def _subject(kind: int, name: str, digests: tuple[str, ...]) -> Subject:
    if kind not in (SELF, RAW):
        raise InputError(f"an attestation's subject is of an unknown kind: {kind}")
    found = {}
    for digest in digests:
        algorithm, colon, digits = digest.partition(":")
        if not colon or not digits:
            raise InputError(f"an attestation's subject has no digest: {digest[:100]!r}")
        found[algorithm] = digits
    return Subject(kind, name, found)
