"""The pure parts: what headers mean, whom to trust, how long to wait, what to say."""

from __future__ import annotations

import pytest

from lamina.errors import InputError
from lamina.registry import trust, wire
from lamina.registry.backoff import MEANINGFUL_PROGRESS, Patience
from lamina.registry.endpoint import own_endpoint, pull_endpoints
from lamina.registry.failures import status_error
from lamina.registry.options import Proxies, RegistryOptions, Retries


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("Basic", [("basic", {})]),
        ('Basic realm="a, b=c"', [("basic", {"realm": "a, b=c"})]),
        (
            'Bearer realm="https://a/t",service="s",scope="x y"',
            [("bearer", {"realm": "https://a/t", "service": "s", "scope": "x y"})],
        ),
        (
            'Basic realm="r", Bearer realm="t" , service=s',
            [("basic", {"realm": "r"}), ("bearer", {"realm": "t", "service": "s"})],
        ),
        ("Negotiate abc==, Basic realm=x", [("negotiate", {}), ("basic", {"realm": "x"})]),
        (r'Basic realm="q\"uo\\te"', [("basic", {"realm": 'q"uo\\te'})]),
        ('Bearer realm="first",realm="second"', [("bearer", {"realm": "first"})]),
        ('Bearer realm="open', [("bearer", {})]),
        ("Basic " + "x" * 20_000, []),
    ],
)
def test_challenges(text, expected):
    """RFC 9110 11.6.1, as servers write it."""
    assert [(c.scheme, dict(c.params)) for c in wire.parse_challenges([text])] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes 0-9/10", (0, 9, 10)),
        ("bytes 5-9/*", (5, 9, None)),
        ("bytes 9-5/10", None),
        ("bytes 0-10/10", None),
        ("bytes */10", None),
        ("bytes -5-9/10", None),
        ("bytes ٣-٩/١٠", None),
        ("", None),
    ],
)
def test_content_range(text, expected):
    """Only satisfied ranges that fit into their total."""
    found = wire.parse_content_range(text)
    assert (found and (found.start, found.end, found.total)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0-99", 100), ("bytes=0-99", 100), ("0-0", None), ("5-99", None), ("", None), ("0--1", None)],
)
def test_upload_offset(text, expected):
    """How much an upload holds; 0-0 says nothing."""
    assert wire.parse_upload_offset(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", 5.0),
        ("1000000000", 1e9),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
def test_retry_after(text, expected):
    """Seconds or a date."""
    assert wire.parse_retry_after(text, now=10.0) == expected


@pytest.mark.parametrize(
    ("base", "location", "expected"),
    [
        ("https://r.io/v2/a/blobs/uploads/", "/v2/a/blobs/uploads/1?x=%2F", "https://r.io/v2/a/blobs/uploads/1?x=%2F"),
        ("https://r.io/v2/a/blobs/uploads/", "1", "https://r.io/v2/a/blobs/uploads/1"),
        ("https://r.io/v2/", "https://s3.io/b", "https://s3.io/b"),
        ("https://r.io/v2/", "http://r.io/v2/x", "https://r.io/v2/x"),
        ("https://r.io:8443/v2/", "http://r.io/v2/x", "https://r.io:8443/v2/x"),
        ("https://r.io/v2/", "//other/x", "https://other/x"),
        ("https://r.io/v2/", "file:///etc/passwd", None),
        ("https://r.io/v2/", "https://u:p@other/x", None),
        ("https://r.io/v2/", "https://other:99999/x", None),
        ("https://r.io/v2/", "https://[bad/x", None),
        ("https://r.io/v2/", "/a b", None),
        ("https://r.io/v2/", "/a\r\nX: y", None),
        ("https://r.io/v2/", "", None),
    ],
)
def test_location(base, location, expected):
    """Relative, absolute, through a proxy that forgot about TLS; nothing else."""
    assert wire.join_location(base, location) == expected


def test_next_link():
    """Only rel=next counts."""
    assert wire.parse_next_link('</a?n=1>; rel="next"') == "/a?n=1"
    assert wire.parse_next_link('</p>; rel="prev", </n>; rel=next') == "/n"
    assert wire.parse_next_link("</p>; rel=prev") is None


@pytest.mark.parametrize(
    ("body", "codes", "text"),
    [
        (b'{"errors":[{"code":"DENIED","message":"no\\u001b[31m"}]}', ("DENIED",), "no [31m"),
        (b'{"errors":[{"code":"DENIED"}]}', ("DENIED",), "DENIED"),
        (b'{"details":"bad login"}', (), "bad login"),
        (b"plain words\n", (), "plain words"),
        (b"<html><h1>Bad gateway</h1></html>", (), ""),
        (b'{"errors": {"a": 1}}', (), ""),
        (b"[1]", (), ""),
        (b"\xff\xfe", (), "\ufffd\ufffd"),
    ],
)
def test_error_bodies(body, codes, text):
    """Whatever a server says comes out printable."""
    words = wire.parse_error_body(body)
    assert (words.codes, words.text) == (codes, text)


@pytest.mark.parametrize(
    ("registry", "realm", "allowed"),
    [
        ("https://registry-1.docker.io/v2/", "https://auth.docker.io/token", True),
        ("https://registry.gitlab.com/v2/", "https://gitlab.com/jwt/auth", True),
        ("https://ghcr.io/v2/", "https://ghcr.io/token", True),
        ("https://r.example.co.uk/", "https://auth.example.co.uk/", True),
        ("https://r.example.co.uk/", "https://evil.co.uk/", False),
        ("https://ghcr.io/v2/", "https://ghcr.io.evil.com/token", False),
        ("https://ghcr.io/v2/", "http://ghcr.io/token", False),
        ("https://r.example/", "https://169.254.169.254/", False),
        ("https://r.example/", "https://2852039166/", False),
        ("https://r.example/", "https://localhost/", False),
        ("https://10.0.0.5:5000/", "https://10.0.0.5:5001/", True),
        ("https://10.0.0.5:5000/", "https://10.0.0.6:5001/", False),
        ("http://localhost:5000/", "http://127.0.0.1:5001/token", True),
        ("http://reg.lan:5000/", "http://reg.lan:5001/token", True),
        ("https://r.io/", "ftp://r.io/", False),
        ("https://r.io/", "https://[::1/", False),
    ],
)
def test_realms(registry, realm, allowed):
    """Credentials go to the registry's own site over https, or stay."""
    assert (trust.realm_fault(registry, realm, with_credentials=True) == "") is allowed


def test_realms_without_credentials_and_by_name():
    """Without credentials another public site may issue a token; with them, one that the user named."""
    url, realm = "https://r.example/v2/", "https://login.other.org/token"
    assert trust.realm_fault(url, realm, with_credentials=False) == ""
    assert trust.realm_fault(url, "https://10.1.2.3/", with_credentials=False) != ""
    assert trust.realm_fault(url, "https://metadata/", with_credentials=False) != ""
    assert trust.realm_fault(url, realm, with_credentials=True, trusted={"login.other.org"}) == ""


@pytest.mark.parametrize(
    ("source", "target", "allowed"),
    [
        ("https://r.io/", "https://s3.io/x", True),
        ("https://r.io/", "http://s3.io/x", False),
        ("https://r.io/", "https://169.254.169.254/x", False),
        ("https://r.io/", "https://[::ffff:169.254.169.254]/x", False),
        ("https://r.io/", "https://127.1/x", False),
        ("http://127.0.0.1:5000/", "http://127.0.0.1:9000/x", True),
        ("https://r.lan/", "https://10.0.0.9/x", True),
    ],
)
def test_redirects(source, target, allowed):
    """Storage on another host is fine, weaker transport and this machine are not."""
    assert (trust.redirect_fault(source, target) == "") is allowed


@pytest.mark.parametrize(
    ("host", "port", "rules", "expected"),
    [
        ("127.0.0.1", 80, "", True),
        ("r.io", 443, "", False),
        ("r.io", 443, "*", True),
        ("a.r.io", 443, "r.io", True),
        ("a.r.io", 443, ".r.io", True),
        ("ar.io", 443, "r.io", False),
        ("r.io", 443, "r.io:80", False),
        ("r.io", 80, "x, r.io:80", True),
        ("10.1.2.3", 80, "10.0.0.0/8", True),
        ("fd00::1", 80, "fd00::/8", True),
    ],
)
def test_no_proxy(host, port, rules, expected):
    """Names with their subdomains, networks, ports; this machine always."""
    assert trust.bypasses_proxy(host, port, rules) is expected


def test_patience_doubles_with_jitter_and_ends():
    """Half fixed, half random, at most `most_s`; `attempts` tries in all."""
    patience = Patience(Retries(attempts=6, first_s=1, most_s=8), lambda: 0.999999)
    assert [round(patience.next_wait() or 0, 3) for _ in range(6)] == [1, 2, 4, 8, 8, 0]
    assert Patience(Retries(first_s=1), lambda: 0.0).next_wait() == 0.5


def test_patience_honours_retry_after_up_to_its_cap():
    """A server may ask for a minute, not for a day."""
    patience = Patience(Retries(retry_after_cap_s=60), lambda: 0.0)
    assert patience.next_wait(30) == 30
    assert patience.next_wait(1e9) == 60


def test_patience_has_a_budget():
    """All waits together stay below the budget, even when progress keeps the count of tries low."""
    patience = Patience(Retries(attempts=3, budget_s=100, retry_after_cap_s=60), lambda: 0.0)
    assert patience.next_wait(60) == 60
    patience.progressed(MEANINGFUL_PROGRESS)
    assert patience.failures == 0
    assert patience.next_wait(60) is None


def test_endpoints():
    """Docker Hub's address, plain http only where allowed, mirrors in order before the registry."""
    options = RegistryOptions(
        insecure=frozenset({"lan:5000"}),
        plain_http=frozenset({"old:80"}),
        mirrors={"docker.io": ("https://m1.example", "m2.example/hub/")},
    )
    assert own_endpoint("docker.io", options).address == "registry-1.docker.io"
    assert (own_endpoint("r.io", options).schemes, own_endpoint("r.io", options).verify) == (("https",), True)
    assert own_endpoint("localhost:5000", options).schemes == ("https", "http")
    assert own_endpoint("[::1]:5000", options).schemes == ("https", "http")
    assert own_endpoint("localhost.evil.com", options).schemes == ("https",)
    assert (own_endpoint("lan:5000", options).schemes, own_endpoint("lan:5000", options).verify) == (
        ("https", "http"),
        False,
    )
    assert own_endpoint("lan:5001", options).schemes == ("https",)
    assert own_endpoint("old:80", options).schemes == ("http",)
    tried = pull_endpoints("docker.io", options)
    assert [(e.registry, e.prefix, e.mirror) for e in tried] == [
        ("m1.example", "", True),
        ("m2.example", "hub/", True),
        ("docker.io", "", False),
    ]


@pytest.mark.parametrize("mirror", ["ftp://x", "u:p@x", "https://", "x?y"])
def test_bad_mirrors(mirror):
    """A mirror that is no address is told as such."""
    with pytest.raises(InputError, match="not a mirror"):
        pull_endpoints("r.io", RegistryOptions(mirrors={"r.io": (mirror,)}))


def test_hub_401_reads_as_not_found_or_login():
    """Docker Hub answers 401 for what does not exist."""
    error = status_error(401, wire.RegistryWords(), host="docker.io", what="pull x", repository="docker.io/library/x")
    assert "docker.io/library/x not found" in error.diagnostics() and "docker login" in error.diagnostics()


def test_options_do_not_show_proxy_passwords():
    """`repr` is what ends in logs."""
    assert "canary" not in repr(RegistryOptions(proxies=Proxies("http://u:canary@p", "http://u:canary@p")))
