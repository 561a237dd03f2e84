"""Exporters: store, push, layouts and file trees."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import tarfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import pytest

from lamina.errors import CancelledError, InputError, StorageError
from lamina.exporter.convert import check_diff_id, sniff_compression
from lamina.exporter.export import check_outputs, export
from lamina.exporter.outputs import OutputSpec, parse_output
from lamina.exporter.protocol import PlatformResult, Result
from lamina.image.assemble import LayerBlob, assemble
from lamina.image.view import load_image
from lamina.layer.entry import Entry, FileSlice, Item
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest, sha256_digest
from lamina.oci.manifest import parse_any, parse_index
from lamina.oci.media_types import layer_compression
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.store import Store
from unit.exporter.support import FILES, NAME, make_image, make_result, surroundings


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "oci", durable=False)


class Memory:
    """A registry client that keeps what is pushed; the real one has the same methods."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}
        self.order: list[str] = []
        self.lenders: dict[str, list[str]] = {}
        self._lock = threading.Lock()

    def push_blob(
        self,
        ref: Reference,
        descriptor: Descriptor,
        open: Callable[[], BinaryIO],  # noqa: A002 - the client's name
        mount_from: Sequence[Reference] = (),
    ) -> None:
        key = f"{ref}@{descriptor.digest}"
        with self._lock:
            self.order.append("blob")
            self.lenders[key] = [str(lender) for lender in mount_from]
        if not any(f"{lender}@{descriptor.digest}" in self.blobs for lender in mount_from):
            with open() as file:
                self.blobs[key] = file.read()
        else:
            self.blobs[key] = b"mounted"

    def push_manifest(self, ref: Reference, media_type: str, raw: bytes) -> Digest:
        for digest in _below(raw, media_type):
            name = f"{ref.registry}/{ref.repository}"
            assert f"{name}@{digest}" in self.blobs | self.manifests, "what a manifest names must be there before"
        self.order.append("manifest")
        self.manifests[str(ref)] = raw
        return sha256_digest(raw)


def _below(raw: bytes, media_type: str) -> list[Digest]:
    parsed = parse_any(raw, media_type)
    children = getattr(parsed, "manifests", None)
    return [d.digest for d in (children if children is not None else [parsed.config, *parsed.layers])]  # type: ignore


def test_the_store_gets_image_and_names(store: Store, tmp_path: Path) -> None:
    outcome = export(make_result(store), parse_output("type=image,name=other"), surroundings(tmp_path))

    assert outcome.names == (NAME, "docker.io/library/other:latest")
    assert {image.name for image in store.images()} == set(outcome.names)
    assert outcome.descriptor is not None
    assert load_image(store, outcome.descriptor).id == outcome.image_id
    assert store.check(full=True) == []


def test_an_image_without_a_name_is_kept(store: Store, tmp_path: Path) -> None:
    outcome = export(make_result(store, names=()), OutputSpec("image"), surroundings(tmp_path))

    assert [(image.name, image.descriptor.digest) for image in store.images()] == [("", outcome.descriptor.digest)]


def test_several_platforms_become_an_index(store: Store, tmp_path: Path) -> None:
    outcome = export(make_result(store, "amd64", "arm64"), OutputSpec("image"), surroundings(tmp_path))

    index = parse_index(store.read(outcome.descriptor.digest))
    assert [str(manifest.platform) for manifest in index.manifests] == ["linux/amd64", "linux/arm64"]
    assert outcome.image_id is None


def test_a_layer_that_is_nowhere_gives_no_image(store: Store, tmp_path: Path) -> None:
    image = make_image(store)
    store.delete(image.layers[0].descriptor.digest)
    result = Result((PlatformResult(image.platform, lambda *_: image, lambda: ()),), store, (NAME,))

    with pytest.raises(StorageError, match="not in the store"):
        export(result, OutputSpec("image"), surroundings(tmp_path))

    assert store.images() == []


