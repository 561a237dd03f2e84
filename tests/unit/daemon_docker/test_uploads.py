"""Contexts and credentials that come with requests."""

from __future__ import annotations

import base64
import io
import json
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from lamina.cancel import Cancel
from lamina.daemon.docker.exchange import Exchange, GoneError
from lamina.daemon.docker.uploads import Unpacked, Uploads, credentials, credentials_of
from lamina.errors import CancelledError, InputError, NetworkError
from lamina.session import Credentials
from unit.exporter.support import tar_of

PATIENCE_S = 60


class Given:
    """An exchange whose body is at hand."""

    def __init__(self, data: bytes, *, breaks: bool = False) -> None:
        self._file, self._breaks = io.BytesIO(data), breaks

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        if not data and self._breaks:
            raise GoneError("gone")
        return data


def given(data: bytes, **options: Any) -> Exchange:
    return cast(Exchange, Given(data, **options))


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


def test_an_archive_lies_there_for_as_long_as_it_is_wanted(tmp_path: Path):
    with Uploads().unpacked(given(tar_of({"a": b"1", "d/b": b"2"})), tmp_path) as directory:
        assert (directory / "d" / "b").read_bytes() == b"2"

    assert list((tmp_path / "work").iterdir()) == []


def test_an_archive_may_lack_the_end_of_its_last_block(tmp_path: Path):
    """Docker's client ends archives so into which it puts a Dockerfile; HTTP tells whether all of it came."""
    whole = tar_of({"a": b"12345"})
    with Uploads().unpacked(given(whole[: 512 + 5]), tmp_path) as directory:
        assert (directory / "a").read_bytes() == b"12345"


@pytest.mark.parametrize("data", [b"no archive", b"\x1f\x8b broken"])
def test_what_is_no_archive_leaves_nothing(tmp_path: Path, data: bytes):
    with pytest.raises(InputError), Uploads().unpacked(given(data), tmp_path):
        pass

    assert list((tmp_path / "work").iterdir()) == []


def test_who_goes_in_the_middle_of_an_archive_is_told_of_as_such(tmp_path: Path):
    archive = tar_of({"a": b"1" * 100_000})[:20_000]
    with pytest.raises(NetworkError), Uploads().unpacked(given(archive, breaks=True), tmp_path):
        pass


@pytest.mark.parametrize("first", ["build", "upload"])
def test_build_and_context_find_each_other_in_any_order(tmp_path: Path, first: str):
    uploads = Uploads()
    found: list[bytes] = []

    def build() -> None:
        with uploads.taken("id", tmp_path, Cancel()) as directory:
            found.append((directory / "a").read_bytes())

    def bring() -> None:
        uploads.bring("id", given(tar_of({"a": b"1"})))

    threads = [threading.Thread(target=work) for work in ((build, bring) if first == "build" else (bring, build))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert found == [b"1"]


def test_who_brings_a_broken_context_is_let_go(tmp_path: Path):
    uploads = Uploads()
    bringing = threading.Thread(target=lambda: uploads.bring("id", given(b"no archive")))
    bringing.start()
    with pytest.raises(InputError), uploads.taken("id", tmp_path, Cancel()):
        pass
    bringing.join(PATIENCE_S)

    assert not bringing.is_alive()


def test_a_cancelled_build_waits_for_no_context(tmp_path: Path):
    cancel = Cancel()
    cancel.cancel()
    with pytest.raises(CancelledError), Uploads().taken("id", tmp_path, cancel):
        pass


class Nothing:
    """A session that has credentials for one registry and offers nothing else."""

    def context_dir(self, name: str, attrs: object = None) -> Path | None:
        return Path("/session") / name

    def secret(self, secret_id: str) -> bytes | None:
        return None

    def ssh_socket(self, ssh_id: str) -> Path | None:
        return None

    def credentials(self, host: str) -> Credentials | None:
        return Credentials("session", "x") if host == "other:5000" else None


def test_an_unpacked_context_hides_the_sessions():
    side = Unpacked(Nothing(), Path("/here"), {})

    assert side.context_dir("context") == side.context_dir("dockerfile") == Path("/here")
    assert side.context_dir("named") == Path("/session/named")
    assert Unpacked(Nothing(), None, {}).context_dir("context") == Path("/session/context")


@pytest.mark.parametrize(
    ("host", "user"),
    [
        ("docker.io", "hub"),
        ("registry-1.docker.io", "hub"),
        ("host:5000", "mine"),
        ("other:5000", "session"),
        ("host", None),
        ("host:5001", None),
    ],
)
def test_credentials_are_for_the_registry_they_name(host: str, user: str | None):
    header = encoded(
        {
            "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
            "host:5000": {"auth": base64.b64encode(b"mine:p").decode()},
        }
    )
    found = Unpacked(Nothing(), None, credentials_of(header)).credentials(host)

    assert (found.username if found else None) == user


def test_a_token_counts_more_than_a_name():
    assert credentials({"username": "u", "password": "p", "identitytoken": "t"}) == Credentials(identity_token="t")


@pytest.mark.parametrize(
    "header",
    ["", "not base64!", encoded([1]), encoded("x"), encoded({"a": 1}), encoded({"a": {"username": 1}}), "e30", "[[["],
)
def test_headers_that_are_not_understood_hold_nothing(header: str):
    assert credentials_of(header) == {}
