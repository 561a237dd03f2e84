"""Archives and layouts of others into the store: what is taken, what is refused."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lamina.cancel import Cancel
from lamina.errors import Error, InputError, StorageError
from lamina.exporter.archive_in import load_archive
from lamina.exporter.export import export
from lamina.exporter.layout_in import load_layout
from lamina.exporter.outputs import parse_output
from lamina.exporter.save import save_images
from lamina.image.assemble import assemble, make_index, write_image, write_index
from lamina.image.view import load_image
from lamina.oci.digest import Digest, sha256_digest
from lamina.oci.manifest import dump_index
from lamina.store import Store, StoredImage
from unit.exporter.support import NAME, config_of, make_image, make_result, surroundings, tar_of


@pytest.fixture
def source(tmp_path: Path) -> Store:
    return Store(tmp_path / "source", durable=False)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "oci", durable=False)


def load(store: Store, data: bytes, **options: Any) -> list[StoredImage]:
    return load_archive(store, io.BytesIO(data).read, cancel=Cancel(), **options)


def exported(source: Store, output: str, **options: Any) -> bytes:
    out = io.BytesIO()
    export(make_result(source, **options), parse_output(output), surroundings(source.root, stdout=out))
    return out.getvalue()


def docker_archive(**changes: bytes) -> dict[str, bytes]:
    """Return the files of an archive as docker of old saved it, of one image with one layer."""
    layer = tar_of({"hello": b"hi"})
    fields = {**config_of(), "rootfs": {"type": "layers", "diff_ids": [sha256_digest(layer)]}}
    row = {"Config": "abc.json", "RepoTags": ["app:1"], "Layers": ["one/layer.tar"]}
    files = {
        "one/": b"",
        "one/VERSION": b"1.0",
        "one/layer.tar": layer,
        "abc.json": json.dumps(fields).encode(),
        "manifest.json": json.dumps([row]).encode(),
    }
    return files | changes


@pytest.mark.parametrize("output", ["type=oci", "type=docker"])
def test_what_we_export_is_loaded_again(source: Store, store: Store, output: str) -> None:
    (image,) = load(store, exported(source, output))

    assert image.name == NAME
    assert load_image(store, image.descriptor).config == make_image(source).config
    assert store.check(full=True) == []


def test_a_compressed_archive_is_loaded(source: Store, store: Store) -> None:
    assert load(store, gzip.compress(exported(source, "type=oci")))[0].name == NAME


def test_several_images_are_saved_and_loaded(source: Store, store: Store, tmp_path: Path) -> None:
    images = [make_image(source, architecture=name) for name in ("amd64", "arm64")]
    for image in images:
        write_image(source, image)
    index = write_index(source, make_index(images))
    names = ("docker.io/library/multi:1", "reg.example/multi:2")

    save_images(
        source, [(index, names), (images[0].descriptor, (NAME,))], "x.tar", surroundings(tmp_path), archive="oci"
    )
    loaded = load(store, (tmp_path / "x.tar").read_bytes())

    assert {image.name: image.descriptor.digest for image in loaded} == {
        names[0]: index.digest,
        names[1]: index.digest,
        NAME: images[0].descriptor.digest,
    }


def test_an_image_without_a_name_takes_the_one_given(source: Store, store: Store) -> None:
    data = exported(source, "type=oci", names=())

    assert load(store, data, name="given")[0].name == "docker.io/library/given:latest"
    assert load(store, data)[0].name == ""


def test_dockers_old_archives_are_loaded_with_their_image_id(store: Store) -> None:
    files = docker_archive()

    (image,) = load(store, tar_of(files))

    assert image.name == NAME
    assert load_image(store, image.descriptor).id == sha256_digest(files["abc.json"])


def test_a_link_to_a_layer_is_followed_inside_the_archive(store: Store) -> None:
    """Docker of old shares layers by symbolic links."""
    files = docker_archive()
    out = io.BytesIO(tar_of({name: data for name, data in files.items() if name != "one/layer.tar"}))
    with tarfile.open(fileobj=out, mode="a") as tar:
        for name, target in (("one/layer.tar", "../two/layer.tar"), ("other/layer.tar", "../../../etc/passwd")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
        info = tarfile.TarInfo("two/layer.tar")
        info.size = len(files["one/layer.tar"])
        tar.addfile(info, io.BytesIO(files["one/layer.tar"]))

    assert load(store, out.getvalue())[0].name == NAME


ROW = {"Config": "abc.json", "RepoTags": ["app:1"], "Layers": ["one/layer.tar"]}
BAD = {
    "a path that leads out": ({**ROW, "Layers": ["../../../etc/passwd"]}, "no file"),
    "a missing layer": ({**ROW, "Layers": ["two/layer.tar"]}, "no file"),
    "too many layers": ({**ROW, "Layers": ["one/layer.tar"] * 2}, "1 diffIDs, the manifest 2 layers"),
    "no config": ({"Layers": []}, "must be text"),
    "a tag that is none": ({**ROW, "RepoTags": ["../x"]}, "reference"),
    "layers not a list": ({**ROW, "Layers": "one/layer.tar"}, "must be text"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_docker_manifest_that_is_wrong_is_refused(store: Store, case: str) -> None:
    row, message = BAD[case]

    with pytest.raises(InputError, match=message):
        load(store, tar_of(docker_archive(**{"manifest.json": json.dumps([row]).encode()})))

    assert store.images() == []


def test_a_layer_that_is_not_what_the_config_says_is_refused(store: Store) -> None:
    with pytest.raises(InputError, match="uncompressed"):
        load(store, tar_of(docker_archive(**{"one/layer.tar": tar_of({"hello": b"ho"})})))

    assert store.images() == []


def test_a_compressed_layer_that_is_not_what_the_config_says_is_refused(source: Store, store: Store) -> None:
    """Many tools take such an image; its cache keys would lie."""
    image = make_image(source)
    wrong = [image.layers[1].__class__(image.layers[0].descriptor, image.layers[1].diff_id), image.layers[1]]
    descriptor = write_image(source, assemble(wrong, config_of()))
    source.tag(NAME, descriptor)

    with pytest.raises(InputError, match="uncompressed"):
        load_layout(store, source.root, cancel=Cancel())

    assert store.images() == []


def test_a_blob_with_another_name_is_refused(source: Store, store: Store, tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(exported(source, "type=oci"))) as tar:
        files = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    victim = next(name for name in files if name.startswith("blobs/"))

    with pytest.raises(StorageError, match="digest"):
        load(store, tar_of({**files, victim: files[victim][:-1] + b"?"}))

    assert store.leftovers() == []


@pytest.mark.parametrize("cut", [0.0, 0.3, 0.9])
def test_a_truncated_archive_is_refused(source: Store, store: Store, cut: float) -> None:
    data = exported(source, "type=oci")

    with pytest.raises(Error):
        load(store, data[: int(len(data) * cut)])

    assert store.images() == []
    assert store.leftovers() == []


def test_a_name_twice_in_the_archive_is_refused(store: Store) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for data in (b"[]", b"[1]"):
            info = tarfile.TarInfo("manifest.json")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

    with pytest.raises(Error):
        load(store, out.getvalue())


def test_an_archive_of_files_is_not_an_image(store: Store) -> None:
    with pytest.raises(InputError, match="neither") as caught:
        load(store, tar_of({"etc/": b"", "etc/passwd": b"root"}))

    assert "FROM scratch" in caught.value.hint


def test_a_layout_is_loaded(source: Store, store: Store) -> None:
    source.tag("latest", write_image(source, make_image(source)))
    source.tag(NAME, write_image(source, make_image(source, architecture="arm64")))

    images = load_layout(store, source.root, name="given", cancel=Cancel())

    assert {image.name for image in images} == {"docker.io/library/given:latest", NAME}
    assert store.check(full=True) == []


def test_one_image_of_a_layout_is_chosen_by_its_tag(source: Store, store: Store) -> None:
    source.tag("one", write_image(source, make_image(source)))
    source.tag("two", write_image(source, make_image(source, architecture="arm64")))

    (image,) = load_layout(store, source.root, tag="two", cancel=Cancel())

    assert load_image(store, image.descriptor).platform.architecture == "arm64"
    with pytest.raises(InputError, match="no image 'three'") as caught:
        load_layout(store, source.root, tag="three", cancel=Cancel())
    assert caught.value.hint == "there is: one, two"


def test_a_layout_that_lacks_a_blob_is_refused(source: Store, store: Store) -> None:
    image = make_image(source)
    source.tag(NAME, write_image(source, image))
    source.delete(image.layers[0].descriptor.digest)

    with pytest.raises(InputError, match="missing"):
        load_layout(store, source.root, cancel=Cancel())

    assert store.images() == []


def test_a_layout_whose_blob_is_a_link_is_refused(source: Store, store: Store, tmp_path: Path) -> None:
    """Whoever made the layout must not choose which file of ours becomes a layer."""
    image = make_image(source)
    source.tag(NAME, write_image(source, image))
    path = source.path(image.layers[0].descriptor.digest)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(Error):
        load_layout(store, source.root, cancel=Cancel())

    assert store.images() == []


def test_loading_from_a_layout_writes_nothing_into_it(source: Store, store: Store) -> None:
    source.tag(NAME, write_image(source, make_image(source)))
    for name in ("index.lock", "names"):
        (source.root / name).unlink()
    (source.root / "ingest").rmdir()

    load_layout(store, source.root, cancel=Cancel())

    assert sorted(path.name for path in source.root.iterdir()) == ["blobs", "index.json", "oci-layout"]


def test_an_index_that_contains_itself_in_a_circle_of_names_ends(source: Store, store: Store) -> None:
    image = make_image(source)
    top = write_image(source, image)
    for _ in range(12):
        digest, size = source.add(dump_index([top]))
        top = image.descriptor.__class__("application/vnd.oci.image.index.v1+json", Digest(digest), size)
    (source.root / "index.json").write_bytes(dump_index([top]))

    with pytest.raises(Error, match="nested"):
        load_layout(store, source.root, cancel=Cancel())
