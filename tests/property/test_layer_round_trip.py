"""Random trees become blobs and trees again without a loss, and always the same blob."""

from __future__ import annotations

import io
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lamina.layer.blob import pack, recompress, scan
from lamina.layer.compress import Compression, compressor, open_stream
from lamina.layer.entry import Entry, Item
from lamina.layer.errors import CompressionError
from lamina.layer.tar_read import iter_entries
from lamina.layer.tar_write import write_items
from lamina.layer.tree import TreeWriter, tree_items, unpack, walk_tree
from lamina.oci.digest import Digest, sha256_digest
from unit.layer.tars import link_groups, reader, seen_in_tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away and make devices")

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # version 2, cap_net_bind_service
SLOW = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], deadline=None)

parts = st.one_of(
    st.sampled_from([b"a", b"b", b"sub", b"x" * 100, b"y" * 155, b"z" * 255, b"\xff\xfe", "ü€\U0001f600".encode()]),
    st.binary(min_size=1, max_size=12).filter(
        lambda name: not set(name) & set(b"/\0") and name not in (b".", b"..") and not name.startswith(b".wh.")
    ),
)
owners = st.one_of(st.integers(0, 10), st.sampled_from([65534, 0o7777777, 0o10000000, 4_000_000_000, 2**32 - 2]))
times = st.one_of(st.integers(0, 2**31), st.sampled_from([-5, 0o77777777777, 0o77777777777 + 1]))
attributes = st.dictionaries(
    st.sampled_from(["user.a", "user.ü", "trusted.b", "user.long." + "n" * 200]), st.binary(max_size=300), max_size=2
)
contents = st.one_of(st.binary(max_size=2000), st.sampled_from([b"", b"x" * 511, b"x" * 512, b"x" * (1 << 20) + b"y"]))
nodes = st.fixed_dictionaries(
    {
        "kind": st.sampled_from("fffddlphccbs"),
        "mode": st.integers(0, 0o7777),
        "uid": owners,
        "gid": owners,
        "mtime": times,
        "xattrs": attributes,
        "content": contents,
        "target": st.one_of(st.just(b"../" * 50 + b"x"), parts),
        "dev": st.tuples(st.integers(0, 0xFFF), st.integers(0, 0xFFFFF)),
        "capable": st.booleans(),
    }
)
trees = st.lists(st.tuples(st.lists(parts, min_size=1, max_size=5), nodes), max_size=12)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory on tmpfs if there is one: it takes every time and the trees come and go fast."""
    shm = "/dev/shm"
    folder = Path(tempfile.mkdtemp(prefix="lamina-trip-", dir=shm if os.access(shm, os.W_OK) else None))
    yield folder
    shutil.rmtree(folder)


class Example:
    """A directory for one example."""

    def __init__(self, place: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=place))

    def __enter__(self) -> Path:
        return self.folder

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.folder)


def write_tree(root: bytes, tree: list[tuple[list[bytes], dict[str, object]]]) -> None:
    """Write a random tree with nothing but system calls; what cannot be there is left out."""
    os.mkdir(root)
    files: list[bytes] = []
    folders: list[tuple[bytes, dict[str, object]]] = []
    for path, node in tree:
        above = root
        for part in path[:-1]:
            if os.path.isdir(above) and not os.path.islink(above):
                above = os.path.join(above, part)
                if not os.path.lexists(above):
                    os.mkdir(above)
        whole = os.path.join(above, path[-1])
        if os.path.lexists(whole) or not os.path.isdir(above) or os.path.islink(above):
            continue
        kind = node["kind"]
        if kind == "d":
            os.mkdir(whole)
            folders.append((whole, node))
            continue
        if kind == "h":
            if files:
                os.link(files[-1], whole, follow_symlinks=False)
            continue
        make_node(whole, node)
        files.append(whole)
        set_metadata(whole, node)
    for whole, node in reversed(folders):
        set_metadata(whole, node)


def make_node(whole: bytes, node: dict[str, object]) -> None:
    kind = node["kind"]
    if kind == "l":
        os.symlink(node["target"], whole)  # type: ignore[arg-type]
    elif kind == "p":
        os.mkfifo(whole)
    elif kind in ("c", "b"):
        major, minor = node["dev"]  # type: ignore[misc]
        assume(kind == "b" or (major, minor) != (0, 0))
        os.mknod(whole, (0o020000 if kind == "c" else 0o060000) | 0o600, os.makedev(major, minor))
    else:
        with open(whole, "xb") as stream:
            if kind == "s":
                stream.seek(3 << 20)
            stream.write(node["content"])  # type: ignore[arg-type]


def set_metadata(whole: bytes, node: dict[str, object]) -> None:
    kind = node["kind"]
    os.chown(whole, node["uid"], node["gid"], follow_symlinks=False)  # type: ignore[arg-type]
    if kind != "l":
        os.chmod(whole, node["mode"])  # type: ignore[arg-type]
    names: dict[str, bytes] = dict(node["xattrs"])  # type: ignore[call-overload]
    if kind in ("f", "s") and node["capable"]:
        names["security.capability"] = CAPABILITY
    for name, value in names.items():
        if kind in "fds" or name.startswith("trusted."):  # user.* is for files and directories only
            try:
                os.setxattr(whole, name, value, follow_symlinks=False)
            except OSError:
                continue  # a file system without them
    os.utime(whole, (node["mtime"], node["mtime"]), follow_symlinks=False)  # type: ignore[arg-type]


class Keep:
    """An ingest in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> None:
        self.data += data

    def commit(self) -> tuple[Digest, int]:
        return sha256_digest(bytes(self.data)), len(self.data)


