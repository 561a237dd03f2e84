"""What comes of a Dockerfile, compared with what a current BuildKit made of it: config, history, layers, files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from support.command import Lamina
from support.results import FOLDER, cases, make_context, read_image, read_tree

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]

EXPECTED = json.loads((FOLDER / "buildkit.json").read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lamina, Path]:
    """One store for all cases, so that the base is built once, and the context."""
    folder = tmp_path_factory.mktemp("results")
    (folder / "root").mkdir()
    return Lamina(folder / "root"), make_context(folder / "context")


def test_every_case_has_its_answer():
    assert list(EXPECTED) == list(cases())


@pytest.mark.parametrize("name", cases())
def test_as_buildkit_makes_it(place: tuple[Lamina, Path], tmp_path: Path, name: str):
    """A1 to A5"""

    lamina, context = place
    (context / "Dockerfile").write_text(cases()[name])

    lamina.build(context, "-o", f"type=oci,dest={tmp_path}/image.tar", "-o", f"type=tar,dest={tmp_path}/files.tar")

    found = read_image((tmp_path / "image.tar").read_bytes())
    found["tree"] = read_tree((tmp_path / "files.tar").read_bytes())
    assert found == EXPECTED[name]
