"""The graph of a build as JSON, the way BuildKit writes it into provenance: numbered steps with their ops. Pure.

Numbers are those of a walk from the target, inputs first. Field names are those of the messages; what is zero is left
out; numbers of 64 bits are numbers and no texts; a `oneof` is an object with one key.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from lamina.attest.capture import reachable
from lamina.attest.hide import Hiding
from lamina.llb.definition import Graph

_ONEOFS = {"Op": ("op", "Op"), "FileAction": ("action", "Action"), "UserOpt": ("user", "User")}
"""Message to the name of its oneof, and the key that holds it."""
_ALWAYS = {"FileAction": ("input", "secondaryInput", "output")}
_OF_ONE_BUILD = ("local.session", "local.unique")
"""Attributes of a directory of the user's that say nothing about it."""


def build_config(graph: Graph) -> dict[str, Any]:
    """Return `llbDefinition` and `digestMapping` of a graph."""
    numbers = step_numbers(graph)
    steps = []
    for vertex in reachable(graph):
        step: dict[str, Any] = {"id": numbers[vertex.digest], "op": _op(vertex.op)}
        if vertex.inputs:
            step["inputs"] = [f"{numbers[below]}:{output}" for below, output in vertex.inputs]
        steps.append(step)
    below, output = graph.target
    last = f"step{len(steps)}"
    steps.append({"id": last, "op": {"Op": {}}, "inputs": [f"{numbers[below]}:{output}"]})
    if graph.last:
        numbers[graph.last] = last
    return {"llbDefinition": steps, "digestMapping": numbers}


def step_numbers(graph: Graph) -> dict[str, str]:
    """Return vertex digest to `stepN`."""
    return {vertex.digest: f"step{number}" for number, vertex in enumerate(reachable(graph))}


def source_map(graph: Graph, hiding: Hiding) -> dict[str, Any] | None:
    """Return the files a graph was written in and which lines each step comes from, None where nobody said.

    Texts are blanked here: later they are base64.
    """
    if graph.source is None or not graph.source.infos:
        return None
    numbers = step_numbers(graph)
    infos = []
    for info in graph.source.infos:
        text = hiding.text(info.data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        fields = {"filename": info.filename, "language": info.language, "data": base64.b64encode(text).decode()}
        infos.append({name: value for name, value in fields.items() if value})
    locations = {
        numbers[digest]: _fields(found) for digest, found in graph.source.locations.items() if digest in numbers
    }
    return {"infos": infos, "locations": dict(sorted(locations.items()))}


def layer_map(graph: Graph, layers_of: Callable[[str], Mapping[int, list[dict[str, Any]]]]) -> dict[str, Any]:
    """Return `stepN:output` to the layers that step's result consists of, for those that have blobs.

    Args:
        layers_of: returns output to descriptors for a vertex.
    """
    found = {}
    for digest, number in step_numbers(graph).items():
        for output, layers in layers_of(digest).items():
            found[f"{number}:{output}"] = [layers]
    return found


def _op(op: Message) -> dict[str, Any]:
    found = _fields(op)
    found.pop("inputs", None)
    source = found["Op"].get("source", {})
    if source.get("identifier", "").startswith(("http://", "https://")):
        source["identifier"] = source["identifier"].partition("?")[0]  # a query may be a ticket
    attrs = source.get("attrs", {})
    for name in _OF_ONE_BUILD:
        attrs.pop(name, None)
    return found


def _fields(message: Message) -> dict[str, Any]:
    """Return a message as a JSON object."""
    kind = message.DESCRIPTOR.name
    found: dict[str, Any] = {name: int(getattr(message, name)) for name in _ALWAYS.get(kind, ())}
    oneof, key = _ONEOFS.get(kind, ("", ""))
    if key:
        found[key] = {}
    for field, value in message.ListFields():
        inside = field.containing_oneof is not None and field.containing_oneof.name == oneof
        (found[key] if inside else found)[field.name] = _value(field, value)
    return found


def _value(field: Any, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {str(name): _plain(item) for name, item in sorted(value.items())}
    if isinstance(value, (str, bytes, bool, int, float, Message)):
        return _plain(value)
    return [_plain(item) for item in value]


def _plain(value: Any) -> Any:
    if isinstance(value, Message):
        return _fields(value)
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
