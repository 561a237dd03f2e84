"""`lamina cache mount`: what RUN --mount=type=cache keeps, outside of builds. L3."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from support.bases import busybox_context
from support.command import Lamina

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]


@pytest.fixture
def filled(lamina: Lamina, tmp_path: Path) -> Lamina:
    """A store with two cache mounts."""
    step = (
        "RUN --mount=type=cache,id=pip,target=/c --mount=type=cache,target=/d echo kept > /c/file; echo more > /d/x\n"
    )
    lamina.build(busybox_context(tmp_path, f"FROM base\n{step}"), "-t", "x")
    return lamina


def listed(lamina: Lamina) -> dict[str, int]:
    found = json.loads(lamina("cache", "mount", "ls", "--format=json").stdout)
    return {mount["id"].strip("/"): mount["bytes"] for mount in found}


def test_ls(filled: Lamina) -> None:
    """By id, with sizes."""
    assert listed(filled) == {"pip": 5, "d": 5}
    assert "/pip" in filled("cache", "mount", "ls").stdout


def test_export_and_import(filled: Lamina, tmp_path: Path) -> None:
    """A plain tar archive; what is read in is there for the next step."""
    archive = tmp_path / "pip.tar"
    filled("cache", "mount", "export", "pip", "-o", archive)
    with tarfile.open(archive) as read:
        content = read.extractfile("file")
        assert content is not None and content.read() == b"kept\n"
    other = Lamina(tmp_path / "other")
    other("cache", "mount", "import", "pip", "-i", archive)
    step = "FROM base\nRUN --mount=type=cache,id=pip,target=/c cat /c/file > /out\n"
    (tmp_path / "ctx").mkdir()
    out = tmp_path / "out"
    other.build(busybox_context(tmp_path / "ctx", step), "-o", f"type=local,dest={out}")

    assert (out / "out").read_text() == "kept\n"


def test_a_bad_archive_changes_nothing(filled: Lamina, tmp_path: Path) -> None:
    """What the mount had is still there."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("ok"))
    bad = tmp_path / "bad.tar"
    bad.write_bytes(data.getvalue()[:700])
    done = filled("cache", "mount", "import", "pip", "-i", bad, check=False)

    assert done.returncode != 0
    assert listed(filled) == {"pip": 5, "d": 5}


def test_rm(filled: Lamina) -> None:
    """By id; what is not there is an error that names what is."""
    filled("cache", "mount", "rm", "/d")
    done = filled("cache", "mount", "rm", "nobody", check=False)

    assert listed(filled) == {"pip": 5}
    assert done.returncode != 0 and "/pip" in done.stderr
