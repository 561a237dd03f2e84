"""Other tools read our store where it lies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lamina.image.assemble import make_index, write_image, write_index
from lamina.image.view import load_image
from lamina.store import Store
from unit.exporter.support import make_image

pytestmark = pytest.mark.compat
NAME = "docker.io/library/app:1"
needs_skopeo = pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo")
needs_umoci = pytest.mark.skipif(not shutil.which("umoci"), reason="needs umoci")


def run(*args: str) -> bytes:
    done = subprocess.run(args, check=False, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "oci")
    store.tag(NAME, write_image(store, make_image(store)))
    other = [make_image(store, architecture=name) for name in ("amd64", "arm64")]
    for image in other:
        write_image(store, image)
    store.tag("reg.example/multi/arch:2", write_index(store, make_index(other)))
    return store


@needs_skopeo
@pytest.mark.parametrize("name", [NAME, "reg.example/multi/arch:2"])
def test_skopeo_inspects_the_store_in_place(store: Store, name: str) -> None:
    found = json.loads(run("skopeo", "--override-arch=amd64", "inspect", f"oci:{store.root}:{name}"))

    assert len(found["Layers"]) == 2
    assert found["Env"] == ["PATH=/bin"]


@needs_skopeo
@pytest.mark.parametrize("form", ["oci:{}/copy:x", "oci-archive:{}/copy.tar:x", "docker-archive:{}/copy.tar:a/x:1"])
def test_skopeo_copies_from_the_store(store: Store, tmp_path: Path, form: str) -> None:
    run("skopeo", "--insecure-policy", "copy", f"oci:{store.root}:{NAME}", form.format(tmp_path))


@needs_skopeo
def test_what_skopeo_copies_into_a_store_is_an_image(store: Store, tmp_path: Path) -> None:
    """Its changes to index.json and ours live side by side."""
    target = Store(tmp_path / "target")
    run("skopeo", "--insecure-policy", "copy", f"oci:{store.root}:{NAME}", f"oci:{target.root}:docker.io/library/b:2")
    target.tag("docker.io/library/c:3", target.resolve("b:2"))

    assert target.check(full=True) == []
    assert load_image(target, target.resolve("c:3")).id == load_image(store, store.resolve("app:1")).id


@needs_umoci
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to own the files")
def test_umoci_unpacks_from_the_store(store: Store, tmp_path: Path) -> None:
    run("umoci", "unpack", "--image", f"{store.root}:{NAME}", str(tmp_path / "bundle"))

    assert (tmp_path / "bundle/rootfs/bin/hello").read_text().endswith("echo hello\n")
    assert (tmp_path / "bundle/rootfs/etc/app").stat().st_size == 50_000


@needs_umoci
def test_umoci_lists_the_names(store: Store) -> None:
    assert NAME in run("umoci", "list", "--layout", str(store.root)).decode().splitlines()
