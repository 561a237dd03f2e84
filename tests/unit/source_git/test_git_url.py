"""What counts as a git URL, what it says, and the SourceOp it becomes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import InputError
from lamina.git_url import (
    GitOptions,
    clean_subdir,
    is_commit,
    parse_git_url,
    parse_remote,
    read_git_url,
    to_source,
)

NOT_GIT = [
    "",
    ".",
    "./.git",
    ".git",
    "../x.git",
    "/srv/x.git",
    "file.txt",
    "https://example.com/foo",
    "https://example.com/foo.git/",
    "https://example.com/foo.git.bar",
    "https://example.com/foo.tar.gz?x=.git",
    "http://github.com/docker/docker.git:#branch",
    "custom.xyz/moby/buildkit.git",
    "httpx://github.com/moby/buildkit.git",
    "file:///srv/repository.git",
    "ext::sh -c touch% /tmp/x",
    "fd::17/foo.git",
    "C:\\data",
    "user:name@host:path",
]


@pytest.mark.parametrize("text", NOT_GIT)
def test_other_sources_are_no_git_urls(text):
    """A4.11: paths, other URLs and transports that run programs or read this machine are left alone."""
    assert parse_git_url(text) is None


@pytest.mark.parametrize(
    ("text", "address", "ref", "subdir"),
    [
        ("https://example.com/foo.git", "https://example.com/foo.git", "", ""),
        ("HTTPS://example.com/foo.git", "https://example.com/foo.git", "", ""),
        ("https://example.com/foo.git#release/1.2", "https://example.com/foo.git", "release/1.2", ""),
        ("https://example.com/foo.git#baz/qux:quux/quuz", "https://example.com/foo.git", "baz/qux", "quux/quuz"),
        ("https://example.com/foo.git#:myfolder", "https://example.com/foo.git", "", "myfolder"),
        ("https://example.com/foo.git#main:/a//./b/", "https://example.com/foo.git", "main", "a/b"),
        ("https://example.com:8443/foo.git#caf%C3%A9", "https://example.com:8443/foo.git", "café", ""),
        ("https://[::1]:80/foo.git", "https://[::1]:80/foo.git", "", ""),
        ("git://example.com/foo", "git://example.com/foo", "", ""),
        ("ssh://git@example.com:22/o/r", "ssh://git@example.com:22/o/r", "", ""),
        ("git@example.com:o/r", "git@example.com:o/r", "", ""),
        ("git@example.com:/srv/r.git#v1:hack", "git@example.com:/srv/r.git", "v1", "hack"),
        ("git@example.com:r.git?subdir=/sub#v1", "git@example.com:r.git", "v1", "sub"),
        ("github.com/o/r#main", "https://github.com/o/r", "main", ""),
        ("https://u:p@example.com/foo.git", "https://example.com/foo.git", "", ""),
        ("https://e.com/r.git?ref=v1&subdir=/s", "https://e.com/r.git", "v1", "s"),
        ("https://e.com/r.git?tag=v1", "https://e.com/r.git", "refs/tags/v1", ""),
        ("https://e.com/r.git?tag=refs/tags/v1", "https://e.com/r.git", "refs/tags/v1", ""),
        ("https://e.com/r.git?branch=b", "https://e.com/r.git", "refs/heads/b", ""),
        ("https://e.com/r.git?ref=v1#v1", "https://e.com/r.git", "v1", ""),
    ],
)
def test_remote_ref_and_subdir(text, address, ref, subdir):
    """A4.11: `url#ref:subdir` and the query say the same things."""
    url = parse_git_url(text)

    assert url is not None
    assert (url.remote.address, url.ref, url.subdir) == (address, ref, subdir)


def test_the_rest_of_the_query():
    """A4.11, A4.12: checksum, keep-git-dir, submodules, mtime, fetch-by-commit."""
    url = parse_git_url(
        "https://e.com/o/r.git?checksum=DEADBEEF&keep-git-dir&submodules=false&mtime=commit&fetch-by-commit=1"
    )

    assert url is not None
    assert (url.checksum, url.keep_git_dir, url.submodules) == ("deadbeef", True, False)
    assert (url.mtime, url.fetch_by_commit, url.short_name) == ("commit", True, "r")
    plain = parse_git_url("https://e.com/r.git?commit=0123abcd")
    assert plain is not None and plain.checksum == "0123abcd"
    assert (plain.keep_git_dir, plain.submodules, plain.mtime, plain.fetch_by_commit) == (None, None, "", False)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("ref=v1#v2", "ref conflicts"),
        ("ref=v1&tag=v2", "ref conflicts"),
        ("branch=a#b", "ref conflicts"),
        ("tag=a&branch=a", "a tag and a branch"),
        ("subdir=a#m:b", "subdir conflicts"),
        ("mtime=never", "invalid mtime"),
        ("mtime=", "has no value"),
        ("ref", "has no value"),
        ("ref=a&ref=a", "several values"),
        ("submodules=maybe", "invalid submodules"),
        ("fetch-by-commit=x", "invalid fetch-by-commit"),
        ("invalid=123", "unexpected query 'invalid'"),
        ("checksum=xyz", "invalid checksum"),
        ("checksum=aaaa&commit=bbbb", "differ"),
        ("subdir=a/../../b", "outside"),
        ("ref=--upload-pack%3Dx", "invalid git ref"),
    ],
)
def test_a_wrong_query_is_an_error(query, said):
    """A4.11: what cannot be meant is told, not guessed."""
    with pytest.raises(InputError, match=said):
        parse_git_url(f"https://e.com/r.git?{query}")


INJECTIONS = [
    "https://e.com/r.git#--upload-pack=touch x",
    "https://e.com/r.git#-x",
    "https://e.com/r.git#a b",
    "https://e.com/r.git#a%0Ab",
    "https://e.com/r.git#a..b",
    "https://e.com/r.git#a:../../etc",
    "https://e.com/r.git#a^{}",
    "https://e.com/r.git#refs/heads/*",
    "https://-oProxyCommand=x/r.git",
    "ssh://-oProxyCommand=x/r",
    "ssh://git@-oProxyCommand=x/r",
    "ssh://-l@host/r",
    "-l@host:r",
    "git@-host:r",
    "git@host:-r",
    "git@host:",
    "git@host:/",
    "ssh://host",
    "https:///r.git",
    "https://h\n/r.git",
    "https://h/r\t.git",
    "https://h/\x1b[31m.git",
    "git://h ost/r",
    "https://h:port/r.git",
    "https://h/" + "a" * 9000 + ".git",
]


@pytest.mark.parametrize("text", INJECTIONS)
def test_nothing_becomes_an_option_or_a_line(text):
    """B6: CVE-2017-1000117, CVE-2019-13139 and their kin: options, blanks, control characters, climbing."""
    with pytest.raises(InputError):
        parse_git_url(text)


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        ("https://github.com/o/r.git", "git://github.com/o/r.git"),
        ("git@github.com:o/r.git#v1", "git://github.com/o/r.git#v1"),
        ("ssh://git@h:22/o//r#:d", "git://h:22/o/r#:d"),
        ("github.com/o/r#v1:d", "git://github.com/o/r#v1:d"),
    ],
)
def test_the_source_is_named_alike_for_all_transports(text, identifier):
    """B6: identifier and attributes are those of BuildKit's builder."""
    url = parse_git_url(text)
    assert url is not None

    found, attrs = to_source(url, GitOptions())

    assert found == identifier
    expected = {
        "git.fullurl": url.remote.address,
        "git.authtokensecret": "GIT_AUTH_TOKEN",
        "git.authheadersecret": "GIT_AUTH_HEADER",
    }
    if url.scheme == "ssh":
        expected["git.mountsshsock"] = "default"
    assert attrs == expected


