"""Assembling images and indexes, and reading them back from a store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lamina.errors import InputError, StorageError
from lamina.image.assemble import Image, LayerBlob, assemble, fit_history, make_index, write_image, write_index
from lamina.image.inspect import history_rows, image_size, inspect_image
from lamina.image.view import iter_manifests, load_image
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import sha256_digest
from lamina.oci.manifest import dump_index, dump_manifest
from lamina.oci.media_types import DOCKER_CONFIG, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, layer_media_type
from lamina.oci.platform import Platform
from lamina.store import Store

CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "created": "2026-01-02T03:04:05Z",
    "config": {"Env": ["A=1"], "Cmd": ["sh"]},
    "history": [
        {"created_by": "ADD rootfs"},
        {"created_by": "ENV A=1", "empty_layer": True},
        {"created_by": "RUN make"},
        {"created_by": 'CMD ["sh"]', "empty_layer": True},
    ],
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "oci", durable=False)


def layer(store: Store, content: bytes, compression: str = "gzip") -> LayerBlob:
    digest, size = store.add(content)
    return LayerBlob(Descriptor(layer_media_type(compression), digest, size), sha256_digest(b"raw" + content))


def image(store: Store, contents: Sequence[bytes] = (b"one", b"three"), **changes: Any) -> Image:
    return assemble([layer(store, content) for content in contents], {**CONFIG, **changes})


def test_an_assembled_image_is_read_back_equal(store: Store) -> None:
    made = image(store)

    store.tag("docker.io/library/app:latest", write_image(store, made))
    found = load_image(store, made.descriptor)

    assert found == made
    assert [blob.diff_id for blob in found.layers] == [sha256_digest(b"rawone"), sha256_digest(b"rawthree")]
    assert found.config.env == ("A=1",)
    assert store.check(full=True) == []


def test_the_same_arguments_give_the_same_bytes(store: Store) -> None:
    assert image(store).manifest.raw == image(store).manifest.raw


def test_rootfs_of_the_given_config_is_replaced(store: Store) -> None:
    made = image(store, rootfs={"type": "layers", "diff_ids": ["sha256:" + "0" * 64]})

    assert len(made.config.diff_ids) == 2


def test_dockers_media_types(store: Store) -> None:
    made = assemble([layer(store, b"one"), layer(store, b"2", "uncompressed")], CONFIG, media_types="docker")

    assert made.manifest.media_type == DOCKER_MANIFEST
    assert made.manifest.config.media_type == DOCKER_CONFIG
    assert [blob.descriptor.media_type for blob in made.layers] == [
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar",
    ]
    assert made.descriptor.digest != assemble(made.layers, CONFIG).descriptor.digest


@pytest.mark.parametrize(
    ("empties", "layers", "expected"),
    [
        ([False, True, False], 2, [False, True, False]),
        ([True], 2, [True, False, False]),
        ([False, False, False], 1, [False, True, True]),
        ([], 0, []),
    ],
)
def test_history_is_made_to_fit_the_layers(empties: list[bool], layers: int, expected: list[bool]) -> None:
    rows = [{"created_by": "x", **({"empty_layer": True} if empty else {})} for empty in empties]

    found = fit_history(rows, layers)

    assert [bool(row.get("empty_layer")) for row in found] == expected


def test_history_shows_sizes_beside_the_steps_that_made_them(store: Store) -> None:
    rows = history_rows(image(store))

    assert [(row.created_by, row.size) for row in rows] == [
        ('CMD ["sh"]', 0),
        ("RUN make", 5),
        ("ENV A=1", 0),
        ("ADD rootfs", 3),
    ]
    assert rows[0].id.startswith("sha256:")


def test_inspect_has_dockers_fields(store: Store) -> None:
    made = image(store)

    found = inspect_image(made, ["docker.io/library/app:latest", "reg.example/app:1"])

    assert found["Id"] == str(made.id)
    assert found["RepoTags"] == ["app:latest", "reg.example/app:1"]
    assert found["RepoDigests"] == [f"app@{made.descriptor.digest}", f"reg.example/app@{made.descriptor.digest}"]
    assert found["Config"]["Env"] == ["A=1"]
    assert found["RootFS"]["Layers"] == [str(blob.diff_id) for blob in made.layers]
    assert found["Size"] == image_size(made)
    json.dumps(found)


def test_an_index_leads_to_the_image_of_a_platform(store: Store) -> None:
    images = [image(store, [name.encode()], architecture=name) for name in ("arm64", "amd64")]
    for one in images:
        write_image(store, one)
    descriptor = write_index(store, make_index(images))

    assert load_image(store, descriptor, Platform.parse("linux/arm64")).id == images[0].id
    assert load_image(store, descriptor, Platform.parse("linux/amd64/v3")).id == images[1].id
    with pytest.raises(InputError, match=r"no image for the platform linux/s390x") as caught:
        load_image(store, descriptor, Platform.parse("linux/s390x"))
    assert "linux/amd64, linux/arm64" in caught.value.hint


def test_two_images_for_one_platform_are_no_index(store: Store) -> None:
    with pytest.raises(InputError, match="linux/amd64"):
        make_index([image(store), image(store, [b"other"])])


def test_attestations_are_no_images(store: Store) -> None:
    """buildx puts them into the index beside the images."""
    made = image(store)
    write_image(store, made)
    statement = Descriptor(
        OCI_MANIFEST,
        made.descriptor.digest,
        made.descriptor.size,
        {"vnd.docker.reference.type": "attestation-manifest"},
    )
    digest, size = store.add(dump_index([statement, made.descriptor]))

    assert load_image(store, Descriptor(OCI_INDEX, digest, size)).id == made.id


def test_the_platform_is_read_from_the_config_when_the_index_does_not_say(store: Store) -> None:
    images = [image(store, [name.encode()], architecture=name) for name in ("arm64", "amd64")]
    bare = [Descriptor(OCI_MANIFEST, d.digest, d.size) for d in (write_image(store, one) for one in images)]
    digest, size = store.add(dump_index(bare))

    assert load_image(store, Descriptor(OCI_INDEX, digest, size), Platform.parse("linux/arm64")).id == images[0].id


def test_an_index_is_never_followed_without_end(store: Store) -> None:
    made = image(store)
    top = write_image(store, made)
    for _ in range(12):
        digest, size = store.add(dump_index([top]))
        top = Descriptor(OCI_INDEX, digest, size)

    with pytest.raises(InputError, match="nested"):
        list(iter_manifests(store, top))


def test_fewer_diff_ids_than_layers_is_refused(store: Store) -> None:
    made = image(store)
    write_image(store, made)
    third = layer(store, b"third").descriptor
    raw = dump_manifest(made.manifest.config, [*made.manifest.layers, third])
    digest, size = store.add(raw)

    with pytest.raises(InputError, match="2 diffIDs, the manifest 3 layers"):
        load_image(store, Descriptor(OCI_MANIFEST, digest, size), where="app")


def test_an_artifact_is_not_an_image(store: Store) -> None:
    made = image(store)
    config = Descriptor("application/vnd.example.chart", made.manifest.config.digest, made.manifest.config.size)
    write_image(store, made)
    digest, size = store.add(dump_manifest(config, []))

    with pytest.raises(InputError, match=r"artifact of type 'application/vnd\.example\.chart'"):
        load_image(store, Descriptor(OCI_MANIFEST, digest, size))


def test_a_damaged_config_is_found_on_reading(store: Store) -> None:
    made = image(store)
    write_image(store, made)
    store.path(made.id).write_bytes(b"x")

    with pytest.raises(StorageError, match="digest"):
        load_image(store, made.descriptor)
