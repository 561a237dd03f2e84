"""Directories of clients: one build has each, and what nobody asks for goes."""

import os
from pathlib import Path

import pytest

from lamina.errors import StorageError
from lamina.remote import synced


def test_a_directory_that_a_build_has_is_given_to_no_other(tmp_path: Path):
    first, lock = synced.take(tmp_path, "k", "context")
    second, other = synced.take(tmp_path, "k", "context")
    os.close(lock)
    again, third = synced.take(tmp_path, "k", "context")

    assert first != second
    assert again == first
    os.close(other)
    os.close(third)


def test_what_nobody_asked_for_goes_and_what_a_build_has_stays(tmp_path: Path):
    old, lock = synced.take(tmp_path, "old", "context")
    (old / "f").write_text("x")
    os.close(lock)
    held, lock = synced.take(tmp_path, "held", "context")
    os.utime(old.parent, (1, 1))
    os.utime(held.parent, (1, 1))
    new, third = synced.take(tmp_path, "new", "context")
    os.close(third)

    assert synced.sweep(tmp_path) == 1
    assert (old.exists(), held.exists(), new.exists()) == (False, True, True)
    assert synced.sweep(tmp_path, 0.0) == 1
    os.close(lock)


def test_there_is_an_end_to_copies(tmp_path: Path):
    held = [synced.take(tmp_path, "k", "context")[1] for _ in range(64)]
    with pytest.raises(StorageError, match="64 builds"):
        synced.take(tmp_path, "k", "context")
    for lock in held:
        os.close(lock)


def test_nothing_to_sweep(tmp_path: Path):
    assert synced.sweep(tmp_path) == 0
