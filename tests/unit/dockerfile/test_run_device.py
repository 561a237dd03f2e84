"""RUN --device: the flag's value, and what becomes of it in the graph."""

from __future__ import annotations

import pytest

from lamina.dockerfile.convert import ConvertOptions, ResolvedBase, convert
from lamina.dockerfile.devices import parse_device
from lamina.dockerfile.instructions import Device
from lamina.dockerfile.parser import parse
from lamina.errors import InputError
from lamina.llb.definition import load_definition


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("vendor1.com/device=foo", Device("vendor1.com/device=foo")),
        ("vendor1.com/device", Device("vendor1.com/device")),
        ("vendor1.com/device=*", Device("vendor1.com/device=*")),
        ("gpu", Device("gpu")),
        ("vendor1.com/device=foo,required", Device("vendor1.com/device=foo", required=True)),
        ("required,vendor1.com/device=foo", Device("vendor1.com/device=foo", required=True)),
        ("vendor1.com/device=foo,required=true", Device("vendor1.com/device=foo", required=True)),
        ("vendor1.com/device=foo,REQUIRED=0", Device("vendor1.com/device=foo")),
        ("name=vendor1.com/device=foo", Device("vendor1.com/device=foo")),
        ("name=vendor1.com/device=foo,required", Device("vendor1.com/device=foo", required=True)),
        ('"name=a,b",required', Device("a,b", required=True)),
    ],
)
def test_a_device_is_asked_for(text: str, device: Device):
    """A3.11: name and `required`, in any order; `=` may be part of the name."""
    assert parse_device(text) == device


@pytest.mark.parametrize("text", ["", "required", "a,b", "a=b,c=d", "a,name=b", "a,required=maybe", 'a"b"'])
def test_what_names_no_device_is_refused(text: str):
    """A3.11"""
    with pytest.raises(InputError, match="--device"):
        parse_device(text)


def test_the_graph_has_the_devices():
    """A3.11: BuildKit's message: name, and optional unless `required`; variables are not expanded."""
    text = b"FROM a\nARG x=1\nRUN --device=v.com/c=$x --device=gpu,required true\n"
    result = convert(parse(text), ConvertOptions(), lambda *_: ResolvedBase("a", "sha256:" + "0" * 64, {}))
    graph = load_definition(result.definition)
    (run,) = [vertex.op.exec for vertex in graph.vertices if vertex.op.WhichOneof("op") == "exec"]

    assert [(device.name, device.optional) for device in run.cdiDevices] == [("v.com/c=$x", True), ("gpu", False)]
