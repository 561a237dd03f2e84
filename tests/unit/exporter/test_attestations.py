"""G3, C8: attestations beside what is exported, without a build."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from lamina.attest.values import SPDX, Attestation
from lamina.errors import InputError
from lamina.exporter.export import export
from lamina.exporter.outputs import parse_output
from lamina.exporter.protocol import Result
from lamina.oci.manifest import parse_index
from lamina.store import Store
from unit.exporter.support import make_result, surroundings


def said(path: str = "sbom.spdx.json", **fields: object) -> Attestation:
    return replace(Attestation(SPDX, path, lambda: b'{"name": "it"}'), **fields)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store", durable=False)


def result_with(store: Store, *attestations: Attestation) -> Result:
    found = make_result(store)
    return replace(found, platforms=tuple(replace(one, attestations=attestations) for one in found.platforms))


def test_every_file_is_named_hard_links_too(store: Store, tmp_path: Path):
    export(result_with(store, said()), parse_output("type=local,dest=out"), surroundings(tmp_path))

    statement = json.loads((tmp_path / "out/sbom.spdx.json").read_text())
    hello, secret = hashlib.sha256(b"hello").hexdigest(), hashlib.sha256(b"ab").hexdigest()
    assert {one["name"]: one["digest"]["sha256"] for one in statement["subject"]} == {
        "bin/alias": hello, "bin/hello": hello, "etc/secret": secret
    }  # fmt: skip
    assert (tmp_path / "out/sbom.spdx.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["a.json", "bin.json", "c.json", "zz.json"])
def test_they_come_in_order_of_the_names(store: Store, tmp_path: Path, name: str):
    """BuildKit's clients refuse a tree that comes in another order."""
    taken: list[str] = []
    around = surroundings(tmp_path, receive=lambda _folder, items: taken.extend(item.entry.path for item in items))
    export(result_with(store, said(name)), parse_output("type=local,dest=out"), around)

    assert name in taken
    assert taken == sorted(taken, key=lambda path: path.split("/"))


def test_two_attestations_of_one_name(store: Store, tmp_path: Path):
    with pytest.raises(InputError, match="two files"):
        export(result_with(store, said(), said()), parse_output("type=local,dest=out"), surroundings(tmp_path))


def test_the_same_statements_give_the_same_image(store: Store, tmp_path: Path):
    digests = {
        export(result_with(store, said()), parse_output("type=image"), surroundings(tmp_path)).descriptor
        for _ in range(2)
    }

    assert len(digests) == 1


def test_what_is_inline_only_makes_no_index_of_an_archive(store: Store, tmp_path: Path):
    """G1: an archive takes it when asked to, an image always."""

    def entries(output: str) -> int:
        outcome = export(result_with(store, said(inline_only=True)), parse_output(output), surroundings(tmp_path))
        assert outcome.descriptor is not None
        is_index = outcome.descriptor.media_type.endswith("index.v1+json")
        return len(parse_index(store.read(outcome.descriptor.digest)).manifests) if is_index else 0

    assert entries("type=oci,dest=a.tar") == 0
    assert entries("type=image") == 2
    assert entries("type=oci,dest=b.tar,attestation-inline=true") == 2


def test_docker_media_types_by_wish_are_an_error(store: Store, tmp_path: Path):
    with pytest.raises(InputError, match="OCI media types"):
        export(result_with(store, said()), parse_output("type=image,oci-mediatypes=false"), surroundings(tmp_path))
