"""Capabilities of the bridge and of LLB that are served, by BuildKit's names. What is not here, clients do not use."""

from __future__ import annotations

from collections.abc import Iterable

from lamina.api.pb import caps_pb2
from lamina.llb.caps import LLB_CAPS

GATEWAY_CAPS = (
    "solve.base",
    "solve.inlinereturn",
    "resolveimage",
    "resolveimage.resolvemode",
    "readfile",
    "return",
    "returnmap",
    "readdir",
    "statfile",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "frontend.caps",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "gateway.warnings",
    "gateway.exec",
    "gateway.exec.extrahosts",
    "gateway.exec.secretenv",
    "gateway.exec.signals",
    "reference.attestations",
    "source.metaresolver",
    "source.metaresolver.image.attestations",
    "source.metaresolver.http.checksumrequest",
)


def messages(names: Iterable[str]) -> list[caps_pb2.APICap]:
    """Return capabilities as clients are told."""
    return [caps_pb2.APICap(ID=name, Enabled=True) for name in names]


def served() -> tuple[list[caps_pb2.APICap], list[caps_pb2.APICap]]:
    """Return those of the bridge, and those of LLB."""
    return messages(GATEWAY_CAPS), messages(sorted(LLB_CAPS))
