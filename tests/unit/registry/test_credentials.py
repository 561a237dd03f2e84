"""Docker's config.json and credential helpers: exact hosts only, bounded helpers, tolerant reading."""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

import pytest

from lamina.errors import InputError
from lamina.registry.credentials import load_credentials

HUB = "https://index.docker.io/v1/"


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def configured(folder: Path, config: object, search_path: str = "", **options):
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return load_credentials(folder, search_path, **options)


def helper(folder: Path, name: str, script: str) -> str:
    """Write a credential helper in Python; return the search path that finds it."""
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!{sys.executable} -IS\nimport os, sys, time\n{script}\n")
    program.chmod(0o755)
    return str(folder)


ANSWER = """
asked = sys.stdin.read()
assert sys.argv[1:] == ["get"]
print('{"ServerURL": "%s", "Username": "%s", "Secret": "s3cret"}' % (asked, asked))
"""


def test_missing_file_means_none(tmp_path):
    """Nothing is configured: nobody is logged in."""
    assert load_credentials(tmp_path / "absent", "")("r.io") is None


@pytest.mark.parametrize(
    ("key", "host", "found"),
    [
        ("r.io", "r.io", True),
        ("r.io:5000", "r.io:5000", True),
        ("r.io", "r.io:5000", False),
        ("r.io:5000", "r.io", False),
        ("example.com", "example.com.evil", False),
        ("example.com", "sub.example.com", False),
        ("https://r.io/v2/", "r.io", True),
        ("https://r.io.evil/v2/", "r.io", False),
        (HUB, "docker.io", True),
        ("docker.io", "docker.io", True),
        ("https://index.docker.io.evil/v1/", "docker.io", False),
        (HUB, "r.io", False),
        ("https://[bad", "r.io", False),
    ],
)
def test_host_matches_exactly(tmp_path, key, host, found):
    """Port included; only Docker Hub has more than one name."""
    credentials = configured(tmp_path, {"auths": {key: auth("ann", "pw:with:colons")}})(host)

    assert (credentials is not None) is found
    if credentials is not None:
        assert (credentials.username, credentials.password) == ("ann", "pw:with:colons")


def test_identity_token(tmp_path):
    """Stored beside a user name or alone."""
    config = {"auths": {"r.io": {**auth("ann", ""), "identitytoken": "tok"}, "q.io": {"identitytoken": "t2"}}}
    lookup = configured(tmp_path, config)

    assert getattr(lookup("r.io"), "identity_token") == "tok"  # noqa: B009
    assert getattr(lookup("q.io"), "identity_token") == "t2"  # noqa: B009


@pytest.mark.parametrize("config", ["", "{}", '{"auths": []}', '{"auths": {"r.io": {}}}', '{"auths": {"r.io": 5}}'])
def test_odd_but_harmless_files(tmp_path, config):
    """Logged out, or written by other hands: no credentials, no error."""
    assert configured(tmp_path, config)("r.io") is None


@pytest.mark.parametrize("config", ["{", "[]", '{"auths": {"r.io": {"auth": "canary!"}}}', "[" * 100_000])
def test_broken_files_are_told_without_their_content(tmp_path, config):
    """The message says where, never what."""
    with pytest.raises(InputError) as caught:
        configured(tmp_path, config)("r.io")

    assert "config.json" in caught.value.where and "canary" not in caught.value.diagnostics()


def test_helper_is_asked_for_the_host(tmp_path):
    """`credHelpers` before `credsStore`; Docker Hub by its old name."""
    path = helper(tmp_path, "one", ANSWER)
    lookup = configured(tmp_path, {"credsStore": "one", "credHelpers": {"r.io": "one"}}, path)

    for host, name in (("r.io", "r.io"), ("q.io:1", "q.io:1"), ("docker.io", HUB)):
        credentials = lookup(host)
        assert credentials is not None and (credentials.username, credentials.password) == (name, "s3cret")


def test_helper_token_user(tmp_path):
    """User `<token>` means an identity token."""
    path = helper(tmp_path, "one", """print('{"Username": "<token>", "Secret": "id"}')""")

    credentials = configured(tmp_path, {"credsStore": "one"}, path)("r.io")

    assert credentials is not None and (credentials.identity_token, credentials.password) == ("id", "")


def test_helper_that_knows_nothing(tmp_path):
    """The protocol's own words for "none" are not an error."""
    path = helper(tmp_path, "one", "print('credentials not found in native keychain'); sys.exit(1)")

    assert configured(tmp_path, {"credsStore": "one"}, path)("r.io") is None


@pytest.mark.parametrize(
    "script",
    [
        "print('canary'); sys.exit(3)",
        "print('canary')",
        "print('[]')",
        'print(\'{"Username": "canary"}\')',
        'print(\'{"Username": 1, "Secret": 2}\')',
        "sys.stdout.write('canary' * 1000000); sys.stdout.flush(); time.sleep(100)",
        "time.sleep(100)",
        "os.fork() or time.sleep(100); sys.exit(3)",
        "os.kill(os.getpid(), 9)",
    ],
)
def test_bad_helpers_end_in_an_error(tmp_path, script):
    """Junk, hanging, flooding, failing: bounded, told, and nothing of its output is shown."""
    path = helper(tmp_path, "one", script)
    lookup = configured(tmp_path, {"credsStore": "one", "auths": {"r.io": auth("a", "b")}}, path, helper_timeout_s=1)

    with pytest.raises(InputError) as caught:
        lookup("r.io")

    assert caught.value.where == "docker-credential-one" and "canary" not in caught.value.diagnostics()


@pytest.mark.parametrize("name", ["absent", "../../bin/sh", "a/b", "", "x\n"])
def test_helper_names(tmp_path, name):
    """A name is a name, never a path; "" means none."""
    lookup = configured(tmp_path, {"credHelpers": {"r.io": name}}, str(tmp_path))
    if not name:
        assert lookup("r.io") is None
        return
    with pytest.raises(InputError, match="not found"):
        lookup("r.io")


def test_relative_search_path_is_not_used(tmp_path, monkeypatch):
    """A helper in the current directory (a checked-out context) is never run."""
    helper(tmp_path, "one", ANSWER)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(InputError, match="not found"):
        configured(tmp_path, {"credsStore": "one"}, os.pathsep.join((".", "")))("r.io")


def test_repr_shows_no_secret(tmp_path):
    """Credentials may end in a log as an object, never as text."""
    assert "pw" not in repr(configured(tmp_path, {"auths": {"r.io": auth("ann", "pw")}})("r.io"))
