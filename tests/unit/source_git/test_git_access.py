"""Who is let in: secrets for http, agents for ssh; and where they never go."""

from __future__ import annotations

import base64
import os
from dataclasses import replace
from pathlib import Path

import pytest

from lamina.cancel import Cancel
from lamina.engine.library import PlainSession
from lamina.errors import Error, InputError, NetworkError
from lamina.git_url import read_remote
from lamina.source.git_access import access_for
from lamina.source.git_spec import GitSpec
from support.git_place import spec
from support.git_server import Repository, running_git_server

TOKEN = "canary-7d1f3c"
BASIC = "basic " + base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()


def test_without_a_secret_the_door_stays_shut(place, repository, server):
    """A4.13: 401 becomes a sentence that says what to give; nobody is asked for a password."""
    server.authorization = BASIC

    with pytest.raises(NetworkError, match="may not read") as caught:
        place.get(spec(server))

    assert "GIT_AUTH_TOKEN" in caught.value.hint


@pytest.mark.parametrize(
    ("secret", "value", "header"),
    [
        ("GIT_AUTH_TOKEN", TOKEN, BASIC),
        ("GIT_AUTH_TOKEN", TOKEN + "\n", BASIC),
        ("GIT_AUTH_TOKEN.HOST", TOKEN, BASIC),
        ("GIT_AUTH_HEADER", f"Bearer {TOKEN}", f"Bearer {TOKEN}"),
        ("GIT_AUTH_HEADER.HOST", f"Bearer {TOKEN}", f"Bearer {TOKEN}"),
    ],
)
def test_secrets_open_it(place, repository, server, secret, value, header):
    """A4.13: token or whole header, for one host or any; nothing of it is left on disk or in a log."""
    server.authorization = header

    out = place.get(spec(server, keepgitdir="true"), secrets={secret.replace("HOST", server.host): value.encode()})

    assert (out / "file").read_text() == "one\n"
    assert_nowhere(place.folder)
    assert TOKEN.encode() not in b"".join(place.lines)


def test_the_secret_of_the_host_goes_first(place, repository, server):
    server.authorization = BASIC
    secrets = {"GIT_AUTH_HEADER": b"Bearer wrong", f"GIT_AUTH_TOKEN.{server.host}": TOKEN.encode()}

    place.get(spec(server), secrets=secrets)


def test_user_and_password_of_the_url(place, repository, server):
    """A4.13: they are sent as a header too, so that no command line or kept configuration has them."""
    server.authorization = "basic " + base64.b64encode(f"me:{TOKEN}".encode()).decode()
    asked = spec(server, keepgitdir="true")

    out = place.get(replace(asked, remote=replace(asked.remote, user="me", password=TOKEN)))

    assert (out / "file").exists()
    assert_nowhere(place.folder)


def test_a_refused_secret_is_not_shown(place, repository, server):
    server.authorization = "basic other"

    with pytest.raises(Error) as caught:
        place.get(spec(server), secrets={"GIT_AUTH_TOKEN": TOKEN.encode()})

    assert TOKEN not in caught.value.diagnostics() and BASIC[6:] not in caught.value.diagnostics()


@pytest.mark.parametrize("value", [b"", b"two\nlines", b"a\r\nX-Evil: 1", b"\x00", b"a" * 100_000])
def test_a_secret_that_is_no_header(place, repository, server, value):
    with pytest.raises(InputError, match="GIT_AUTH_TOKEN"):
        place.get(spec(server), secrets={"GIT_AUTH_TOKEN": value})

    assert server.requests == []


def test_a_redirect_takes_no_secret_along(place, repository, server, tmp_path):
    """B6, A4.13: another host never sees the header; without a secret redirects are followed."""
    (tmp_path / "elsewhere").mkdir()
    with running_git_server(tmp_path / "elsewhere") as first:
        first.redirects["/r/"] = f"{server.url}/r/"

        with pytest.raises(NetworkError, match="redirects"):
            place.get(spec(first), secrets={"GIT_AUTH_TOKEN": TOKEN.encode()})
        assert server.requests == [] and first.requests[0][2] == BASIC

        assert (place.get(spec(first)) / "file").read_text() == "one\n"
        assert all(header == "" for _, _, header in server.requests)


