"""The user's side of a build offers what was named, and only that."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.cli.session import MAX_SECRET, LocalSession
from lamina.errors import InputError
from lamina.session import Credentials, Session


def session(**secrets: tuple[str, str]) -> Session:
    return LocalSession({"context": "/ctx", "none": ""}, secrets, {"default": "/agent"}, {"TOKEN": "abc"}, _credentials)


def _credentials(host: str) -> Credentials | None:
    return Credentials("u", "p") if host == "known:5000" else None


def test_secrets_are_read_when_asked_for(tmp_path: Path):
    offered = session(file=("file", str(tmp_path / "s")), env=("env", "TOKEN"))
    (tmp_path / "s").write_bytes(b"\xffvalue")
    assert (offered.secret("file"), offered.secret("env"), offered.secret("other")) == (b"\xffvalue", b"abc", None)


def test_a_secret_has_a_cap(tmp_path: Path):
    (tmp_path / "s").write_bytes(b"x" * MAX_SECRET)
    assert len(session(s=("file", str(tmp_path / "s"))).secret("s") or b"") == MAX_SECRET
    (tmp_path / "s").write_bytes(b"x" * (MAX_SECRET + 1))
    with pytest.raises(InputError, match="500 KiB"):
        session(s=("file", str(tmp_path / "s"))).secret("s")


def test_a_secret_that_vanished_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="'s' cannot be read"):
        session(s=("file", str(tmp_path / "gone"))).secret("s")


def test_directories_agents_and_credentials():
    offered = session()
    assert (offered.context_dir("context"), offered.context_dir("none")) == (Path("/ctx"), None)
    assert (offered.ssh_socket("default"), offered.ssh_socket("x")) == (Path("/agent"), None)
    assert offered.credentials("known:5000") is not None and offered.credentials("known") is None
