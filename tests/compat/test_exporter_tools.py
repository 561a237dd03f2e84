"""Other tools take what we export, and we take what they save."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from compat.dockerd import Docker, dockerd  # noqa: F401 - the fixture
from lamina.cancel import Cancel
from lamina.exporter.archive_in import load_archive
from lamina.exporter.export import export
from lamina.exporter.outputs import parse_output
from lamina.exporter.save import save_images
from lamina.image.view import load_image
from lamina.oci.reference import Reference
from lamina.registry.client import Registry
from lamina.registry.options import RegistryOptions
from lamina.store import Store, StoredImage
from support.registry import running_registry
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


def test_a_push_is_pulled_by_docker_and_skopeo(dockerd: Docker, store: Store, tmp_path: Path) -> None:  # noqa: F811
    """Two repositories of a real registry; the second takes its blobs from the first."""
    with running_registry(tmp_path) as host:
        names = (f"{host}/team/app:1", f"{host}/other:2")
        options = RegistryOptions(plain_http=frozenset({host}))
        with Registry(options, lambda _host: None, Cancel()) as registry:
            outcome = export(
                make_result(store, names=names),
                parse_output("type=registry"),
                surroundings(tmp_path, pusher=lambda _insecure: registry),
            )
            assert registry.resolve(Reference.parse(names[1])).digest == outcome.descriptor.digest

        dockerd.run("pull", names[0])
        (found,) = json.loads(dockerd.run("image", "inspect", names[0]))
        assert found["Id"] == str(outcome.image_id)
        assert found["RepoDigests"] == [f"{host}/team/app@{outcome.descriptor.digest}"]


def test_an_index_is_pulled_for_its_platform(store: Store, tmp_path: Path) -> None:
    if not shutil.which("skopeo"):
        pytest.skip("needs skopeo")
    with running_registry(tmp_path) as host:
        options = RegistryOptions(plain_http=frozenset({host}))
        with Registry(options, lambda _host: None, Cancel()) as registry:
            export(
                make_result(store, "amd64", "arm64", names=(f"{host}/multi:1",)),
                parse_output("type=registry"),
                surroundings(tmp_path, pusher=lambda _insecure: registry),
            )

        for architecture in ("amd64", "arm64"):
            found = json.loads(
                run(
                    "skopeo", f"--override-arch={architecture}", "inspect", "--config", "--tls-verify=false",
                    f"docker://{host}/multi:1",
                )
            )  # fmt: skip
            assert found["architecture"] == architecture


def load(store: Store, path: Path, **options: str) -> list[StoredImage]:
    with path.open("rb") as file:
        return load_archive(store, file.read, cancel=Cancel(), where=str(path), **options)


def test_what_docker_saves_is_loaded(dockerd: Docker, store: Store, tmp_path: Path) -> None:  # noqa: F811
    """Docker's image ID survives the way through us, and the way back."""
    export(make_result(store), parse_output("type=docker,dest=x.tar"), surroundings(tmp_path))
    dockerd.run("load", "-i", str(tmp_path / "x.tar"))
    dockerd.run("tag", "app:1", "team/second:2")
    dockerd.run("save", "-o", str(tmp_path / "saved.tar"), "app:1", "team/second:2")
    target = Store(tmp_path / "target")

    loaded = load(target, tmp_path / "saved.tar")

    assert {image.name for image in loaded} == {NAME, "docker.io/team/second:2"}
    (found,) = json.loads(dockerd.run("image", "inspect", "app:1"))
    assert str(load_image(target, loaded[0].descriptor).id) == found["Id"]
    assert target.check(full=True) == []


@needs_skopeo
@pytest.mark.parametrize("form", ["oci-archive:{}/copy.tar:x", "docker-archive:{}/copy.tar:a/x:1"])
def test_what_skopeo_writes_is_loaded(store: Store, tmp_path: Path, form: str) -> None:
    outcome = export(make_result(store), parse_output("type=oci,dest=x,tar=false"), surroundings(tmp_path))
    run("skopeo", "--insecure-policy", "copy", f"oci:{tmp_path}/x:1", form.format(tmp_path))
    target = Store(tmp_path / "target")

    (image,) = load(target, tmp_path / "copy.tar", name="given")

    assert image.name == ("docker.io/a/x:1" if "a/x" in form else "docker.io/library/given:latest")
    assert load_image(target, image.descriptor).id == outcome.image_id
    assert target.check(full=True) == []
