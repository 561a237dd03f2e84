"""Manifests and indexes: what is read, what is refused, and that dumping is stable."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import InputError
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import sha256_digest
from lamina.oci.manifest import (
    MAX_MANIFESTS,
    Index,
    Manifest,
    dump_index,
    dump_manifest,
    parse_any,
    parse_index,
    parse_manifest,
)
from lamina.oci.media_types import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    convert_layer_type,
    layer_compression,
    layer_media_type,
)
from lamina.oci.platform import Platform

CONFIG = Descriptor(OCI_CONFIG, sha256_digest(b"config"), 6)
LAYER = Descriptor(OCI_LAYER, sha256_digest(b"layer"), 5)


def manifest_object(**changes: Any) -> dict[str, Any]:
    obj: dict[str, Any] = {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG.to_json(), "layers": [LAYER.to_json()],
    }  # fmt: skip
    obj.update(changes)
    return {key: value for key, value in obj.items() if value is not None}


def raw(obj: Any) -> bytes:
    return json.dumps(obj).encode()


def test_a_manifest_is_read_and_keeps_its_bytes() -> None:
    text = raw(manifest_object(annotations={"b": "1", "a": "2"}, unknown=[1]))

    found = parse_manifest(text, OCI_MANIFEST)

    assert (found.config, found.layers, found.annotations) == (CONFIG, (LAYER,), {"a": "2", "b": "1"})
    assert found.raw == text
    assert found.descriptor().digest == sha256_digest(text)


def test_dumping_is_stable_and_read_back() -> None:
    subject = Descriptor(OCI_MANIFEST, sha256_digest(b"subject"), 7)

    first = dump_manifest(CONFIG, [LAYER], annotations={"b": "1", "a": "2"}, subject=subject)
    second = dump_manifest(CONFIG, [LAYER], annotations={"a": "2", "b": "1"}, subject=subject)
    found = parse_manifest(first)

    assert first == second
    assert (found.config, found.layers, found.subject) == (CONFIG, (LAYER,), subject)
    assert dump_manifest(found.config, found.layers, annotations=found.annotations, subject=found.subject) == first


def test_an_index_keeps_order_and_platforms() -> None:
    manifests = [
        Descriptor(OCI_MANIFEST, sha256_digest(name.encode()), 1, platform=Platform.parse(name))
        for name in ("linux/arm64", "linux/amd64", "linux/arm/v6")
    ]

    found = parse_index(dump_index(manifests))

    assert list(found.manifests) == manifests
    assert found.media_type == OCI_INDEX


def test_dockers_forms_have_no_annotations() -> None:
    assert b"annotations" not in dump_manifest(CONFIG, [], media_type=DOCKER_MANIFEST, annotations={"a": "b"})
    assert parse_any(dump_index([], media_type=DOCKER_LIST)).media_type == DOCKER_LIST


def test_the_media_type_may_be_said_outside_only() -> None:
    text = raw(manifest_object(mediaType=None))

    assert parse_any(text).media_type == OCI_MANIFEST
    assert parse_any(text, DOCKER_MANIFEST).media_type == DOCKER_MANIFEST
    assert parse_any(text, "application/json; charset=utf-8").media_type == OCI_MANIFEST


BAD = {
    "both layers and manifests (CVE-2021-41190)": (manifest_object(manifests=[]), "", "both"),
    "neither": ({"schemaVersion": 2}, "", "neither"),
    "says index, is a manifest": (manifest_object(mediaType=OCI_INDEX), "", "does not fit"),
    "served as an index": (manifest_object(mediaType=None), OCI_INDEX, "does not fit"),
    "served as one type, says another": (manifest_object(), DOCKER_MANIFEST, "outside"),
    "served as something else": (manifest_object(), "text/html", "not a manifest"),
    "schema 1": ({"schemaVersion": 1, "fsLayers": []}, "", "schema 1"),
    "a key in another case": (manifest_object(Layers=[]), "", "ambiguous key"),
    "a key of a descriptor in another case": (
        manifest_object(layers=[{**LAYER.to_json(), "Digest": str(CONFIG.digest)}]), "", "ambiguous key",
    ),
    "negative size": (manifest_object(layers=[{**LAYER.to_json(), "size": -1}]), "", "size"),
    "size beyond 2^63": (manifest_object(layers=[{**LAYER.to_json(), "size": 2**63}]), "", "size"),
    "fractional size": (manifest_object(layers=[{**LAYER.to_json(), "size": 1.5}]), "", "size"),
    "a digest that is a path": (
        manifest_object(layers=[{**LAYER.to_json(), "digest": "../../etc:passwd"}]), "", "digest",
    ),
    "no config": (manifest_object(config=None), "", "descriptor"),
    "layers not a list": (manifest_object(layers={}), "", "list"),
    "annotation not text": (manifest_object(annotations={"a": 1}), "", "annotations"),
    "data that is not what the digest says": (
        manifest_object(config={**CONFIG.to_json(), "data": base64.b64encode(b"c0nfig").decode()}), "", "data",
    ),
    "too many manifests": (
        {"schemaVersion": 2, "manifests": [LAYER.to_json()] * (MAX_MANIFESTS + 1)}, "", "allowed",
    ),
    "not an object": ([], "", "object"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_could_be_misread_is_refused(case: str) -> None:
    obj, served, message = BAD[case]

    with pytest.raises(InputError, match=message):
        parse_any(raw(obj), served, "reg.example/app:1")


BAD_TEXTS = {
    "key twice": (b'{"schemaVersion":2,"schemaVersion":2}', "twice"),
    "NaN": (b'{"schemaVersion":NaN}', "NaN"),
    "byte order mark": (b"\xef\xbb\xbf{}", "not valid JSON"),
    "not UTF-8": (b'{"a":"\xff"}', "not valid JSON"),
    "UTF-16": ('{"schemaVersion":2}'.encode("utf-16"), "not valid JSON"),
    "unpaired surrogate": (b'{"a":"\\ud800"}', "surrogate"),
    "deep": (b"[" * 100_000 + b"]" * 100_000, "deep"),
    "a hundred levels": (b"[" * 100 + b"]" * 100, "deep"),
    "number of 5000 digits": (b'{"a":' + b"1" * 5000 + b"}", "not valid JSON"),
    "5 MiB": (b'"' + b"a" * (5 << 20) + b'"', "allowed"),
    "truncated": (b'{"schemaVersion":2', "not valid JSON"),
    "empty": (b"", "not valid JSON"),
}


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_bad_json_is_one_clear_error(case: str) -> None:
    text, message = BAD_TEXTS[case]

    with pytest.raises(InputError, match=message):
        parse_any(text)


def test_embedded_data_that_fits_is_accepted() -> None:
    config = {**CONFIG.to_json(), "data": base64.b64encode(b"config").decode()}

    assert parse_manifest(raw(manifest_object(config=config))).config == CONFIG


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    try:
        parse_any(text)
    except InputError:
        pass


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.sampled_from(sorted(manifest_object())), JSON)
def test_any_value_in_any_field_is_read_or_refused(key: str, value: Any) -> None:
    try:
        found = parse_any(raw({**manifest_object(), key: value}))
    except InputError:
        return
    assert isinstance(found, Manifest | Index)


@pytest.mark.parametrize("compression", ["uncompressed", "gzip", "zstd"])
def test_layer_types_turn_into_each_other(compression: str) -> None:
    oci, docker = layer_media_type(compression), layer_media_type(compression, docker=True)

    assert layer_compression(oci) == layer_compression(docker) == compression
    assert convert_layer_type(oci, docker=True) == docker
    assert convert_layer_type(docker, docker=False) == oci


def test_what_is_not_a_layer_is_refused() -> None:
    for media_type in ("application/json", OCI_LAYER + "+xz", "application/vnd.docker.image.rootfs.diff.tar.bz2", ""):
        with pytest.raises(InputError, match="media type"):
            layer_compression(media_type)
