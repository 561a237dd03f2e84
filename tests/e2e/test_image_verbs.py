"""pull, push, save and load with real registries and other tools' archives; no image is run."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from support.command import Lamina

pytestmark = pytest.mark.e2e


def tool(*words: str | Path) -> str:
    """Run another tool and return what it printed; skip the test where it is missing."""
    if shutil.which(str(words[0])) is None:
        pytest.skip(f"no {words[0]} here")
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def skopeo(*words: str | Path) -> str:
    return tool("skopeo", "--insecure-policy", *words)


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """An OCI layout that umoci made: one image, two layers, no name."""
    folder, content = tmp_path / "layout", tmp_path / "content"
    (content / "etc").mkdir(parents=True)
    (content / "etc" / "file").write_text("some content\n")
    (content / "more").write_text("x" * 100_000)
    tool("umoci", "init", "--layout", folder)
    tool("umoci", "new", "--image", f"{folder}:one")
    for name in ("etc", "more"):
        tool("umoci", "insert", "--rootless", "--image", f"{folder}:one", content / name, f"/{name}")
    return folder


def image_id(lamina: Lamina, name: str) -> str:
    (found,) = json.loads(lamina("inspect", name).stdout)
    return str(found["Id"])


def test_another_tools_layout_is_loaded_as_it_is(lamina: Lamina, layout: Path):
    lamina("load", "-q", "-i", layout, "-t", "app")

    theirs = json.loads(skopeo("inspect", "--config", f"oci:{layout}:one"))
    (ours,) = json.loads(lamina("inspect", "app").stdout)
    assert ours["RootFS"]["Layers"] == theirs["rootfs"]["diff_ids"]
    assert lamina("store", "check").stdout == "the store is sound\n"


def test_a_registry_takes_what_is_pushed_and_gives_it_back(lamina: Lamina, layout: Path, registry: str, tmp_path: Path):
    name = f"{registry}/team/app:1"
    lamina("load", "-q", "-i", layout, "-t", name)
    pushed = lamina("push", "-q", name).stdout.strip()

    other = Lamina(tmp_path / "other-root")
    pulled = other("pull", "-q", name).stdout.strip()

    assert pushed == pulled == f"{name}@{json.loads(other('images', '--format=json').stdout)[0]['digest']}"
    assert image_id(other, name) == image_id(lamina, name)
    assert skopeo("inspect", "--tls-verify=false", "--format={{.Digest}}", f"docker://{name}").strip() in pulled
    assert other("store", "check").stdout == "the store is sound\n"


def test_pushing_under_another_name(lamina: Lamina, layout: Path, registry: str):
    lamina("load", "-q", "-i", layout, "-t", "app")
    lamina("push", "-q", "app", f"{registry}/renamed:2")
    assert json.loads(skopeo("list-tags", "--tls-verify=false", f"docker://{registry}/renamed"))["Tags"] == ["2"]


@pytest.mark.parametrize("kind", ["docker", "oci"])
def test_an_archive_is_read_by_skopeo_and_by_us(kind: str, lamina: Lamina, layout: Path, tmp_path: Path):
    lamina("load", "-q", "-i", layout, "-t", "app:3")
    lamina("save", "-q", "--format", kind, "-o", tmp_path / "app.tar", "app:3")

    config = json.loads(skopeo("inspect", "--config", f"{kind}-archive:{tmp_path / 'app.tar'}"))
    assert len(config["rootfs"]["diff_ids"]) == 2

    other = Lamina(tmp_path / "other-root")
    assert other("load", "-q", "-i", tmp_path / "app.tar").stdout == "loaded: app:3\n"
    assert image_id(other, "app:3") == image_id(lamina, "app:3")


def test_an_archive_of_skopeo_is_loaded_from_standard_input(lamina: Lamina, layout: Path, tmp_path: Path):
    skopeo("copy", "-q", f"oci:{layout}:one", f"docker-archive:{tmp_path / 'a.tar'}:docker.io/library/app:4")
    with open(tmp_path / "a.tar", "rb") as archive:
        assert lamina("load", "-q", stdin=archive).stdout == "loaded: app:4\n"
    assert len(json.loads(lamina("history", "--format=json", "app:4").stdout)) >= 2


def test_a_registry_that_is_down_is_named(lamina: Lamina):
    done = lamina("pull", "-q", "127.0.0.1:1/app", check=False)
    assert done.returncode == 4
    assert "127.0.0.1:1" in done.stderr and "Traceback" not in done.stderr
