"""G4, G5: statements that come out of a build are checked before they count."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.attest.bundle import Bundle, unbundle
from lamina.attest.statement import statement
from lamina.attest.values import MAX_BYTES, RAW, SPDX, Attestation, Subject
from lamina.errors import InputError

SBOM = Bundle(SPDX, "sbom", core="sbom")
SELF = [Subject(name="pkg:docker/a@1", digests={"sha256": "00" * 32})]


def spdx(name: str, **fields: object) -> bytes:
    return json.dumps({"predicateType": SPDX, "predicate": {"name": name}, **fields}).encode()


def test_the_sbom_of_the_result_comes_first():
    found = unbundle(SBOM, [("extra.spdx.json", spdx("x")), ("sbom.spdx.json", spdx("s")), ("a.spdx.json", spdx("a"))])

    assert [one.path for one in found] == ["sbom.spdx.json", "a.spdx.json", "extra.spdx.json"]
    assert json.loads(found[0].content()) == {"name": "s"}


def test_without_subjects_a_statement_speaks_of_what_is_exported():
    (one,) = unbundle(SBOM, [("sbom.spdx.json", spdx("s"))])

    assert statement(one, SELF)["subject"] == [{"name": "pkg:docker/a@1", "digest": {"sha256": "00" * 32}}]


def test_subjects_of_its_own_stay():
    subjects = [{"name": "file", "digest": {"sha256": "ff" * 32}}]
    (one,) = unbundle(SBOM, [("sbom.spdx.json", spdx("s", subject=subjects))])

    assert one.subjects == (Subject(RAW, "file", {"sha256": "ff" * 32}),)
    assert statement(one, SELF)["subject"] == subjects


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        json.dumps({"predicate": {}}).encode(),
        json.dumps({"predicateType": "https://slsa.dev/provenance/v1", "predicate": {}}).encode(),
        json.dumps({"predicateType": "https://cyclonedx.org/bom", "predicate": {}}).encode(),
        spdx("s", subject=[{"name": "x"}]),
        spdx("s", subject=[{"name": "x", "digest": {"sha256": 1}}]),
        spdx("s", subject=7),
        b"[" * 100_000,
    ],
)
def test_what_is_no_statement_of_the_type_is_refused(data: bytes):
    with pytest.raises(InputError):
        unbundle(SBOM, [("sbom.spdx.json", data)])


def test_a_frontend_cannot_bring_provenance_in_a_bundle_of_anything():
    data = json.dumps({"predicateType": "https://slsa.dev/provenance/v0.2", "predicate": {}}).encode()

    with pytest.raises(InputError, match="only the builder"):
        unbundle(Bundle(), [("p.json", data)])


def test_a_generator_that_wrote_nothing_has_failed():
    with pytest.raises(InputError, match="no SBOM"):
        unbundle(SBOM, [])


def test_too_much_is_refused():
    with pytest.raises(InputError, match="40 MiB"):
        unbundle(SBOM, [("sbom.spdx.json", bytes(MAX_BYTES + 1))])
    with pytest.raises(InputError):
        statement(Attestation(SPDX, "s", lambda: bytes(MAX_BYTES + 1)), SELF)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_statement_or_an_error_of_ours(data: bytes):
    with pytest.raises(InputError):
        unbundle(SBOM, [("sbom.spdx.json", data)])
