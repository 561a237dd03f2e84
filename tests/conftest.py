"""Fixtures for every suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.azure import running_azurite
from support.command import Lamina
from support.gha import Service, running_gha
from support.registry import running_registry
from support.s3 import running_s3


@pytest.fixture
def lamina(tmp_path: Path) -> Lamina:
    """The command, with a store of its own."""
    return Lamina(tmp_path / "lamina-root")


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[str]:
    """A real S3 server, by URL, with one bucket."""
    folder = tmp_path / "s3"
    folder.mkdir()
    with running_s3(folder) as url:
        yield url


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[str]:
    """Azure's blob storage, by URL."""
    folder = tmp_path / "azure"
    folder.mkdir()
    with running_azurite(folder) as url:
        yield url


@pytest.fixture
def gha() -> Iterator[Service]:
    """GitHub's cache service."""
    with running_gha() as service:
        yield service


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A real registry, `127.0.0.1:port`."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with running_registry(folder) as address:
        yield address
