"""Outputs as clients ask for them: `Exporter` messages become output specs. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lamina.api.pb import control_pb2
from lamina.csvline import join_csv
from lamina.engine.outputs import Plan
from lamina.errors import InputError
from lamina.exporter.outputs import STDOUT, OutputSpec, parse_output

_SAME = {"moby": "image", "registry": "registry"}
_CLIENTS = ("local", "tar", "oci", "docker")
_DROPPED = ("source-date-epoch", "buildinfo", "buildinfo-attrs", "name-canonical", "prefer-image-digest")


def plan_of(exporters: Sequence[control_pb2.Exporter]) -> Plan:
    """Return the outputs of a build; without exporters there are none, and the build only runs.

    Raises:
        InputError: one that is not known, or with attributes it does not have.
    """
    return Plan(tuple(map(_spec, exporters)), ())


def exporters_of(request: control_pb2.SolveRequest) -> list[control_pb2.Exporter]:
    """Return the exporters of a request; old clients give one, in fields of its own."""
    if request.Exporters or not request.ExporterDeprecated:
        return list(request.Exporters)
    return [control_pb2.Exporter(Type=request.ExporterDeprecated, Attrs=request.ExporterAttrsDeprecated)]


def goes_to_client(spec: OutputSpec) -> bool:
    """Tell whether an output is written where the client is."""
    return spec.type in _CLIENTS


def _spec(exporter: control_pb2.Exporter) -> OutputSpec:
    kind = _SAME.get(exporter.Type, exporter.Type)
    attrs = {name: value for name, value in exporter.Attrs.items() if name not in _DROPPED and name != "dest"}
    if kind in _CLIENTS:
        # where it goes there is the client's business: here it is a stream, or files one by one
        in_pieces = kind == "local" or attrs.get("tar", "").lower() in ("false", "0", "f")
        attrs["dest"] = "client" if in_pieces else STDOUT
    fields = [f"type={kind}", *(f"{name}={value}" for name, value in sorted(attrs.items()) if value or name != "name")]
    try:
        return parse_output(join_csv(fields))
    except InputError as error:
        error.what = error.what.replace("--output", f"exporter {exporter.Type!r}")
        raise


def response_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return what a build's results are told as: text, and values that are not in base64 JSON, as BuildKit has it."""
    found = {}
    for name, value in metadata.items():
        found[name] = value if isinstance(value, str) else base64.b64encode(json.dumps(value).encode()).decode()
    return found
