"""faults 6: whatever bytes come as a definition, loading ends in a graph or in an `InputError`, and nothing else."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lamina import llb
from lamina.errors import InputError, NotYetError
from lamina.llb.definition import load_definition
from support.hostile_messages import altered, definitions, mutated

ROOT = llb.local("ctx")
REAL = [
    state.marshal()
    for state in (
        ROOT.run(["true"]).mkdir("/d").mkfile("/d/f", b"x").symlink("f", "/d/l").rm("/d/f"),
        ROOT.run(["true"], mounts=[llb.cache("/c"), llb.tmpfs("/t", size=4096), llb.secret("/s", id="s")]),
        llb.merge([ROOT, llb.scratch().copy(ROOT, "/bin", "/b")]).diff(ROOT.mkfile("/f", b"")),
    )
]


def load(data: Any) -> None:
    try:
        load_definition(data)
    except (InputError, NotYetError) as error:
        assert str(error)


@settings(max_examples=150, deadline=None)
@given(definitions())
def test_ops_of_any_kind(definition: Any):
    load(definition.SerializeToString())


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(REAL).flatmap(altered))
def test_real_definitions_with_an_op_changed(definition: Any):
    load(definition)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(REAL).flatmap(lambda real: mutated(real.SerializeToString())))
def test_real_definitions_with_bytes_changed(data: bytes):
    load(data)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes):
    load(data)
