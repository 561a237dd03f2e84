"""Cache mounts as archives: what comes out is what went in; only news is stored; damage is found. L3."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from lamina.cache.document import CacheMount, Chunk, Document
from lamina.cache.mounts import TooLargeError, choose_mount, pack_mount, unpack_mount
from lamina.cancel import Cancel
from lamina.errors import Error, InputError
from lamina.layer.tree import walk_tree
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import sha256_digest
from lamina.store.store import Store

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    """A package cache as such look: many files, a large one, a link, odd modes and owners."""
    folder = tmp_path / "mount"
    (folder / "a" / "b").mkdir(parents=True)
    chance = random.Random(3)
    for number in range(200):
        (folder / "a" / f"{number}.whl").write_bytes(chance.randbytes(20_000))
    (folder / "a" / "b" / "large").write_bytes(chance.randbytes(6 << 20))
    os.link(folder / "a" / "0.whl", folder / "a" / "b" / "again")
    (folder / "to").symlink_to("/etc/passwd")
    os.chown(folder / "a", 1000, 1001)
    (folder / "a" / "1.whl").chmod(0o4700)
    folder.chmod(0o2775)
    return folder


def pack(folder: Path, store: Store, known: CacheMount | None = None, most: int = 1 << 30) -> CacheMount:
    blobs = {chunk.raw: chunk.blob for chunk in known.chunks} if known else {}
    return pack_mount("pip", "", folder, "trusted", blobs, store, most_bytes=most, now=1.0, cancel=Cancel())


def test_round_trip(mount: Path, store: Store, tmp_path: Path) -> None:
    """Content, kinds, modes, owners, links; the mount's own mode too."""
    packed = pack(mount, store)
    out = tmp_path / "out"
    out.mkdir()
    unpack_mount(packed, lambda blob: store.read(blob.digest), out, "trusted", Cancel())

    def shown(folder: Path) -> list[tuple[object, ...]]:
        return [(e.path, e.kind, e.mode, e.uid, e.gid, e.size, e.target) for e in walk_tree(folder, "trusted")]

    assert shown(out) == shown(mount)
    assert (out / "a" / "b" / "large").read_bytes() == (mount / "a" / "b" / "large").read_bytes()
    assert (out / "a" / "0.whl").stat().st_ino == (out / "a" / "b" / "again").stat().st_ino
    assert out.stat().st_mode == mount.stat().st_mode


def test_only_news_is_stored(mount: Path, store: Store) -> None:
    """Deduplicated: another package makes one or two chunks, the rest is known."""
    first = pack(mount, store)
    before = set(store.digests())
    (mount / "a" / "new.whl").write_bytes(random.Random(4).randbytes(30_000))
    second = pack(mount, store, first)

    assert len(first.chunks) > 4
    assert len(set(store.digests()) - before) <= 2
    assert pack(mount, store, second) == second


def test_too_large(mount: Path, store: Store) -> None:
    """Size-capped, before anything is written."""
    with pytest.raises(TooLargeError, match="at most 1,000 travel"):
        pack(mount, store, most=1000)
    assert list(store.digests()) == []


@pytest.mark.parametrize("what", ["lost", "other", "damaged", "large"])
def test_damage_is_found(mount: Path, store: Store, tmp_path: Path, what: str) -> None:
    """A chunk that is not there, another one, no zstd, one that claims to be huge."""
    packed = pack(mount, store)
    out = tmp_path / "out"
    out.mkdir()
    other = store.read(packed.chunks[1].blob.digest)
    huge = b"\x28\xb5\x2f\xfd\xa4\xff\xff\xff\x7f" + bytes(20)

    def fetch(blob: Descriptor) -> bytes:
        if blob != packed.chunks[0].blob:
            return store.read(blob.digest)
        if what == "lost":
            raise InputError("gone")
        return {"other": other, "damaged": b"rotten", "large": huge}[what]

    with pytest.raises(Error):
        unpack_mount(packed, fetch, out, "trusted", Cancel())


def test_which_content_is_taken() -> None:
    """That of the same lock file, else the most recent of the mount, never another's."""
    chunk = Chunk(sha256_digest(b"r"), Descriptor("x", sha256_digest(b"b"), 1))
    old, new, npm = (
        CacheMount(n, k, (chunk,), 1, u) for n, k, u in [("pip", "k1", 1), ("pip", "k2", 2), ("npm", "", 3)]
    )
    document = Document((), (), (old, new, npm))

    assert choose_mount(document, "pip", "k1") == old
    assert choose_mount(document, "pip", "k9") == choose_mount(document, "pip", "") == new
    assert choose_mount(document, "apt", "") is None