def test_lazy_layers_are_fetched_only_when_their_bytes_are_needed(store: Store, tmp_path: Path) -> None:
    image = make_image(store)
    lazy = image.layers[0].descriptor
    content = store.read(lazy.digest)
    store.delete(lazy.digest)
    fetched: list[Digest] = []

    def fetch(descriptor: Descriptor) -> None:
        fetched.append(descriptor.digest)
        store.add(content)

    pusher = Memory()
    pusher.blobs[f"docker.io/library/base@{lazy.digest}"] = content
    base = Reference("docker.io", "library/base")
    result = Result(
        (PlatformResult(image.platform, lambda *_: image, lambda: ()),), store, (NAME,), fetch=fetch,
        mount_from={lazy.digest: [base]},
    )  # fmt: skip
    around = surroundings(tmp_path, pusher=lambda _insecure: pusher)

    export(result, parse_output("type=registry"), around)
    assert fetched == [], "the registry could mount it"
    export(result, parse_output("type=oci,dest=x.tar"), around)
    assert fetched == [lazy.digest]


def test_a_push_sends_what_is_named_first_and_the_tag_last(store: Store, tmp_path: Path) -> None:
    pusher = Memory()

    export(
        make_result(store, "amd64", "arm64"),
        parse_output("type=registry,name=docker.io/library/second:2"),
        surroundings(tmp_path, pusher=lambda _insecure: pusher),
    )

    assert {NAME, "docker.io/library/second:2"} <= set(pusher.manifests)
    index = parse_index(pusher.manifests[NAME])
    for child in index.manifests:
        assert f"docker.io/library/app@{child.digest}" in pusher.manifests
    assert any("docker.io/library/app" in lenders for lenders in pusher.lenders.values()), "second mounts from first"
    assert store.images() == [], "type=registry does not name it here"


def test_push_by_digest_sets_no_tag(store: Store, tmp_path: Path) -> None:
    pusher = Memory()

    outcome = export(
        make_result(store),
        parse_output("type=image,push=true,push-by-digest=true"),
        surroundings(tmp_path, pusher=lambda _insecure: pusher),
    )

    assert list(pusher.manifests) == [f"docker.io/library/app@{outcome.descriptor.digest}"]


def test_a_push_without_a_name_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no name"):
        export(make_result(store, names=()), parse_output("type=registry"), surroundings(tmp_path))


def test_an_oci_archive_is_a_layout_that_says_first_what_is_in_it(store: Store, tmp_path: Path) -> None:
    outcome = export(make_result(store), parse_output("type=oci,dest=x.tar"), surroundings(tmp_path))

    with tarfile.open(tmp_path / "x.tar") as tar:
        names = tar.getnames()
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
        for member in tar:
            if member.isfile() and member.name.startswith("blobs/"):
                data = tar.extractfile(member).read()  # type: ignore[union-attr]
                assert sha256_digest(data).hex == member.name.rpartition("/")[2]
    assert names[:2] == ["oci-layout", "index.json"]
    assert len(names) == 2 + 2 + 4
    (entry,) = index["manifests"]
    assert entry["digest"] == outcome.descriptor.digest
    assert entry["annotations"] == {
        "io.containerd.image.name": NAME,
        "org.opencontainers.image.ref.name": "1",
    }


def test_the_same_image_gives_the_same_archive(store: Store, tmp_path: Path) -> None:
    for name in ("a", "b"):
        export(make_result(store), parse_output(f"type=docker,dest={name}"), surroundings(tmp_path))

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_an_archive_to_standard_output(store: Store, tmp_path: Path) -> None:
    out = io.BytesIO()
    export(make_result(store), parse_output("type=oci,dest=-"), surroundings(tmp_path, stdout=out))
    export(make_result(store), parse_output("type=oci,dest=x.tar"), surroundings(tmp_path))

    assert out.getvalue() == (tmp_path / "x.tar").read_bytes()
    with pytest.raises(InputError, match="terminal"):
        export(make_result(store), parse_output("type=oci,dest=-"), surroundings(tmp_path))


