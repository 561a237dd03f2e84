"""Fixtures for every suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command import Lamina
from support.registry import running_registry


@pytest.fixture
def lamina(tmp_path: Path) -> Lamina:
    """The command, with a store of its own."""
    return Lamina(tmp_path / "lamina-root")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A real registry, `127.0.0.1:port`."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with running_registry(folder) as address:
        yield address
