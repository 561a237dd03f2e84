"""G3: images as package URLs, as BuildKit's provenance and subjects have them."""

from __future__ import annotations

import pytest

from lamina.attest.purl import image_purl
from lamina.oci.platform import Platform

AMD64 = Platform("linux", "amd64")
DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alpine", "pkg:docker/alpine@latest?platform=linux%2Famd64"),
        ("docker.io/library/alpine:3.19", "pkg:docker/alpine@3.19?platform=linux%2Famd64"),
        ("team/app:1", "pkg:docker/team/app@1?platform=linux%2Famd64"),
        ("127.0.0.1:5000/team/app:1", "pkg:docker/127.0.0.1%3A5000/team/app@1?platform=linux%2Famd64"),
        (f"alpine@{DIGEST}", f"pkg:docker/alpine?digest={DIGEST}&platform=linux%2Famd64"),
        (f"alpine:3@{DIGEST}", f"pkg:docker/alpine@3?digest={DIGEST}&platform=linux%2Famd64"),
    ],
)
def test_a_reference_becomes_a_package_url(name: str, expected: str):
    assert image_purl(name, AMD64) == expected


def test_kind_and_qualifiers():
    assert image_purl("a:1", kind="oci", ref_type="blob") == "pkg:oci/a@1?ref_type=blob"


def test_a_variant_is_told():
    assert image_purl("a", Platform("linux", "arm", "v7")).endswith("?platform=linux%2Farm%2Fv7")