def test_a_docker_archive_has_dockers_manifest(store: Store, tmp_path: Path) -> None:
    outcome = export(make_result(store), parse_output("type=docker,dest=x.tar"), surroundings(tmp_path))

    with tarfile.open(tmp_path / "x.tar") as tar:
        (row,) = json.load(tar.extractfile("manifest.json"))  # type: ignore[arg-type]
    assert row["RepoTags"] == ["app:1"]
    assert row["Config"] == f"blobs/sha256/{outcome.image_id.hex}"
    assert len(row["Layers"]) == 2


def test_a_docker_archive_holds_one_platform(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one platform"):
        export(make_result(store, "amd64", "arm64"), parse_output("type=docker,dest=x"), surroundings(tmp_path))


def test_a_failed_export_leaves_the_old_archive(store: Store, tmp_path: Path) -> None:
    """A layer turns out to be damaged in the middle of writing."""
    (tmp_path / "x.tar").write_bytes(b"old")
    image = make_image(store)
    layer = image.layers[1].descriptor.digest
    store.path(layer).write_bytes(store.path(layer).read_bytes()[:-1])
    result = Result((PlatformResult(image.platform, lambda *_: image, lambda: ()),), store, (NAME,))

    with pytest.raises(StorageError, match="descriptor"):
        export(result, parse_output("type=oci,dest=x.tar"), surroundings(tmp_path))

    assert (tmp_path / "x.tar").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["oci", "x.tar"]


def test_a_cancelled_export_leaves_nothing(store: Store, tmp_path: Path) -> None:
    around = surroundings(tmp_path)
    progress: list[int] = []

    def cancel_in_the_middle(_what: str, current: int, _total: int) -> None:
        progress.append(current)
        around.cancel.cancel()

    stopped = surroundings(tmp_path, progress=cancel_in_the_middle)
    object.__setattr__(stopped, "cancel", around.cancel)
    with pytest.raises(CancelledError):
        export(make_result(store), parse_output("type=oci,dest=x.tar"), stopped)

    assert progress
    assert [path.name for path in tmp_path.iterdir()] == ["oci"]


@pytest.mark.parametrize("spec", ["type=oci,dest=there", "type=oci,dest=missing/x.tar"])
def test_a_destination_that_cannot_be_is_said(store: Store, tmp_path: Path, spec: str) -> None:
    (tmp_path / "there").mkdir()

    with pytest.raises(InputError, match="directory"):
        export(make_result(store), parse_output(spec), surroundings(tmp_path))


def test_a_layout_directory_is_another_store(store: Store, tmp_path: Path) -> None:
    spec = parse_output("type=oci,dest=layout,tar=false")

    outcome = export(make_result(store), spec, surroundings(tmp_path))

    assert sorted(path.name for path in (tmp_path / "layout").iterdir()) == ["blobs", "index.json", "oci-layout"]
    assert load_image(Store(tmp_path / "layout", create=False), outcome.descriptor).id == outcome.image_id


def test_a_layout_directory_keeps_other_images(store: Store, tmp_path: Path) -> None:
    spec, around = parse_output("type=oci,dest=layout,tar=false"), surroundings(tmp_path)
    export(make_result(store, names=("docker.io/library/other:1",)), spec, around)
    export(make_result(store), spec, around)
    export(make_result(store, "arm64"), spec, around)

    entries = json.loads((tmp_path / "layout" / "index.json").read_bytes())["manifests"]
    assert [entry["annotations"]["io.containerd.image.name"] for entry in entries] == [
        "docker.io/library/other:1",
        NAME,
    ]


def test_a_directory_with_something_else_is_not_made_a_layout(store: Store, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "file").touch()

    with pytest.raises(InputError, match="something else"):
        export(make_result(store), parse_output("type=oci,dest=home,tar=false"), surroundings(tmp_path))

    assert [path.name for path in (tmp_path / "home").iterdir()] == ["file"]


def test_annotations_reach_the_manifest(store: Store, tmp_path: Path) -> None:
    spec = parse_output("type=image,annotation.org.example=v")

    outcome = export(make_result(store), spec, surroundings(tmp_path))

    assert parse_any(store.read(outcome.descriptor.digest)).annotations == {"org.example": "v"}


def test_two_outputs_to_one_place_are_refused() -> None:
    check_outputs([parse_output("type=image"), parse_output("type=image"), parse_output("-"), parse_output("x")])
    for second in ("type=oci", "type=docker,dest=-"):
        with pytest.raises(InputError, match="standard output"):
            check_outputs([parse_output("-"), parse_output(second)])


def test_local_writes_the_tree(store: Store, tmp_path: Path) -> None:
    """Modes, times, links and attributes are the image's; the owner is whoever exports."""
    export(make_result(store), parse_output("out"), surroundings(tmp_path))

    out = tmp_path / "out"
    hello, secret = (out / "bin/hello").stat(), (out / "etc/secret").stat()
    assert (out / "bin/hello").read_bytes() == b"hello"
    assert (stat.S_IMODE(hello.st_mode), hello.st_mtime_ns) == (0o755, 1_100_000_000_123_456_789)
    assert (out / "bin").stat().st_mtime_ns == 1_000_000_000_000_000_000
    assert (out / "bin/alias").stat().st_ino == hello.st_ino
    assert os.readlink(out / "etc/link") == "../bin/hello"
    assert (stat.S_IMODE(secret.st_mode), secret.st_uid) == (0o4640, os.getuid())
    assert stat.S_IMODE((out / "etc").stat().st_mode) == 0o500
    assert stat.S_IMODE((out / "run").stat().st_mode) == 0o1777
    assert stat.S_ISFIFO((out / "run/pipe").stat().st_mode)


def test_local_replaces_what_is_in_the_way_and_keeps_the_rest(store: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    out = tmp_path / "out"
    (out / "bin/hello").mkdir(parents=True)
    (out / "bin/hello/inside").touch()
    (out / "etc").symlink_to(outside)
    (out / "mine").write_text("kept")

    export(make_result(store), parse_output("out"), surroundings(tmp_path))
    export(make_result(store), parse_output("out"), surroundings(tmp_path))

    assert (out / "bin/hello").read_bytes() == b"hello"
    assert not (out / "etc").is_symlink()
    assert list(outside.iterdir()) == [], "a link at the destination is never followed"
    assert (out / "mine").read_text() == "kept"


@pytest.mark.parametrize(
    "items",
    [
        [Item(Entry("a", "l", target="../outside")), Item(Entry("a/x", "f", 0o644, size=1), b"x")],
        [Item(Entry("../outside/x", "f", 0o644, size=1), b"x")],
        [Item(Entry("a", "l", target="/")), Item(Entry("h", "h", target="a/etc/passwd"))],
    ],
)
def test_local_never_leaves_its_root(store: Store, tmp_path: Path, items: list[Item]) -> None:
    (tmp_path / "outside").mkdir()
    platform = PlatformResult(Platform("linux", "amd64"), lambda *_: make_image(store), lambda: items)

    with pytest.raises(StorageError):
        export(Result((platform,), store), parse_output("out"), surroundings(tmp_path))

    assert list((tmp_path / "outside").iterdir()) == []
    assert not (tmp_path / "out" / "h").exists()


def test_local_refuses_content_that_changed(store: Store, tmp_path: Path) -> None:
    """A tree of the store was damaged: no file with wrong bytes comes out, whole or half."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "f").write_bytes(b"evil")
    wrong = FileSlice(str(tmp_path / "tree"), "f", digest=sha256_digest(b"good").hex)
    short = FileSlice(str(tmp_path / "tree"), "f")
    for size, content in ((4, wrong), (5, short)):
        items = [Item(Entry("f", "f", 0o644, size=size), content)]
        platform = PlatformResult(Platform("linux", "amd64"), lambda *_: make_image(store), lambda items=items: items)
        with pytest.raises(StorageError, match=r"changed|short"):
            export(Result((platform,), store), parse_output("out"), surroundings(tmp_path))

        assert list((tmp_path / "out").iterdir()) == []


def test_several_platforms_get_a_directory_each(store: Store, tmp_path: Path) -> None:
    export(make_result(store, "amd64", "arm64"), parse_output("out"), surroundings(tmp_path))

    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["linux_amd64", "linux_arm64"]
    assert len(FILES) > 1


def test_tar_writes_owners_modes_and_links(store: Store, tmp_path: Path) -> None:
    out = io.BytesIO()

    export(make_result(store), parse_output("-"), surroundings(tmp_path, stdout=out))

    out.seek(0)
    with tarfile.open(fileobj=out) as tar:
        members = {member.name: member for member in tar}
        assert tar.extractfile("bin/alias").read() == b"hello"  # type: ignore[union-attr]
    assert set(members) == {item.entry.path or "." for item in FILES}
    assert members["etc/secret"].mode == 0o4640
    assert members["bin/alias"].islnk()
    assert members["run/pipe"].isfifo()
    assert list(members).index("bin/alias") > list(members).index("bin/hello"), "a link comes after what it links to"


@pytest.mark.parametrize("compression", ["zstd", "uncompressed", "gzip"])
def test_layers_are_converted_to_the_compression_asked_for(store: Store, tmp_path: Path, compression: str) -> None:
    outcome = export(make_result(store), parse_output(f"type=image,compression={compression}"), surroundings(tmp_path))

    image = load_image(store, outcome.descriptor)
    assert {layer_compression(layer.descriptor.media_type) for layer in image.layers} == {compression}
    assert {sniff_compression(store, layer.descriptor.digest) for layer in image.layers} == {compression}
    for layer in image.layers:
        check_diff_id(store, layer, surroundings(tmp_path).cancel)
    assert image.id == make_image(store).id, "the image ID is about content, not about compression"
    assert store.check(full=True) == []


def test_layers_of_a_base_are_converted_only_when_forced(store: Store, tmp_path: Path) -> None:
    base = make_image(store).layers[0].descriptor.digest
    result = make_result(store, base_layers=frozenset({base}))

    kept = export(result, parse_output("type=image,compression=zstd"), surroundings(tmp_path))
    forced = export(result, parse_output("type=image,compression=zstd,force-compression=true"), surroundings(tmp_path))

    assert load_image(store, kept.descriptor).layers[0].descriptor.digest == base
    assert load_image(store, forced.descriptor).layers[0].descriptor.digest != base


def test_a_level_makes_a_difference(store: Store, tmp_path: Path) -> None:
    sizes = []
    for level in ("1", "19"):
        spec = parse_output(f"type=image,compression=zstd,compression-level={level}")
        outcome = export(make_result(store), spec, surroundings(tmp_path))
        sizes.append(load_image(store, outcome.descriptor).layers[1].descriptor.size)

    assert sizes[0] != sizes[1]


def test_a_layer_that_is_not_what_it_says_is_never_converted(store: Store, tmp_path: Path) -> None:
    image = make_image(store)
    layers = [LayerBlob(image.layers[0].descriptor, image.layers[1].diff_id), image.layers[1]]
    lying = assemble(layers, image.config.fields)
    result = Result((PlatformResult(image.platform, lambda *_: lying, lambda: ()),), store, (NAME,))

    with pytest.raises(StorageError, match="uncompressed"):
        export(result, parse_output("type=image,compression=zstd"), surroundings(tmp_path))

    assert store.images() == []
    assert store.leftovers() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small tmpfs")
@pytest.mark.parametrize("output", ["type=oci,dest=small/x.tar", "type=oci,dest=small/x,tar=false"])
def test_a_full_disk_at_the_destination_says_so(tmp_path: Path, output: str) -> None:
    store = Store(tmp_path / "oci", durable=False)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=True)
    try:
        with pytest.raises(StorageError, match=r"no space left.* free"):
            export(make_result(store), parse_output(output), surroundings(tmp_path))

        assert not (small / "x.tar").exists()
        assert [path for path in small.rglob("*") if path.name.startswith(".")] == []
        index = small / "x" / "index.json"
        assert not index.exists() or json.loads(index.read_bytes())["manifests"] == [], "nothing half-written is named"
    finally:
        subprocess.run(["umount", str(small)], check=True)
