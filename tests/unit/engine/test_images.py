"""List, name, remove and show images of the store."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lamina.engine.images import image_history, inspect_image, list_images, open_store, remove_image, tag_image
from lamina.errors import InputError
from lamina.image.assemble import LayerBlob, assemble, write_image
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.media_types import layer_media_type

APP = "docker.io/library/app:latest"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A state directory with one image."""
    store = open_store(tmp_path)
    layer = b"not a real tar, which nobody reads here"
    digest, size = store.add(layer)
    blob = LayerBlob(
        Descriptor(layer_media_type("uncompressed"), digest, size),
        Digest("sha256:" + hashlib.sha256(layer).hexdigest()),
    )
    config = {
        "os": "linux",
        "architecture": "amd64",
        "created": "2026-01-02T03:04:05Z",
        "config": {"Cmd": ["/bin/true"]},
        "history": [
            {"created_by": "COPY a /", "created": "2026-01-02T03:04:05.5Z"},
            {"created_by": "CMD", "empty_layer": True},
        ],
    }
    store.tag(APP, write_image(store, assemble([blob], config)))
    return tmp_path


def test_images_are_listed_as_docker_names_them(root: Path):
    (row,) = list_images(root)
    assert (row.name, row.platform) == ("app:latest", "linux/amd64")
    assert row.created == 1767323045.0
    assert row.image_id.startswith("sha256:") and row.image_id != row.digest


def test_tag_gives_another_name_to_the_same_image(root: Path):
    assert tag_image(root, "app", "other:1") == "docker.io/library/other:1"
    first, second = list_images(root)
    assert {first.name, second.name} == {"app:latest", "other:1"} and first.digest == second.digest


def test_an_image_is_found_by_the_beginning_of_its_id(root: Path):
    image_id = list_images(root)[0].image_id
    assert inspect_image(root, image_id[7:19])["Id"] == image_id
    assert inspect_image(root, image_id[:19])["Id"] == image_id


def test_removing_a_name_keeps_the_others(root: Path):
    tag_image(root, "app", "other")
    assert remove_image(root, "app") == ["app:latest"]
    assert [row.name for row in list_images(root)] == ["other:latest"]


def test_removing_an_id_removes_all_its_names(root: Path):
    tag_image(root, "app", "other")
    assert sorted(remove_image(root, list_images(root)[0].image_id[7:])) == ["app:latest", "other:latest"]
    assert list_images(root) == []


@pytest.mark.parametrize("name", ["nothing", "deadbeef", "sha256:0000", "Not A Name", ""])
def test_a_missing_image_is_said_to_be_missing(root: Path, name: str):
    for verb in (remove_image, inspect_image, image_history):
        with pytest.raises(InputError):
            verb(root, name)


def test_history_puts_the_newest_step_first(root: Path):
    lines = image_history(root, "app")
    assert [line.created_by for line in lines] == ["CMD", "COPY a /"]
    assert (lines[0].digest, lines[0].size_bytes) == ("", 0) and lines[1].size_bytes > 0
    assert lines[1].created == 1767323045.5
