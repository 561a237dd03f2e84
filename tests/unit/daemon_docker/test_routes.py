"""Paths, versions and queries of docker's API."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.daemon.docker.failures import ApiError
from lamina.daemon.docker.routes import MAX_FIELDS, Query, Routes


def nothing(_request: object) -> None:
    return


@pytest.fixture
def routes() -> Routes:
    found = Routes()
    found.add("GET", "/images/json", nothing)
    found.add("GET", "/images/{name:path}/json", nothing)
    found.add("DELETE", "/images/{name:path}", nothing)
    found.add("GET", "/networks/{name}", nothing)
    return found


@pytest.mark.parametrize(
    ("method", "target", "name"),
    [
        ("GET", "/images/app/json", "app"),
        ("GET", "/v1.41/images/host:5000/a/b:tag/json?x=1", "host:5000/a/b:tag"),
        ("GET", "/v1.24/images/app%40sha256:ab/json", "app@sha256:ab"),
        ("DELETE", "/images/json", "json"),
    ],
)
def test_names_of_images_may_hold_slashes(routes: Routes, method: str, target: str, name: str):
    assert routes.find(method, target)[2] == {"name": name}


def test_the_first_fitting_row_counts(routes: Routes):
    assert routes.find("GET", "/images/json")[2] == {}


def test_the_version_is_the_clients(routes: Routes):
    assert routes.find("GET", "/v1.30/images/json")[1] == (1, 30)
    assert routes.find("GET", "/images/json")[1] == (1, 47)


@pytest.mark.parametrize(("version", "words"), [("1.99", "too new"), ("2.0", "too new"), ("1.12", "too old")])
def test_versions_that_are_not_spoken_are_told_so(routes: Routes, version: str, words: str):
    with pytest.raises(ApiError, match=words) as found:
        routes.find("GET", f"/v{version}/images/json")
    assert found.value.status == 400


@pytest.mark.parametrize("target", ["/", "/networks/a/b", "/v1.41", "/v1.41/nope", "//images/json", "/vx/images/json"])
def test_what_is_not_there_is_404(routes: Routes, target: str):
    with pytest.raises(ApiError) as found:
        routes.find("GET", target)
    assert found.value.status == 404


@pytest.mark.parametrize(
    ("text", "on"), [("", False), ("a", False), ("a=", False), ("a=0", False), ("a=False", False), ("a=none", False),
                     ("a=1", True), ("a=true", True), ("a=yes", True)],
)  # fmt: skip
def test_flags_are_on_as_in_docker(text: str, on: bool):
    assert Query(text).flag("a") is on


def test_filters_come_in_two_forms():
    known = frozenset({"label", "dangling"})
    new = quote('{"label":{"a=b":true,"c":true,"d":false}}')
    assert Query(f"filters={new}").filters(known) == {"label": ("a=b", "c")}
    old = quote('{"dangling":["true"]}')
    assert Query(f"filters={old}").filters(known) == {"dangling": ("true",)}
    assert Query("").filters(known) == {}


@pytest.mark.parametrize("text", ["[]", "{", '{"nope":["x"]}', '{"label":"x"}', '{"label":[1]}', "[" * 50_000])
def test_filters_that_are_none_are_refused(text: str):
    with pytest.raises(ApiError) as found:
        Query(f"filters={quote(text)}").filters(frozenset({"label"}))
    assert found.value.status == 400


def test_fields_without_end_are_refused():
    with pytest.raises(ApiError):
        Query("&".join(["a=1"] * (MAX_FIELDS + 1)))


@given(st.text())
def test_any_target_is_answered(text: str):
    found = Routes()
    found.add("GET", "/images/{name:path}/json", nothing)
    try:
        found.find("GET", "/" + text)
    except ApiError as error:
        assert error.status in (400, 404)
