"""L14: the key of secrets' fingerprints is random, private, and the same for all who ask."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lamina.engine.counted_secrets import ABSENT, CountedSecrets
from lamina.engine.library import PlainSession
from lamina.errors import InputError, StorageError
from lamina.state.secret_key import FILE, LENGTH, own_key, shared_key


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path):
    key = own_key(tmp_path)

    assert len(key) == LENGTH
    assert own_key(tmp_path) == key == (tmp_path / FILE).read_bytes()
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [FILE]


def test_two_stores_have_two_keys(tmp_path: Path):
    for name in "ab":
        (tmp_path / name).mkdir()
    assert own_key(tmp_path / "a") != own_key(tmp_path / "b")


def test_who_races_for_it_gets_the_same(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: own_key(tmp_path), range(32)))) == 1


def test_a_key_that_others_could_read_is_closed(tmp_path: Path):
    own_key(tmp_path)
    (tmp_path / FILE).chmod(0o644)
    own_key(tmp_path)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("data", [b"", b"x" * (LENGTH - 1), b"x" * (LENGTH + 1)])
def test_a_damaged_key_is_told_and_not_used(tmp_path: Path, data: bytes):
    (tmp_path / FILE).write_bytes(data)
    with pytest.raises(StorageError, match="damaged"):
        own_key(tmp_path)


@pytest.mark.parametrize("data", [b"", b"secret\n", b" " * 100, b"x" * (65 << 10)])
def test_a_key_file_that_could_be_guessed_is_refused(tmp_path: Path, data: bytes):
    (tmp_path / "key").write_bytes(data)
    with pytest.raises(InputError, match="32 bytes or more"):
        shared_key(str(tmp_path / "key"))


def test_a_key_file_must_be_a_file(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        shared_key(str(tmp_path / "gone"))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InputError, match="not a regular file"):
        shared_key(str(tmp_path / "fifo"))


def counted(root: Path, key_file: str = "", **secrets: bytes) -> CountedSecrets:
    return CountedSecrets(PlainSession({}, secrets, {}, {}), ["a", "b", "gone"], root, key_file)


def test_a_fingerprint_stands_for_the_id_and_the_value(tmp_path: Path):
    """L14: neither another value nor another id has it; who does not count has none."""
    session = counted(tmp_path, a=b"1", b=b"1", c=b"1")

    assert session.version("c") == ""
    assert session.version("gone") == ABSENT
    versions = {session.version("a"), session.version("b"), counted(tmp_path, a=b"2").version("a")}
    assert len(versions) == 3
    assert counted(tmp_path, a=b"1").version("a") == session.version("a")


def test_machines_with_one_key_file_have_the_same_fingerprints(tmp_path: Path):
    """L14: stores of their own have not, whatever the secret."""
    for name in "xy":
        (tmp_path / name).mkdir()
    (tmp_path / "key").write_text("0123456789abcdef" * 4)

    shared = {counted(tmp_path / name, str(tmp_path / "key"), a=b"1").version("a") for name in "xy"}
    own = {counted(tmp_path / name, a=b"1").version("a") for name in "xy"}
    assert (len(shared), len(own), len(shared | own)) == (1, 2, 3)


def test_a_step_gets_the_value_that_its_key_counted(tmp_path: Path):
    secrets = {"a": b"1", "other": b"1"}
    session = CountedSecrets(PlainSession({}, secrets, {}, {}), ["a"], tmp_path)
    session.version("a")
    secrets.update(a=b"2", other=b"2")

    assert (session.secret("a"), session.secret("other")) == (b"1", b"2")
