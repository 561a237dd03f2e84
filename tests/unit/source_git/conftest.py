"""A server with one repository, and a git source without a build around it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.git_place import Place
from support.git_server import Repository, Served, running_git_server


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "place")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """`main` with a file, a program, a link and a directory; served as `/r/.git`."""
    made = Repository(tmp_path / "served" / "r")
    made.write({"run.sh": "#!/bin/sh\n"})
    (made.folder / "run.sh").chmod(0o755)
    (made.folder / "link").symlink_to("sub/file")
    made.commit({"file": "one\n", "sub/file": "below\n"}, "first")
    return made


@pytest.fixture
def server(tmp_path: Path, repository: Repository) -> Iterator[Served]:
    with running_git_server(tmp_path / "served") as served:
        yield served
