"""G1: which attestations clients ask for, and how."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.attest.request import (
    GENERATOR,
    AttestRequest,
    ProvenanceRequest,
    SbomRequest,
    parse_request,
    requests_of,
)
from lamina.errors import Error, InputError, NotYetError


def test_what_buildx_asks_by_default():
    asked = parse_request(requests_of({"attest:provenance": "mode=min,inline-only=true", "target": "x"}))

    assert asked == AttestRequest(ProvenanceRequest(mode="min", inline_only=True))


def test_a_daemons_client_that_says_nothing_more_gets_all_of_it():
    assert parse_request({"provenance": ""}).provenance == ProvenanceRequest(mode="max", version="v1")


def test_every_option():
    text = "mode=full,version=v0.2,builder-id=https://b,inline-only=1,reproducible=t,filename=p.json,complete-materials=true"

    assert parse_request({"provenance": text}).provenance == ProvenanceRequest(
        "max", "v0.2", "https://b", True, True, "p.json", True
    )


def test_a_generator_and_what_it_is_told_keep_their_case():
    asked = parse_request({"sbom": '"generator=reg.example/scan:1",Some_Name=a=b'})

    assert asked.sbom == SbomRequest("reg.example/scan:1", {"Some_Name": "a=b"})
    assert parse_request({"sbom": ""}).sbom == SbomRequest(GENERATOR, {})


def test_a_disabled_type_is_not_asked_for():
    assert parse_request({"provenance": "mode=max,disabled=true", "sbom": "disabled=1"}) == AttestRequest()


def test_build_arguments_ask_too_and_options_win():
    attrs = {
        "build-arg:BUILDKIT_ATTEST_PROVENANCE": "mode=min",
        "build-arg:BUILDKIT_ATTEST_SBOM": "",
        "attest:sbom": "generator=g",
    }

    assert requests_of(attrs) == {"provenance": "mode=min", "sbom": "generator=g"}


@pytest.mark.parametrize(
    "values",
    [
        {"vex": ""},
        {"provenance": "mode=most"},
        {"provenance": "version=v2"},
        {"provenance": "mod=min"},
        {"provenance": "mode=min,mode=max"},
        {"provenance": "filename=../p"},
        {"provenance": "reproducible=perhaps"},
        {"sbom": "generator=g,a-b=c"},
    ],
)
def test_what_makes_no_sense_is_an_error(values: dict[str, str]):
    with pytest.raises(InputError):
        parse_request(values)


def test_usage_is_not_sampled_yet():
    with pytest.raises(NotYetError):
        parse_request({"provenance": "capture-usage=true"})


@given(st.dictionaries(st.sampled_from(["provenance", "sbom"]), st.text(max_size=40)))
def test_any_text_is_a_request_or_an_error_of_ours(values: dict[str, str]):
    try:
        parse_request(values)
    except Error as error:
        assert error.what
