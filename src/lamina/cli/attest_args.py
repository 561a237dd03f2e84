"""`--attest`, `--provenance` and `--sbom`, as docker and buildx users write them.

    --provenance=mode=max,version=v0.2       --attest type=provenance,mode=max
    --sbom=generator=registry.example/scan   --attest type=sbom,disabled=true

`--provenance=true` is `mode=min`, as in buildx. Nothing is said unless it is asked for (ADR 6).
"""

from __future__ import annotations

from collections.abc import Sequence

from lamina.attest.request import PROVENANCE, SBOM, parse_request
from lamina.csvline import join_csv, split_csv
from lamina.errors import InputError

_ON, _OFF = ("true", "1", "t"), ("false", "0", "f")


def parse_attests(attest: Sequence[str], provenance: str, sbom: str) -> dict[str, str]:
    """Return types with their options, checked; the short options win over `--attest`.

    Raises:
        InputError: an unknown type or option, or a type given twice; NotYetError: what is not carried out.
    """
    found: dict[str, str] = {}
    for text in attest:
        kind, rest = _split(text)
        if kind in found:
            raise InputError(f"--attest: type={kind} is given twice")
        found[kind] = rest
    for kind, text in ((PROVENANCE, provenance), (SBOM, sbom)):
        if text:
            found[kind] = _short(text)
    if PROVENANCE in found and not any(field.startswith("mode=") for field in split_csv(found[PROVENANCE], "--attest")):
        found[PROVENANCE] = ",".join(filter(None, ["mode=min", found[PROVENANCE]]))
    asked = parse_request(found)
    wanted = {PROVENANCE: asked.provenance, SBOM: asked.sbom}
    return {kind: rest for kind, rest in found.items() if wanted[kind] is not None}


def _split(text: str) -> tuple[str, str]:
    """Return the type and the other fields of one `--attest`."""
    kinds, rest = [], []
    for field in split_csv(text, "--attest"):
        key, _, value = field.partition("=")
        if key.strip().lower() == "type":
            kinds.append(value)
        else:
            rest.append(field)
    if len(kinds) != 1:
        raise InputError(f"--attest {text!r} has no type" if not kinds else f"--attest {text!r} has two types")
    return kinds[0], join_csv(rest)


def _short(text: str) -> str:
    """Return the options of `--provenance=TEXT` and `--sbom=TEXT`."""
    if text.lower() in _ON:
        return ""
    return "disabled=true" if text.lower() in _OFF else text
