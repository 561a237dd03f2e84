"""E6: what docker's daemon and ours tell of the same images, through the same client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat.dockerd import CLIENT, Docker, dockerd  # noqa: F401 - the fixture
from lamina.cancel import Cancel
from lamina.exporter.protocol import Surroundings
from lamina.exporter.save import save_images
from lamina.store import Store
from support.docker_cli import DockerClient, running_docker_daemon
from unit.daemon_docker.support import Shelf

pytestmark = pytest.mark.compat
APP, HOSTED = "docker.io/library/app:latest", "host:5000/team/app:1"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of two images, one with two names."""
    folder = tmp_path_factory.mktemp("archive")
    shelf = Shelf(folder)
    shelf.add(APP, HOSTED, labels={"a": "b"})
    shelf.add("docker.io/library/other:2", created="2020-05-06T07:08:09.5Z", text=b"other")
    images = [(image.descriptor, (image.name,)) for image in shelf.store.images()]
    save_images(Store(folder / "oci"), images, "all.tar", Surroundings(Cancel(), folder))
    return folder / "all.tar"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Iterator[DockerClient]:
    folder = tmp_path_factory.mktemp("ours")
    with running_docker_daemon(folder / "root") as (_, host):
        client = DockerClient(CLIENT, host, folder)
        client("load", "-i", archive)
        yield client


@pytest.fixture(scope="module")
def theirs(dockerd: Docker, archive: Path) -> Docker:  # noqa: F811
    dockerd.run("load", "-i", str(archive))
    return dockerd


def both(ours: DockerClient, theirs: Docker, *words: str) -> tuple[Any, Any]:
    """Run a command with either daemon; return what came out, as documents, one a line or one in all."""
    texts = ours.text(*words), theirs.run(*words).strip()
    if words[0] == "inspect":
        return json.loads(texts[0])[0], json.loads(texts[1])[0]
    return tuple([json.loads(line) for line in text.splitlines()] for text in texts)  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["app", "host:5000/team/app:1", "other:2"])
def test_an_image_is_shown_alike(ours: DockerClient, theirs: Docker, name: str):
    mine, other = both(ours, theirs, "inspect", name)

    same = {"Id", "RepoTags", "Parent", "Created", "Author", "Architecture", "Os", "RootFS", "Config", "DockerVersion"}
    assert {key: mine[key] for key in same} == {key: other[key] for key in same}
    assert other.keys() <= mine.keys()
    assert {key: type(mine[key]) for key in other} == {key: type(other[key]) for key in other}


@pytest.mark.parametrize("name", ["app", "other:2"])
def test_history_is_told_alike(ours: DockerClient, theirs: Docker, name: str):
    mine, other = both(ours, theirs, "history", "--no-trunc", "--format", "{{json .}}", name)

    for row in (*mine, *other):
        del row["Size"]  # docker's is of what is unpacked
    assert mine == other


def test_images_are_listed_alike(ours: DockerClient, theirs: Docker):
    mine, other = both(ours, theirs, "images", "--no-trunc", "--format", "{{json .}}")

    for row in (*mine, *other):
        for key in ("Size", "VirtualSize", "UniqueSize"):
            del row[key]
    assert sorted(mine, key=str) == sorted(other, key=str)


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", "nope"),
        ("image", "inspect", "nope"),
        ("history", "nope"),
        ("tag", "nope", "x"),
        ("rmi", "nope"),
        ("push", "127.0.0.1:1/nope"),
        ("image", "rm", "sha256:" + "0" * 64),
    ],
)
def test_what_is_not_there_is_told_alike(ours: DockerClient, theirs: Docker, words: tuple[str, ...]):
    done = ours(*words, check=False)
    with pytest.raises(AssertionError) as failed:
        theirs.run(*words)

    assert done.returncode == 1
    assert done.stderr.decode().strip() in str(failed.value)


def test_names_and_images_go_alike(ours: DockerClient, theirs: Docker):
    """Removing a name, an ID with several repositories, and with force."""
    image_id = ours.text("inspect", "-f", "{{.Id}}", "app")
    for words in (("tag", "app", "third:3"), ("rmi", "third:3")):
        mine, other = ours.text(*words), theirs.run(*words).strip()
        assert mine == other
    refused = ours("rmi", image_id, check=False)
    with pytest.raises(AssertionError) as failed:
        theirs.run("rmi", image_id)
    assert refused.stderr.decode().strip() in str(failed.value)
    mine, other = ours.text("rmi", "-f", image_id), theirs.run("rmi", "-f", image_id).strip()
    gone = [line for line in other.splitlines() if not line.startswith("Deleted:") or image_id in line]
    assert sorted(mine.splitlines()) == sorted(gone)