def test_submodules_elsewhere_get_no_secret(place, repository, server, tmp_path):
    """A4.13: a secret without a host is the remote's own; one with a host is that host's."""
    outer = Repository(tmp_path / "other" / "outer")
    outer.git("submodule", "-q", "add", f"{server.url}/r/.git", "lib")
    outer.commit({})
    server.requests.clear()
    with running_git_server(tmp_path / "other") as own:
        own.authorization = BASIC
        place.get(spec(own, "", "outer"), secrets={"GIT_AUTH_TOKEN": TOKEN.encode()})
        assert server.requests and all(header == "" for _, _, header in server.requests)

        (place.folder / "git").rename(place.folder / "old")
        server.authorization = "Bearer sub"
        own_id, sub_id = f"GIT_AUTH_TOKEN.{own.host}", f"GIT_AUTH_HEADER.{server.host}"
        place.get(spec(own, "", "outer"), secrets={own_id: TOKEN.encode(), sub_id: b"Bearer sub"})


def test_github_is_one_remote(tmp_path):
    """A4.13: one token serves all of github.com, as BuildKit has it, and no other host nor plain http."""
    session = PlainSession({}, {"T": TOKEN.encode()}, {}, {})
    asked = GitSpec(read_remote("https://github.com/o/r.git"), token_secret="T")

    def settings(url: str) -> tuple[tuple[str, str], ...]:
        return access_for(read_remote(url), asked, session, known_hosts=tmp_path / "k", scratch=tmp_path).settings

    assert ("http.https://github.com/o/two.git.extraHeader", f"Authorization: {BASIC}") in settings(
        "https://github.com/o/two.git"
    )
    for url in (
        "https://gitlab.com/o/r.git",
        "http://github.com/o/r.git",
        "git://github.com/o/r",
        "https://github.com.evil/r",
    ):
        assert settings(url) == ()


# -- ssh: git runs `ssh` from PATH; a script in its place notes what it is told


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `ssh` that writes arguments, environment and host keys down, then runs the command here."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "ssh"
    script.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/arguments\nenv > {folder}/environment\n'
        'for a in "$@"; do case "$a" in UserKnownHostsFile=*) f=${a#*=}; f=${f#\\"}; f=${f%\\"};; esac; last=$a; done\n'
        f'cat "$f" > {folder}/known 2>/dev/null\n'
        f'export GIT_CONFIG_NOSYSTEM=1; unset GIT_DIR\ncd {tmp_path}/served && eval "$last"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def ssh_spec(**more: str) -> GitSpec:
    return GitSpec(read_remote("git@example.com:r/.git"), **more)


def test_ssh_with_an_agent_and_known_hosts(place, repository, fake_ssh, tmp_path):
    """A4.13: the offered agent, the graph's host keys, and none of the user's own files."""
    source = place.source(ssh={"default": tmp_path / "agent.sock"})
    asked = ssh_spec(ssh_id="default", known_hosts="example.com ssh-ed25519 AAAA")

    assert source.resolve(asked, Cancel()).ref == "refs/heads/main"

    arguments = (fake_ssh / "arguments").read_text().split("\n")
    assert arguments[:2] == ["-F", "/dev/null"] and "StrictHostKeyChecking=yes" in arguments
    assert "IdentityFile=none" in arguments and "BatchMode=yes" in arguments and "git@example.com" in arguments
    assert f"SSH_AUTH_SOCK={tmp_path}/agent.sock\n" in (fake_ssh / "environment").read_text()
    assert (fake_ssh / "known").read_text() == "example.com ssh-ed25519 AAAA\n"


def test_ssh_host_keys_are_remembered(place, repository, fake_ssh):
    """B6: without keys in the graph the first key seen counts from then on."""
    place.source().resolve(ssh_spec(), Cancel())

    arguments = (fake_ssh / "arguments").read_text()
    assert "StrictHostKeyChecking=accept-new" in arguments
    assert f'UserKnownHostsFile="{place.folder}/git/known_hosts"' in arguments
    assert "SSH_AUTH_SOCK" not in (fake_ssh / "environment").read_text()


def test_an_agent_that_was_not_offered(place):
    with pytest.raises(InputError, match="was not given") as caught:
        place.source().resolve(ssh_spec(ssh_id="mine"), Cancel())

    assert "--ssh mine" in caught.value.hint


def assert_nowhere(folder: Path) -> None:
    """No file below `folder` has the token, plain or encoded."""
    encoded = BASIC.removeprefix("basic ").encode()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            assert TOKEN.encode() not in data and encoded not in data, path