def test_options_and_url_agree_or_fail():
    """A4.11, A4.12: an option counts like the query; two answers to one question are an error."""
    url = parse_git_url("git@h:r?keep-git-dir=true&checksum=abcd1234&submodules=0&mtime=commit&fetch-by-commit")
    assert url is not None

    _, attrs = to_source(url, GitOptions(keep_git_dir=True, known_ssh_hosts="h ssh-rsa A\n", ssh_id="mine"))

    assert attrs == {
        "git.fullurl": "git@h:r",
        "git.keepgitdir": "true",
        "git.authtokensecret": "GIT_AUTH_TOKEN",
        "git.authheadersecret": "GIT_AUTH_HEADER",
        "git.checksum": "abcd1234",
        "git.skipsubmodules": "true",
        "git.mtime": "commit",
        "git.fetchbycommit": "true",
        "git.knownsshhosts": "h ssh-rsa A\n",
        "git.mountsshsock": "mine",
    }
    for wrong in (
        GitOptions(keep_git_dir=False),
        GitOptions(checksum="abcd"),
        GitOptions(submodules=True),
        GitOptions(mtime="checkout"),
    ):
        with pytest.raises(InputError, match="in the git URL"):
            to_source(url, wrong)


def test_a_password_is_in_the_source_only():
    """B6: what stands for the remote in messages, keys and repr has no user's secret."""
    remote = parse_remote("https://alice:hunter2@h/r.git")
    assert remote is not None

    assert remote.text == "https://alice:hunter2@h/r.git"
    for shown in (remote.address, remote.identity, repr(remote)):
        assert "hunter2" not in shown and "alice" not in shown
    with pytest.raises(InputError) as caught:
        parse_remote("https://alice:hunter2@h/r .git")
    assert "hunter2" not in caught.value.diagnostics()


