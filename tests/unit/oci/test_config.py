"""Image configs and chainIDs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import InputError
from lamina.oci.chain import chain_id, chain_ids
from lamina.oci.config import dump_config, parse_config
from lamina.oci.digest import Digest, sha256_digest
from lamina.oci.platform import Platform

A, B, C = (Digest(f"sha256:{letter * 64}") for letter in "abc")


def config(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "config": {"Env": ["PATH=/bin", "A=ü"], "Labels": {"k": "v"}, "Cmd": None},
        "rootfs": {"type": "layers", "diff_ids": [A]},
        "history": [{"created_by": "ADD x"}],
    }
    return {**fields, **changes}


def test_a_config_is_read_with_unknown_fields_kept() -> None:
    fields = config(future={"x": [1]}, **{"os.features": ["a"]})

    found = parse_config(json.dumps(fields).encode())

    assert found.platform == Platform("linux", "amd64")
    assert found.diff_ids == (A,)
    assert found.env == ("PATH=/bin", "A=ü")
    assert found.fields["future"] == {"x": [1]}
    assert found.digest == sha256_digest(found.raw)
    assert json.loads(dump_config(found.fields)) == fields


def test_dumping_does_not_depend_on_the_order_of_keys() -> None:
    fields = config()

    assert dump_config(fields) == dump_config(dict(reversed(fields.items())))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rootfs": None}, "rootfs"),
        ({"rootfs": {"type": "zfs", "diff_ids": []}}, "rootfs"),
        ({"rootfs": {"type": "layers", "diff_ids": [1]}}, "diff_ids"),
        ({"rootfs": {"type": "layers", "diff_ids": ["sha256:ABC"]}}, "digest"),
        ({"config": {"Env": "A=1"}}, "Env"),
        ({"config": {"Env": [1]}}, "Env"),
        ({"config": {"Labels": {"a": 1}}}, "Labels"),
        ({"config": {"Volumes": ["/x"]}}, "Volumes"),
        ({"config": {"User": 0}}, "User"),
        ({"config": []}, "config"),
        ({"os": 1}, "platform"),
        ({"history": [1]}, "history"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_config(json.dumps(config(**changes)).encode(), "app")


def test_layers_and_diff_ids_must_agree_in_number() -> None:
    """Counts are named: other tools crash here or accept it."""
    found = parse_config(json.dumps(config()).encode())

    found.check_layers(1)
    with pytest.raises(InputError, match="1 diffIDs, the manifest 3 layers"):
        found.check_layers(3)


def test_chain_ids_are_those_of_the_specification() -> None:
    """The first is the diffID itself; then sha256(parent + " " + diffID)."""
    two = sha256_digest(f"{A} {B}".encode())

    assert chain_ids([A, B, C]) == [A, two, sha256_digest(f"{two} {C}".encode())]
    assert chain_id([A, B]) == two
    assert chain_id([]) is None


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        parse_config(raw)
    except InputError:
        pass
