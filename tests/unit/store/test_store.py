"""The store on disk: the contract, the layout other tools see, and faults."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.store import DATA, StoreSuite, add_image, describe
from lamina.errors import StorageError
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import sha256_digest
from lamina.oci.manifest import dump_index
from lamina.oci.media_types import OCI_INDEX, OCI_MANIFEST
from lamina.store import Store
from lamina.store.names import is_tagged, read_names
from lamina.store.reach import reachable

NAME = "docker.io/library/app:latest"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "oci")


class TestStore(StoreSuite):
    """The folder driver keeps the contract."""


def test_the_layout_is_the_one_of_the_specification(store: Store) -> None:
    image = add_image(store)
    store.tag(NAME, image)

    assert json.loads((store.root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((store.root / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    assert index["manifests"] == [
        {
            "mediaType": OCI_MANIFEST,
            "digest": str(image.digest),
            "size": image.size,
            "annotations": {"org.opencontainers.image.ref.name": NAME},
        }
    ]
    assert (store.root / "blobs" / "sha256" / image.digest.hex).stat().st_mode & 0o777 == 0o644


def test_what_other_tools_wrote_into_the_index_survives(store: Store) -> None:
    image, other = add_image(store, b"1"), add_image(store, b"2")
    entry = {**other.to_json(), "annotations": {"com.example": "kept"}, "com.example.field": [1]}
    raw = {"schemaVersion": 2, "manifests": [entry], "annotations": {"a": "b"}, "com.example.top": {"x": 1}}
    (store.root / "index.json").write_text(json.dumps(raw))

    store.tag(NAME, image)
    store.untag(NAME)

    assert json.loads((store.root / "index.json").read_bytes()) == raw


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_only_regular_files_are_blobs(store: Store, tmp_path: Path, kind: str) -> None:
    """A blob replaced by a link must not leak another file, a fifo must not hang."""
    digest = sha256_digest(DATA)
    (tmp_path / "elsewhere").write_bytes(DATA)
    path = store.path(digest)
    {
        "symlink": lambda: path.symlink_to(tmp_path / "elsewhere"),
        "fifo": lambda: os.mkfifo(path),
        "directory": path.mkdir,
    }[kind]()

    with pytest.raises(StorageError, match="not a regular file"):
        store.open(digest)
    assert not store.has(digest)
    assert [problem.kind for problem in store.check()] == ["digest"]


def test_check_finds_each_kind_of_damage(store: Store) -> None:
    image = add_image(store)
    store.tag(NAME, image)
    layer = sha256_digest(DATA)
    content = store.path(layer).read_bytes()

    store.path(layer).write_bytes(b"x" * len(DATA))
    assert store.check() == [], "a quick check does not read the layers"
    assert [problem.kind for problem in store.check(full=True)] == ["digest"]
    store.path(layer).write_bytes(content[:-1])
    assert [problem.kind for problem in store.check()] == ["size"]
    store.path(layer).unlink()
    assert [(problem.kind, problem.where) for problem in store.check()] == [("missing", NAME)]
    store.path(layer).write_bytes(content)
    store.path(image.digest).write_bytes(b"{}")
    assert [problem.kind for problem in store.check()] == ["manifest"]
    (store.root / "index.json").write_bytes(b'{"manifests": 7}')
    assert [problem.kind for problem in store.check()] == ["index"]
    (store.root / "oci-layout").unlink()
    assert [problem.kind for problem in store.check()] == ["layout", "index"]


def test_check_names_a_doubled_name(store: Store) -> None:
    entries = []
    for content in (b"1", b"2"):
        image = add_image(store, content)
        entries.append({**image.to_json(), "annotations": {"org.opencontainers.image.ref.name": NAME}})
    (store.root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))

    assert [(problem.kind, problem.where) for problem in store.check()] == [("index", NAME)]


def test_a_damaged_index_is_never_overwritten(store: Store) -> None:
    image = add_image(store)
    (store.root / "index.json").write_bytes(b"\0\0\0")

    with pytest.raises(StorageError, match=r"index\.json is damaged"):
        store.tag(NAME, image)

    assert (store.root / "index.json").read_bytes() == b"\0\0\0"


def test_a_killed_writer_leaves_only_a_leftover(tmp_path: Path) -> None:
    """`kill -9` in the middle of an ingest: the store checks clean but for a partial file, and a sweep takes it."""
    code = (
        "import os, signal, sys; from pathlib import Path; from lamina.store import Store\n"
        "ingest = Store(Path(sys.argv[1])).ingest(); ingest.write(b'x' * 3_000_000)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "oci")], check=False, timeout=60)
    store = Store(tmp_path / "oci")

    assert killed.returncode == -9
    problems = store.check(full=True)
    assert [(problem.kind, problem.harmless) for problem in problems] == [("leftover", True)]
    assert store.sweep_ingest() == 1
    assert store.check(full=True) == []


def test_a_sweep_spares_what_is_being_written_or_may_be_resumed(store: Store) -> None:
    with store.ingest(describe(DATA), "k") as ingest:
        ingest.write(DATA[:100])
    with store.ingest() as busy:
        busy.write(b"x" * (2 << 20))

        assert store.sweep_ingest() == 0
        assert store.sweep_ingest(resumable_age_s=0) == 1
        busy.commit()


def test_a_collection_spares_what_was_used_since_it_began(store: Store) -> None:
    digest, _ = store.add(DATA)
    os.utime(store.path(digest), (1000, 1000))

    assert store.touch(digest)
    assert not store.delete(digest, unused_since=2000)
    os.utime(store.path(digest), (1000, 1000))
    assert store.delete(digest, unused_since=2000)
    assert not store.touch(digest), "it is gone and must be made again"


def test_reachable_is_bounded(store: Store) -> None:
    """Indexes nested without end, and the same child again and again."""
    image = add_image(store)
    top = image
    for _ in range(3):
        digest, size = store.add(dump_index([top, top, image]))
        top = Descriptor(OCI_INDEX, digest, size)
    assert len(reachable(store, [top])) == 3 + 3

    for _ in range(10):
        digest, size = store.add(dump_index([top]))
        top = Descriptor(OCI_INDEX, digest, size)
    with pytest.raises(StorageError, match="nested"):
        reachable(store, [top])


def test_names_are_read_without_parsing(store: Store) -> None:
    image = add_image(store)
    store.tag(NAME, image)

    assert read_names(store.root) == {NAME: image.digest}
    assert is_tagged(store.root, NAME, image.digest)
    assert not is_tagged(store.root, NAME, sha256_digest(b"other"))
    store.path(image.digest).unlink()
    assert not is_tagged(store.root, NAME, image.digest), "a name of what is not here does not count"


def test_the_shortcut_never_outlives_the_index(store: Store) -> None:
    """Another tool replaced index.json: the derived file must not be believed."""
    store.tag(NAME, add_image(store))
    other = add_image(store, b"2")
    entry = {**other.to_json(), "annotations": {"org.opencontainers.image.ref.name": "x"}}
    (store.root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))

    assert read_names(store.root) == {"x": other.digest}


def test_reading_names_imports_nothing_heavy(store: Store) -> None:
    store.tag(NAME, add_image(store))
    code = (
        "import sys; from lamina.store.names import read_names; assert read_names(sys.argv[1])\n"
        "print(*sorted({'json', 'dataclasses', 'typing', 're', 'pathlib', 'subprocess'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}", str(store.root)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert run.stdout.strip() == ""


def _tag_many(root: Path, number: int) -> None:
    store = Store(root)
    for count in range(10):
        store.tag(f"docker.io/library/app{number}:{count}", add_image(store, f"{number} {count}".encode()))


def test_many_processes_name_images_at_once(tmp_path: Path) -> None:
    """No name is lost when several processes rewrite index.json."""
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_tag_many, args=(tmp_path / "oci", number)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    store = Store(tmp_path / "oci")
    assert len(store.images()) == 30
    assert store.check(full=True) == []


def test_the_lock_is_reentrant_in_a_thread(store: Store) -> None:
    image = add_image(store)

    with store.lock(), store.lock():
        store.tag(NAME, image)

    assert store.resolve(NAME) is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small tmpfs")
def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], check=True)
    try:
        store = Store(small / "oci")
        image = add_image(store)
        store.tag(NAME, image)
        big = b"\xff" * (4 << 20)
        with store.ingest(describe(big), "big") as ingest, pytest.raises(StorageError) as caught:
            ingest.write(big)

        assert "no space left" in caught.value.what
        assert "free" in caught.value.what
        assert str(small) in caught.value.where
        assert store.check(full=True) == []
        with store.ingest() as ingest:
            ingest.write(b"it works again")
            ingest.commit()
    finally:
        subprocess.run(["umount", str(small)], check=True)