@pytest.mark.parametrize(
    ("text", "address", "ref", "subdir"),
    [
        ("h/o/r", "https://h/o/r", "", ""),
        ("https://h/o/r#a:b", "https://h/o/r", "a", "b"),
        ("http://h:80/o/r?ref=a", "http://h:80/o/r", "a", ""),
        ("git@h:r", "git@h:r", "", ""),
    ],
)
def test_a_text_that_is_known_to_be_git_may_be_shorter(text, address, ref, subdir):
    """B6: as llb.Git takes it."""
    url = read_git_url(text)

    assert (url.remote.address, url.ref, url.subdir) == (address, ref, subdir)


@pytest.mark.parametrize("text", ["file:///x", "ext::sh", "/etc", "", "httpx://h/r", "h"])
def test_other_transports_are_refused(text):
    with pytest.raises(InputError):
        read_git_url(text)


ANY = st.text(max_size=60)
PIECES = st.lists(
    st.sampled_from(
        [
            "https://",
            "git@",
            "ssh://",
            "git://",
            "h",
            ":",
            "/",
            "r",
            ".git",
            "#",
            "?",
            "ref=",
            "subdir=",
            "&",
            "..",
            "-",
        ]
    ),
    max_size=14,
).map("".join)


@given(ANY | PIECES)
def test_any_text_is_read_or_refused(text):
    """Whatever stands there: None, a URL whose parts are safe, or an InputError."""
    try:
        url = parse_git_url(text)
    except InputError:
        return
    if url is None:
        return
    address = url.remote.address
    assert not address.startswith("-") and address.isprintable() and " " not in address
    assert not url.ref.startswith("-") and ".." not in url.ref
    assert not url.subdir.startswith("/") and ".." not in url.subdir.split("/")
    again = parse_remote(url.remote.text)
    assert again == url.remote
    identifier, attrs = to_source(url, GitOptions())
    assert identifier.startswith("git://") and attrs["git.fullurl"] == url.remote.text


@given(st.lists(st.sampled_from(["a", "b", ".", "..", ""]), max_size=8).map("/".join))
def test_a_subdir_never_climbs(subdir):
    try:
        clean = clean_subdir(subdir)
    except InputError:
        assert ".." in subdir
        return
    assert clean == clean_subdir("/" + clean + "/") and ".." not in clean.split("/")


def test_full_hashes_of_both_kinds():
    assert is_commit("0" * 40) and is_commit("a" * 64)
    assert not is_commit("a" * 41) and not is_commit("A" * 40) and not is_commit("g" * 40)
