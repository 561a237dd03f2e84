"""Properties of what reads a registry's headers and bodies: any text is read without an exception."""

from __future__ import annotations

from urllib.parse import urlsplit

from hypothesis import given
from hypothesis import strategies as st

from lamina.registry import trust, wire

TOKEN = st.text("abcXYZ019-_.~", min_size=1, max_size=10)
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
HEADERISH = st.text(st.sampled_from('Bearer=",\\ \t;<>realm/:1-*@[]%'), max_size=60)


@given(st.lists(st.tuples(TOKEN, st.dictionaries(TOKEN.map(str.lower), VALUE, max_size=4)), min_size=1, max_size=4))
def test_challenges_come_back(challenges):
    """What a careful server writes is what we read."""

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = ", ".join(
        scheme + " " + ", ".join(f"{key}={quoted(value)}" for key, value in params.items())
        for scheme, params in challenges
    )

    found = [(c.scheme, dict(c.params)) for c in wire.parse_challenges([text])]

    assert found == [(scheme.lower(), params) for scheme, params in challenges]


@given(st.one_of(st.text(max_size=200), HEADERISH))
def test_no_header_raises(text):
    """Hostile headers give values or nothing."""
    wire.parse_challenges([text])
    wire.parse_next_link(text)
    wire.parse_content_range(text)
    wire.parse_upload_offset(text)
    wire.parse_retry_after(text, 0.0)
    trust.realm_fault("https://r.example/", text, with_credentials=True)


@given(st.binary(max_size=300))
def test_no_body_raises_and_nothing_unprintable_comes_out(body):
    """Error bodies and manifests may be any bytes."""
    assert wire.parse_error_body(body).text.isprintable()
    wire.media_type_of(body, "application/json")


@given(st.one_of(st.text(max_size=100), HEADERISH))
def test_locations_are_http_or_nothing(location):
    """No location leads to another scheme, to user information, or down from https on the same host."""
    url = wire.join_location("https://r.example/v2/", location)
    if url is not None:
        parts = urlsplit(url)
        assert parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
        trust.redirect_fault("https://r.example/v2/", url)
        trust.origin_of(url)


@given(st.integers(0, 10**18), st.integers(0, 10**18), st.integers(0, 10**18))
def test_content_ranges_come_back(start, length, more):
    """Every satisfied range is read as it was written."""
    end = start + length
    found = wire.parse_content_range(f"bytes {start}-{end}/{end + 1 + more}")
    assert found == wire.ContentRange(start, end, end + 1 + more)
