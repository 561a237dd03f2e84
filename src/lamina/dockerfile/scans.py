"""Which stages of a Dockerfile an SBOM shall speak of besides the result: what its author says by ARGs. Pure.

Reference: BuildKit, docs/attestations/sbom.md. `ARG BUILDKIT_SBOM_SCAN_STAGE=true` in a stage, or names of stages with
commas between; `BUILDKIT_SBOM_SCAN_CONTEXT` is the same for the build context. What is not built is not scanned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamina.dockerfile.graph import Node

if TYPE_CHECKING:
    from lamina.dockerfile.convert_sources import Conversion
    from lamina.dockerfile.convert_stage import StageState

STAGE, CONTEXT = "BUILDKIT_SBOM_SCAN_STAGE", "BUILDKIT_SBOM_SCAN_CONTEXT"
_ON = ("1", "t", "T", "TRUE", "true", "True")


def scanned(conversion: Conversion, final: StageState) -> dict[str, Node]:
    """Return the nodes to scan by name, as the stages stand when all are converted."""
    found = {}
    for state in conversion.stages.values():
        if state is not final and _is_on(STAGE, state, conversion):
            found[state.label] = state.node_or_empty()
        if state is final and _is_on(CONTEXT, state, conversion) and conversion.used_context is not None:
            found["context"] = conversion.used_context
    return found


def _is_on(name: str, state: StageState, conversion: Conversion) -> bool:
    """Tell whether an ARG, of the stage or of all, names this stage or is true."""
    value = state.declared.get(name) or conversion.global_args.get(name, "")
    return value in _ON or bool(state.stage.name and state.stage.name in value.split(","))