@settings(SLOW, max_examples=60)
@given(tree=trees, kind=st.sampled_from(["uncompressed", "gzip", "zstd"]))
def test_tree_to_blob_to_tree(place: Path, tree: list[tuple[list[bytes], dict[str, object]]], kind: str):
    """Kinds, modes, owners, times to the second, attributes, hard links, contents, names of any bytes."""
    with Example(place) as folder:
        root = folder / "one"
        write_tree(os.fsencode(root), tree)
        entries = walk_tree(root, "trusted")

        blob = Keep()
        packed = pack(tree_items(root, entries), blob, Compression(kind))

        (folder / "two").mkdir()
        again = unpack(io.BytesIO(blob.data), TreeWriter(folder / "two", "trusted"), expected=packed.diff_id)
        assert again == packed.entries
        assert seen_in_tree(folder / "two") == seen_in_tree(root)
        assert link_groups(folder / "two") == link_groups(root)
        assert scan(io.BytesIO(blob.data)) == (packed.entries, packed.diff_id)

        twice = Keep()
        assert pack(tree_items(folder / "two", again), twice, Compression(kind)).digest == packed.digest
        walked = walk_tree(folder / "two", "trusted")
        assert [entry.path for entry in walked] == [entry.path for entry in entries]

        plain = Keep()
        diff_id, _, _ = recompress(io.BytesIO(blob.data), plain, Compression("uncompressed"))
        assert diff_id == packed.diff_id == sha256_digest(bytes(plain.data))


entries_ = st.builds(
    Entry,
    path=st.lists(parts, min_size=1, max_size=6).map(lambda names: os.fsdecode(b"/".join(names))),
    kind=st.sampled_from("fdlhcbp"),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime_ns=st.integers(-(2**33), 2**33 - 1).map(lambda seconds: seconds * 10**9),
    target=st.lists(parts, min_size=1, max_size=4).map(lambda names: os.fsdecode(b"/".join(names))),
    dev=st.tuples(st.integers(0, 0xFFF), st.integers(0, 0xFFFFF)),
    size=st.just(0),
    digest=st.just(""),
    opaque=st.just(False),
    xattrs=st.dictionaries(
        st.text(st.characters(exclude_characters="=\0", exclude_categories=["Cs"]), min_size=1, max_size=60),
        st.binary(max_size=600),
        max_size=3,
    ).map(lambda found: tuple(sorted(found.items()))),
)


@SLOW
@given(found=st.lists(st.tuples(entries_, contents), max_size=8))
def test_what_is_written_is_what_is_read(found: list[tuple[Entry, bytes]]):
    """The codec alone, without file systems' limits: every entry that can be written comes back as it was."""
    items = [Item(*fitting(entry, data)) for entry, data in found]
    archive = bytearray()

    written = write_items(items, archive.extend)

    assert len(archive) % 512 == 0
    read = [(entry, read_all(body)) for entry, body in iter_entries(reader(bytes(archive)))]
    assert [entry for entry, _ in read] == [entry._replace(digest="") for entry in written]
    assert [data for _, data in read] == [item.content or b"" for item in items]


def fitting(entry: Entry, data: bytes) -> tuple[Entry, bytes | None]:
    """Return an entry with the fields its kind does not have as they are read back."""
    kind = entry.kind
    return entry._replace(
        size=len(data) if kind == "f" else 0,
        target=entry.target if kind in "lh" else "",
        dev=entry.dev if kind in "cb" else (0, 0),
        xattrs=tuple(pair for pair in entry.xattrs if len(pair[0].encode()) <= 255),
    ), data if kind == "f" else None


def read_all(body: object) -> bytes:
    data = b""
    while chunk := body(100_000):  # type: ignore[operator]
        data += chunk
    return data


@SLOW
@given(data=st.binary(max_size=5000), kind=st.sampled_from(["gzip", "zstd"]))
def test_compressed_streams_in_pieces(data: bytes, kind: str):
    """Many members in a row, read in odd pieces, are the content; one byte less is an error."""
    blob = b""
    for at in range(0, max(1, len(data)), 1000):
        worker = compressor(Compression(kind))
        blob += worker.compress(data[at : at + 1000]) + worker.flush()
    source = io.BytesIO(blob)
    read = open_stream(lambda size: source.read(min(size, 7)))
    assert read_all(read) == data
    short = open_stream(io.BytesIO(blob[:-1]).read)
    with pytest.raises(CompressionError):
        read_all(short)
