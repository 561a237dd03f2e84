"""Nothing secret comes out: whatever a predicate holds, wherever it is hidden in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.attest.hide import HIDDEN, Hiding

MARKER = "s3cr3t-Marker"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.one_of(TEXTS, st.just(MARKER), st.builds(lambda a, b: a + MARKER + b, TEXTS, TEXTS), st.integers(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=20,
)


@given(JSON)
def test_a_secret_is_nowhere(value: Any):
    assert MARKER not in json.dumps(Hiding([MARKER]).json(value), ensure_ascii=False)


@given(
    st.sampled_from(["https", "http", "git", "ssh", "git+https"]),
    st.from_regex(r"[a-z]{1,8}(:[^/?#\s\"'\\]{1,12})?", fullmatch=True),
)
def test_user_information_of_a_url_is_nowhere(scheme: str, user: str):
    text = f"see {scheme}://{user}@host.example/path and more"

    assert Hiding().text(text) in (
        f"see {scheme}://host.example/path and more",
        text if user == "git" and scheme == "ssh" else "",
    )


@pytest.mark.parametrize(
    "text", ["git@github.com:a/b", "ssh://git@github.com/a", "mail a@b.example", "https://host/path@2x.png", "a=b"]
)
def test_what_is_no_secret_stays(text: str):
    assert Hiding(["another"]).text(text) == text


def test_a_short_secret_is_hidden_where_it_is_all_there_is():
    hiding = Hiding(["ab"])

    assert [hiding.text(text) for text in ("ab", "X=ab", "abacus")] == [HIDDEN, f"X={HIDDEN}", "abacus"]


def test_a_secret_in_another_leaves_nothing():
    assert Hiding(["long-secret", "long-secret-and-more"]).text("x long-secret-and-more y") == f"x {HIDDEN} y"
