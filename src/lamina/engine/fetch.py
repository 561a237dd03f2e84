"""Brings the files of a graph into a directory: how remote build contexts come."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.attest.capture import Material
from lamina.cancel import Cancel
from lamina.engine.gate import open_gate
from lamina.engine.graph import solve_definition
from lamina.engine.options import BuildOptions, Environment
from lamina.llb.definition import load_definition
from lamina.llb.state import State
from lamina.progress import Event, Sink, VertexEvent
from lamina.session import Session


def fetch_files(
    state: State,
    directory: str,
    session: Session,
    environment: Environment,
    sink: Sink,
    cancel: Cancel,
    policies: Sequence[tuple[str, str]] = (),
) -> list[tuple[str, str, str]]:
    """Solve `state` and write its files into `directory`; return (kind, where, digest) of what they came from.

    Args:
        policies: name and text of files that say which sources may be used.

    Raises:
        Error: the first failure.
    """
    quoted = directory.replace('"', '""')
    options = BuildOptions(outputs=[f'type=local,"dest={quoted}"'], source_policies=list(policies))
    definition = state.marshal()
    gate = open_gate(options)
    vertices = {vertex.digest for vertex in gate.admit(load_definition(definition)).vertices}

    def sources_only(event: Event) -> None:
        # that the files are then written somewhere is nobody's business
        if (event.digest if isinstance(event, VertexEvent) else event.vertex) in vertices:
            sink(event)

    materials: list[Material] = []
    solve_definition(definition, {}, options, session, environment, sources_only, cancel, materials=materials)
    return [(one.kind, one.where, one.digest) for one in materials]
