"""Other tools take what we export, and we take what they save."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from compat.dockerd import Docker, dockerd  # noqa: F401 - the fixture
from lamina.exporter.export import export
from lamina.exporter.outputs import parse_output
from lamina.exporter.save import save_images
from lamina.store import Store
from unit.exporter.support import NAME, make_result, surroundings

pytestmark = pytest.mark.compat
needs_skopeo = pytest.mark.skipif(not shutil.which("skopeo"), reason="needs skopeo")
needs_umoci = pytest.mark.skipif(not shutil.which("umoci"), reason="needs umoci")


def run(*args: str) -> bytes:
    done = subprocess.run(args, check=False, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "oci", durable=False)


@needs_skopeo
@pytest.mark.parametrize(
    ("output", "source"),
    [
        ("type=oci,dest=x.tar", "oci-archive:{}/x.tar:1"),
        ("type=oci,dest=x,tar=false", "oci:{}/x:1"),
        ("type=docker,dest=x.tar", "docker-archive:{}/x.tar:app:1"),
        ("type=docker,dest=x.tar,oci-mediatypes=true", "oci-archive:{}/x.tar:1"),
    ],
)
def test_skopeo_reads_what_we_export(store: Store, tmp_path: Path, output: str, source: str) -> None:
    outcome = export(make_result(store), parse_output(output), surroundings(tmp_path))

    config = json.loads(run("skopeo", "inspect", "--config", source.format(tmp_path)))
    run("skopeo", "--insecure-policy", "copy", source.format(tmp_path), f"oci:{tmp_path}/copy:1")

    assert outcome.image_id is not None
    assert config["config"]["Cmd"] == ["/bin/hello"]


@needs_umoci
def test_umoci_unpacks_our_layout(store: Store, tmp_path: Path) -> None:
    export(make_result(store), parse_output("type=oci,dest=x,tar=false"), surroundings(tmp_path))

    run("umoci", "unpack", "--rootless", "--image", f"{tmp_path}/x:1", str(tmp_path / "bundle"))

    assert (tmp_path / "bundle/rootfs/bin/hello").exists()


def test_docker_loads_and_keeps_the_image_id(dockerd: Docker, store: Store, tmp_path: Path) -> None:  # noqa: F811
    """Layers are compressed and uncompressed: docker takes both."""
    outcome = export(make_result(store), parse_output("type=docker,dest=x.tar"), surroundings(tmp_path))

    assert "app:1" in dockerd.run("load", "-i", str(tmp_path / "x.tar"))
    (found,) = json.loads(dockerd.run("image", "inspect", "app:1"))

    assert found["Id"] == str(outcome.image_id)
    assert found["Config"]["Cmd"] == ["/bin/hello"]
    assert len(found["RootFS"]["Layers"]) == 2


def test_docker_loads_from_a_stream_without_a_name(dockerd: Docker, store: Store, tmp_path: Path) -> None:  # noqa: F811
    with (tmp_path / "out").open("wb") as out:
        outcome = export(
            make_result(store, "arm64", names=()), parse_output("type=docker"), surroundings(tmp_path, stdout=out)
        )

    said = dockerd.run("load", data=(tmp_path / "out").read_bytes())

    assert str(outcome.image_id) in said


def test_docker_loads_several_saved_images(dockerd: Docker, store: Store, tmp_path: Path) -> None:  # noqa: F811
    for name, architecture in (("one:1", "amd64"), ("two:2", "386")):
        result = make_result(store, architecture, names=(f"docker.io/library/{name}",))
        export(result, parse_output("type=image"), surroundings(tmp_path))
    images = [(image.descriptor, (image.name,)) for image in store.images()]

    save_images(store, images, "x.tar", surroundings(tmp_path))
    said = dockerd.run("load", "-i", str(tmp_path / "x.tar"))

    assert "one:1" in said
    assert "two:2" in said


@needs_skopeo
def test_skopeo_reads_a_saved_archive_of_several(store: Store, tmp_path: Path) -> None:
    for name, architecture in (("one:1", "amd64"), ("two:2", "386")):
        result = make_result(store, architecture, names=(f"docker.io/library/{name}",))
        export(result, parse_output("type=image"), surroundings(tmp_path))
    images = [(image.descriptor, (image.name,)) for image in store.images()]

    save_images(store, images, "x.tar", surroundings(tmp_path), archive="oci")

    with tarfile.open(tmp_path / "x.tar") as tar:
        assert len([m for m in tar if m.isfile() and m.name.startswith("blobs/")]) == 2 + 2 + 2 + 1
    for tag in ("1", "2"):
        run("skopeo", "inspect", f"oci-archive:{tmp_path}/x.tar:{tag}")
    assert NAME not in {image.name for image in store.images()}
