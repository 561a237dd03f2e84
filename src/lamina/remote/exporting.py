"""Outputs that the client adds once it knows what was built (the session service `moby.exporter.v1.Exporter`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lamina.api.pb import control_pb2, exporter_pb2
from lamina.api.services import EXPORTER
from lamina.errors import InputError
from lamina.remote.session import RemoteSession

MAX_EXPORTERS = 32


def find_exporters(
    session: RemoteSession, metadata: Mapping[str, bytes], refs: Sequence[str]
) -> list[control_pb2.Exporter]:
    """Return what the client wants exported besides, given a result's metadata and references.

    Raises:
        InputError: that is too much; NetworkError: the client failed, or went away.
    """
    answer = session.ask(EXPORTER.FindExporters, exporter_pb2.FindExportersRequest(metadata=metadata, refs=refs))
    found = list(answer.exporters) if answer is not None else []
    if len(found) > MAX_EXPORTERS:
        raise InputError(f"the client adds {len(found)} exporters; at most {MAX_EXPORTERS} are taken")
    return [control_pb2.Exporter(Type=one.Type, Attrs=one.Attrs) for one in found]


def finalize_export(session: RemoteSession, response: Mapping[str, str]) -> None:
    """Tell the client what the exporters said; what it fails at then fails the build."""
    session.ask(EXPORTER.FinalizeExport, exporter_pb2.FinalizeExportRequest(exporter_response=response))
