"""What an http source asks for, and the names that servers and graphs may give to the file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import InputError, NotYetError
from lamina.source.http_request import (
    DEFAULT_NAME,
    disposition_name,
    parse_http,
    parse_http_date,
    parse_url,
    safe_name,
    show_url,
)

SHA = "sha256:" + "ab" * 32


def test_attributes_of_the_source():
    """B7: the attributes carry BuildKit's names and number forms."""
    attrs = {
        "http.checksum": SHA,
        "http.filename": "x",
        "http.perm": "0644",
        "http.uid": "7",
        "http.gid": "0x8",
        "http.authheadersecret": "s",
        "http.header.accept": "text/plain",
        "http.header.user-agent": "me",
        "http.header.cookie": "dropped",
        "http.later": "passed over",
    }

    request = parse_http("https://host/a/b.tgz", attrs)

    assert (request.checksum, request.filename, request.mode, request.uid, request.gid) == (SHA, "x", 0o644, 7, 8)
    assert request.headers == (("Accept", "text/plain"), ("User-Agent", "me"))
    assert parse_http("http://h/f", {}).mode == 0o600


@pytest.mark.parametrize(
    "attrs",
    [
        {"http.checksum": "sha256:12"},
        {"http.checksum": "sha512:" + "a" * 128},
        {"http.perm": "rw"},
        {"http.perm": "-1"},
        {"http.perm": "0o17777"},
        {"http.uid": "1e3"},
        {"http.uid": str(2**32)},
        {"http.header.accept": "a\r\nX: y"},
    ],
)
def test_malformed_attributes_are_refused(attrs):
    with pytest.raises(InputError):
        parse_http("http://h/f", attrs)


def test_a_signature_is_never_silently_unverified():
    with pytest.raises(NotYetError):
        parse_http("http://h/f", {"http.sig.pubkey": "k", "http.sig.signature": "s"})


@pytest.mark.parametrize(
    "url", ["ftp://h/f", "http://", "http:///f", "http://h:x/", "http://h/a b", "h/f", "http://[::1/"]
)
def test_urls_that_cannot_be_requested(url):
    with pytest.raises(InputError):
        parse_url(url)


def test_user_information_becomes_a_header_and_is_never_shown():
    request = parse_http("https://me:hush%21@h:8443/f?sig=deep#part", {})

    assert request.url == "https://h:8443/f?sig=deep"
    assert request.authorization == "Basic bWU6aHVzaCE="
    assert request.shown == "https://h:8443/f?..."
    assert "hush" not in repr(request)
    with pytest.raises(InputError) as caught:
        parse_url("https://me:hush@h:port/")
    assert "hush" not in caught.value.diagnostics()


@pytest.mark.parametrize(
    ("url", "disposition", "name"),
    [
        ("http://h/a/b.tgz?x=/y", "", "b.tgz"),
        ("http://h/a/b/", "", "b"),
        ("http://h/", "", DEFAULT_NAME),
        ("http://h", "", DEFAULT_NAME),
        ("http://h/a%2Fb", "", "b"),
        ("http://h/..%2f..", "", DEFAULT_NAME),
        ("http://h/%00", "", DEFAULT_NAME),
        ("http://h/.wh.etc", "", DEFAULT_NAME),
        ("http://h/f", 'attachment; filename="../../x"', "x"),
        ("http://h/f", "attachment; filename=/etc/passwd", "passwd"),
        ("http://h/f", 'attachment; filename="dir/"', "f"),
        ("http://h/f", 'attachment; filename=".."', DEFAULT_NAME),
        ("http://h/f", 'attachment; filename=".wh..wh..opq"', DEFAULT_NAME),
        ("http://h/f", "attachment; filename*=UTF-8''na%C3%AFve.txt", "naïve.txt"),
        ("http://h/f", 'attachment; filename="naÃ¯ve.txt"', "naïve.txt"),
        ("http://h/f", "inline", "f"),
        ("http://h/f", "attachment; filename*=nonsense''%ff", "f"),
    ],
)
def test_the_name_of_the_file(url, disposition, name):
    """A4.9: Content-Disposition, then the URL; and no name leads anywhere."""
    found = parse_http(url, {}).name(disposition)

    assert found == name or (disposition.endswith("%ff") and "/" not in found)


def test_the_name_in_the_graph_wins_and_is_made_safe():
    request = parse_http("http://h/f", {"http.filename": "../up"})

    assert request.name("attachment; filename=other") == "up"


@given(st.text())
def test_a_safe_name_is_one_name_of_a_file(text):
    name = safe_name(text)

    assert name not in ("", ".", "..") and "/" not in name and "\0" not in name and not name.startswith(".wh.")
    assert len(name.encode("utf-8", "surrogatepass")) <= 255


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=200))
def test_any_disposition_gives_a_safe_name_or_none(value):
    name = disposition_name("attachment; filename" + value)

    assert name == "" or safe_name(name) == name


@given(st.text())
def test_a_shown_url_has_no_user_information(text):
    assert "s3cret" not in show_url(f"http://u:s3cret@{text.replace('s3cret', '')}")


@given(st.text(max_size=80))
def test_dates_are_dates_or_none(text):
    seconds = parse_http_date(text)

    assert seconds is None or 0 <= seconds < 1 << 32


def test_a_date():
    assert parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT") == 784111777
    assert parse_http_date("Sun, 06 Nov 9999 08:49:37 GMT") is None


def test_the_origin_ignores_what_does_not_change_the_content():
    """Mode, owner, name and credentials give the same file; another URL, Accept or secret may not."""
    base = parse_http("http://h/f", {})
    for same in (
        parse_http("http://u:p@h/f#x", {}),
        parse_http("http://h/f", {"http.perm": "0755", "http.uid": "3", "http.filename": "n"}),
    ):
        assert same.origin_key == base.origin_key
    for other in (
        parse_http("http://h/f?x", {}),
        parse_http("http://h/f", {"http.header.accept": "text/plain"}),
        parse_http("http://h/f", {"http.authheadersecret": "s"}),
    ):
        assert other.origin_key != base.origin_key
