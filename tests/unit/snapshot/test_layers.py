"""Layers in their three forms: what a step's upper directory comes to, what pulled layers come to, and what stays
after a failure. Steps are played on real overlay mounts."""

from __future__ import annotations

import ctypes
import gzip
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lamina.cancel import Cancel
from lamina.errors import Error, StorageError
from lamina.layer.compress import Compression
from lamina.layer.entry import Entry, Item
from lamina.layer.errors import CompressionError, DiffIdError, TarError
from lamina.oci.digest import Digest
from lamina.snapshot.layers import Layers
from lamina.snapshot.rows import LayerRef, LayerRow
from lamina.state.db import State
from lamina.state.locks import Locks
from lamina.store.store import Store
from unit.layer.tars import END, file, folder, hardlink, link_groups, seen_in_tree, symlink

LIBC = ctypes.CDLL(None, use_errno=True)
PLAIN = Compression("uncompressed")
OPTIONS = "redirect_dir=nofollow,metacopy=off,index=off"  # as the executor mounts


def mount(kind: str, target: Path, options: str) -> None:
    if LIBC.mount(kind.encode(), os.fsencode(target), kind.encode(), 0, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), kind)


def unmount(target: Path) -> None:
    if LIBC.umount2(os.fsencode(target), 0):
        raise OSError(ctypes.get_errno(), "umount", str(target))


@pytest.fixture(autouse=True)
def can_mount(tmp_path: Path) -> None:
    """Every test here needs real mounts."""
    if os.geteuid() != 0:
        pytest.skip("needs root for overlay mounts")
    place = tmp_path / "try"
    place.mkdir()
    try:
        mount("tmpfs", place, "size=1m")
    except OSError as error:
        pytest.skip(f"cannot mount here: {error}")
    unmount(place)


class Bench:
    """A store of layers, and steps on them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work = root / "work"
        self.work.mkdir(parents=True)
        self.state = State(root)
        self.open()

    def open(self) -> None:
        """Look at what is on disk afresh."""
        root = self.root
        self.store = Store(root / "oci", durable=False)
        self.layers = Layers(
            root, self.state, self.store, Locks(root / "locks"), flavour="trusted", work=self.work, fetch=self.fetch
        )

    def fetch(self, row: LayerRow, cancel: Cancel) -> None:
        raise AssertionError(f"nothing is remote here: {row}")

    def run(self, parent: LayerRef, step: Callable[[Path], object]) -> LayerRef:
        """Play a step as the executor does: on an overlay of the chain, its writes in an upper directory."""
        upper = self.layers.new_upper(parent, Cancel())
        with self.mounted(parent, upper) as merged:
            step(merged)
        return self.layers.add_upper(parent, upper, "step")

    @contextmanager
    def mounted(self, ref: LayerRef, upper: Path | None = None) -> Iterator[Path]:
        """Lay a chain over one another."""
        merged, work, empty = (self.layers.scratch(kind) for kind in "mwe")
        for path in (merged, work, empty):
            path.mkdir()
        lowers = self.layers.trees(ref, Cancel()) or [str(empty)]
        above = f",upperdir={upper},workdir={work}" if upper is not None else ""
        if upper is None:
            lowers.append(str(empty))  # a mount without an upper wants two
        mount("overlay", merged, f"lowerdir={':'.join(lowers)}{above},{OPTIONS}")
        try:
            yield merged
        finally:
            unmount(merged)
            for path in (merged, work, empty):
                shutil.rmtree(path)

    def pulled(self, parent: LayerRef, archive: bytes) -> LayerRef:
        """Add a layer as a pull does: its blob is in the store, its tree is not made."""
        digest, size = self.store.add(archive)
        media_type = "application/vnd.oci.image.layer.v1.tar"
        return LayerRef(
            self.layers.add_remote(
                parent.layer, diff_id=digest, blob=digest, blob_size=size, media_type=media_type, origin=""
            )
        )

    def entries(self, ref: LayerRef) -> dict[str, Entry]:
        return self.layers.index(self.layers.rows.get(ref.layer), Cancel()).entries  # type: ignore[arg-type]

    def names(self, ref: LayerRef) -> list[str]:
        """Return what is in a layer as its archive has it: "dir/", "dir/!" opaque, ".wh.name", "name>target"."""
        shown = []
        for path, entry in sorted(self.entries(ref).items()):
            above, _, name = path.rpartition("/")
            if entry.kind == "w":
                shown.append(f"{above}/.wh.{name}".lstrip("/"))
            elif entry.kind == "d":
                shown.append(f"{path}/{'!' if entry.opaque else ''}")
            else:
                shown.append(f"{path}>{entry.target}" if entry.target else path)
        return sorted(shown)

    def blob(self, ref: LayerRef) -> bytes:
        row = self.layers.pack(self.layers.rows.get(ref.layer), PLAIN, Cancel())  # type: ignore[arg-type]
        assert row.blob is not None
        return self.store.read(Digest(row.blob))

    def check(self, ref: LayerRef, elsewhere: Path) -> None:
        """The mounted trees, the union of the indexes, and the blobs unpacked elsewhere show the same."""
        with self.mounted(ref) as merged:
            shown = seen_in_tree(merged)
        union = self.layers.union(ref, Cancel())
        indexed = {entry.path: entry for entry in union.walk() if entry.path}
        assert shown.keys() == indexed.keys()
        for path, (kind, mode, uid, gid, mtime, _, _) in shown.items():
            entry = indexed[path]
            mode = entry.mode if entry.kind == "l" else mode  # a link's mode means nothing
            assert (KINDS[entry.kind], entry.mode, entry.uid, entry.gid) == (kind, mode, uid, gid), path
            assert entry.mtime_ns // 10**9 == mtime, path
        other = Bench(elsewhere)
        chain = LayerRef(None)
        for row in self.layers.rows.chain(ref.layer):
            chain = other.pulled(chain, self.blob(LayerRef(row.id)))
        with other.mounted(chain) as merged:
            assert seen_in_tree(merged) == shown


KINDS = {"f": stat.S_IFREG, "d": stat.S_IFDIR, "l": stat.S_IFLNK, "p": stat.S_IFIFO, "c": stat.S_IFCHR}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "bench")


def sh(script: str) -> Callable[[Path], object]:
    """Return a step that runs a shell script in the root directory."""
    return lambda root: subprocess.run(["sh", "-ec", script], cwd=root, check=True)


@pytest.fixture
def base(bench: Bench) -> LayerRef:
    return bench.run(
        LayerRef(None),
        sh("mkdir -p d/s e t; echo a >d/a; echo b >d/s/b; echo f >f; ln -s d l; echo h >h; ln h h2; chmod 1777 t"),
    )


# What docker's overlay2 driver packs for the same step (tests/compat compares with the real one).
STEPS = {
    "new directory": ("mkdir -p new/sub; echo x >new/sub/x", ["new/", "new/sub/", "new/sub/x"]),
    "directory made anew": (
        "rm -rf d; mkdir -p d/s; echo b >d/s/b", ["d/!", "d/s/", "d/s/b"],
    ),
    "new directory in a new place, twice": ("rm -rf d; mkdir n; rmdir n; mkdir n", [".wh.d", "n/"]),
    "made and removed": ("echo x >x; rm x; mkdir y; rmdir y", []),
    "removed below a directory made anew": ("rm -rf d; mkdir d; echo a >d/a; rm d/a", ["d/!"]),
    "file made and removed in a directory": ("echo x >t/x; rm t/x", ["t/"]),
    "removed": ("rm -r d/s f", [".wh.f", "d/", "d/.wh.s"]),
    "mode of a directory": ("chmod 700 e", ["e/"]),
    "file, then directory": ("rm f; mkdir f; echo x >f/x", ["f/!", "f/x"]),
    "directory, then file": ("rm -r d; echo x >d", ["d"]),
    "directory, then link": ("rm -r d; ln -s e d", ["d>e"]),
    "link, then directory": ("rm l; mkdir l; echo x >l/x", ["l/!", "l/x"]),
    "through a link": ("echo x >l/x", ["d/", "d/x"]),
    "renamed file": ("mv f g", [".wh.f", "g"]),
    "one of two names written to": ("echo z >>h", ["h"]),
    "one of two names, and a new one": ("ln h h3", ["h", "h3>h"]),
    "nothing": (":", []),
    "mode of the root": ("chmod 700 .", ["/"]),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPS)
def test_a_step_comes_to_the_layer_that_docker_packs(bench: Bench, base: LayerRef, tmp_path: Path, name: str):
    """Marks that hide nothing are left out; all forms of the layer show the same."""
    script, expected = STEPS[name]

    made = bench.run(base, sh(script))

    assert bench.names(made) == expected
    bench.check(made, tmp_path / "elsewhere")


def test_a_directory_is_renamed_by_copying(bench: Bench, base: LayerRef, tmp_path: Path):
    """rename(2) says EXDEV for what lies below, so mv copies: no redirect is left in the upper directory."""
    made = bench.run(base, sh("mv d moved"))

    assert bench.names(made) == [".wh.d", "moved/", "moved/a", "moved/s/", "moved/s/b"]
    bench.check(made, tmp_path / "elsewhere")


def test_an_index_made_anew_from_the_tree_says_the_same(bench: Bench, base: LayerRef):
    made = bench.run(base, sh("mkdir new; rm -r d; mkdir d; rm f; chmod 711 ."))
    before = bench.entries(made)
    bench.layers.index_path(made.layer).unlink()  # type: ignore[arg-type]
    bench.open()

    assert bench.entries(made) == before


def test_the_mode_of_the_root_is_not_repeated_in_every_layer(bench: Bench):
    """A base whose root is 0555 (as Red Hat's) does not give each step an entry for it."""
    base = bench.pulled(LayerRef(None), folder("./", 0o555) + file("x") + END)

    made = bench.run(base, sh("echo y >y"))

    assert bench.names(made) == ["y"]
    with bench.mounted(made) as merged:
        assert stat.S_IMODE(merged.stat().st_mode) == 0o555


def test_marks_over_what_only_the_step_saw_are_left_out(bench: Bench, base: LayerRef):
    """Mount points that are not in the chain: a step that removes one leaves no whiteout in the layer."""
    upper = bench.layers.new_upper(base, Cancel())
    os.mknod(upper / "stub", stat.S_IFCHR, os.makedev(0, 0))
    os.mknod(upper / "f", stat.S_IFCHR, os.makedev(0, 0))

    assert bench.names(bench.layers.add_upper(base, upper, "step")) == [".wh.f"]


# -- foreign layers


def test_parents_that_are_only_implied_lead_through_links_below(bench: Bench, tmp_path: Path):
    """`lib/x` over a base with lib -> usr/lib lands in usr/lib, as in docker; an entry for lib would replace it."""
    base = bench.pulled(LayerRef(None), folder("usr") + folder("usr/lib", 0o711) + symlink("lib", "usr/lib") + END)

    through = bench.pulled(base, file("lib/x") + file("lib/deep/y") + hardlink("lib/z", "lib/x") + END)
    replaced = bench.pulled(base, folder("lib") + file("lib/x") + END)

    assert bench.names(through) == ["usr/lib/deep/y", "usr/lib/x", "usr/lib/z>usr/lib/x"]
    with bench.mounted(through) as merged:
        assert os.readlink(merged / "lib") == "usr/lib"
        assert (merged / "usr/lib/x").read_text() == "data"
        assert stat.S_IMODE((merged / "usr/lib").stat().st_mode) == 0o711
        assert link_groups(merged) == {frozenset(["usr/lib/x", "usr/lib/z"])}
    with bench.mounted(replaced) as merged:
        assert not (merged / "lib").is_symlink()
        assert sorted(os.listdir(merged / "usr/lib")) == []


def test_marks_in_implied_parents_lead_through_links_below(bench: Bench):
    base = bench.pulled(
        LayerRef(None), file("usr/lib/x") + file("usr/lib/y/z") + symlink("lib", "/usr/lib") + END
    )  # fmt: skip

    made = bench.pulled(base, file("lib/.wh.x", b"") + file("lib/y/.wh..wh..opq", b"") + END)

    with bench.mounted(made) as merged:
        assert sorted(os.listdir(merged / "usr/lib")) == ["y"]
        assert os.listdir(merged / "usr/lib/y") == []
        assert (merged / "lib").is_symlink()


@pytest.mark.parametrize("first", ["tree", "index"])
def test_scan_and_unpacking_agree_over_a_base(bench: Bench, first: str):
    """Whichever form is made first: the index is that of the tree."""
    base = bench.pulled(LayerRef(None), folder("real") + symlink("alias", "real") + file("real/old") + END)
    made = bench.pulled(base, file("alias/x") + file("real/.wh..wh..opq", b"") + END)
    if first == "tree":
        bench.layers.trees(made, Cancel())

    assert bench.names(made) == ["real/!", "real/x"]
    with bench.mounted(made) as merged:
        assert sorted(os.listdir(merged / "real")) == ["x"]


def test_an_opaque_mark_alone_keeps_what_the_directory_is(bench: Bench):
    """docker takes away what is in the directory, not its owner and mode; a whiteout takes both."""
    attributes = folder("d", 0o750)
    base = bench.pulled(LayerRef(None), attributes + file("d/x") + folder("e", 0o750) + file("e/x") + END)

    made = bench.pulled(base, file("d/.wh..wh..opq", b"") + file(".wh.e", b"") + file("e/y") + END)

    with bench.mounted(made) as merged:
        assert (os.listdir(merged / "d"), os.listdir(merged / "e")) == ([], ["y"])
        assert stat.S_IMODE((merged / "d").stat().st_mode) == 0o750
        assert stat.S_IMODE((merged / "e").stat().st_mode) == 0o755
    assert bench.entries(made)["d"].mode == 0o750


def test_a_hard_link_to_a_file_of_a_lower_layer_is_copied_up(bench: Bench, tmp_path: Path):
    base = bench.pulled(LayerRef(None), file("d/x", b"lower", mode=0o640, uid=7) + symlink("l", "x") + END)

    made = bench.pulled(base, hardlink("y", "d/x") + hardlink("z", "y") + hardlink("m", "l") + END)

    with bench.mounted(made) as merged:
        assert (merged / "y").read_text() == "lower"
        assert ((merged / "y").stat().st_uid, stat.S_IMODE((merged / "y").stat().st_mode)) == (7, 0o640)
        assert os.readlink(merged / "m") == "x"
        assert frozenset(["y", "z"]) in link_groups(merged)
    bench.check(made, tmp_path / "elsewhere")


def test_a_hard_link_to_what_this_layer_hides_is_refused(bench: Bench):
    base = bench.pulled(LayerRef(None), file("x") + file("d/x") + END)
    for archive in (file(".wh.x", b"") + hardlink("y", "x"), file("d/.wh..wh..opq", b"") + hardlink("y", "d/x")):
        made = bench.pulled(base, archive + END)
        with pytest.raises(TarError, match=r"not there|no file"):
            bench.layers.trees(made, Cancel())


def test_trees_of_one_layer_on_two_bases_bear_the_metadata_of_each(bench: Bench):
    layer = file("d/x") + END
    for mode in (0o700, 0o711):
        base = bench.pulled(LayerRef(None), folder("d", mode) + END)
        with bench.mounted(bench.pulled(base, layer)) as merged:
            assert stat.S_IMODE((merged / "d").stat().st_mode) == mode


# -- one content, one digest


def test_a_recipe_packed_at_once_and_through_a_tree_has_one_digest(bench: Bench, base: LayerRef):
    items = [
        Item(Entry("n", "d", 0o750, 3, 4, 10**9)),
        Item(Entry("n/f", "f", 0o4755, 5, 6, 2 * 10**9, 4, xattrs=(("user.a", b"\0v"),)), b"data"),
        Item(Entry("n/g", "h", target="n/f")),
        Item(Entry("n/l", "l", 0o777, mtime_ns=10**9, target="f")),
        Item(Entry("f", "w")),
        Item(Entry("d", "d", 0o755, opaque=True)),
        Item(Entry("n/\udcff", "f", 0o600, size=0), b""),
    ]
    at_once = bench.layers.add_blob(base, items, "copy", PLAIN, Cancel())
    as_tree = bench.layers.add_tree(base, items, "copy", Cancel())

    assert bench.blob(at_once) == bench.blob(as_tree)
    assert bench.entries(at_once) == bench.entries(as_tree)


def test_a_tree_packed_twice_gives_one_digest(bench: Bench, tmp_path: Path):
    script = "mkdir -p a/b; echo x >a/b/c; ln a/b/c a/d; mkfifo p; find . -exec touch -hd @1000000000 {} +"
    one, two = Bench(tmp_path / "one"), Bench(tmp_path / "two")
    assert one.blob(one.run(LayerRef(None), sh(script))) == two.blob(two.run(LayerRef(None), sh(script)))


# -- failures


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    place.mkdir()
    mount("tmpfs", place, f"size={size}")
    try:
        yield place
    finally:
        unmount(place)


def left_over(bench: Bench) -> list[str]:
    """Return what lies in the work, tree and ingest directories, and rows without any form."""
    found = [str(path) for name in ("work", "trees", "oci/ingest") for path in (bench.root / name).glob("*")]
    rows = bench.state.execute("SELECT id FROM layer WHERE blob IS NULL AND tree = 0").fetchall()
    return found + [f"row {row[0]}" for row in rows]


def test_a_full_disk_while_unpacking_leaves_nothing_and_can_be_tried_again(tmp_path: Path):
    with small_disk(tmp_path / "disk", "3m") as disk:
        bench = Bench(disk / "bench")
        ref = bench.pulled(LayerRef(None), file("small") + file("big", bytes(range(256)) * 4096) + END)
        filler = disk / "filler"
        filler.write_bytes(bytes(1 << 20))
        with pytest.raises(StorageError) as caught:
            bench.layers.trees(ref, Cancel())
        assert "lamina prune" in caught.value.hint
        assert left_over(bench) == []

        filler.unlink()
        (tree,) = bench.layers.trees(ref, Cancel())
        assert os.path.getsize(f"{tree}/big") == 1 << 20
        bench.state.close()


def test_a_full_disk_while_packing_leaves_nothing_and_can_be_tried_again(tmp_path: Path):
    with small_disk(tmp_path / "disk", "3m") as disk:
        bench = Bench(disk / "bench")
        ref = bench.run(LayerRef(None), lambda root: (root / "big").write_bytes(bytes(range(256)) * 4096))
        filler = disk / "filler"
        filler.write_bytes(bytes(1 << 20))
        row = bench.layers.rows.get(ref.layer)
        with pytest.raises(StorageError):
            bench.layers.pack(row, PLAIN, Cancel())
        assert left_over(bench) == [str(bench.layers.tree_path(row.id))]
        assert bench.layers.rows.get(row.id).blob is None

        filler.unlink()
        assert bench.layers.pack(row, PLAIN, Cancel()).blob is not None
        bench.state.close()


def test_a_full_disk_while_a_recipe_is_written_leaves_nothing(tmp_path: Path):
    with small_disk(tmp_path / "disk", "2m") as disk:
        bench = Bench(disk / "bench")
        data = bytes(range(256)) * 4096
        items = [Item(Entry(f"f{n}", "f", 0o644, size=len(data)), data) for n in range(3)]
        with pytest.raises(StorageError):
            bench.layers.add_tree(LayerRef(None), items, "copy", Cancel())
        with pytest.raises(StorageError):
            bench.layers.add_blob(LayerRef(None), items, "copy", PLAIN, Cancel())
        assert left_over(bench) == []
        bench.state.close()


GOOD = file("a") + file("d/b", b"x" * 3000) + END
BROKEN = {
    "cut short": (GOOD[:1500], TarError),
    "hostile": (file("a") + file("a/b") + END, TarError),
    "gzip cut short": (gzip.compress(GOOD)[:-9], CompressionError),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_blob_leaves_no_tree(bench: Bench, name: str):
    data, error = BROKEN[name]
    ref = bench.pulled(LayerRef(None), data)
    for _ in range(2):
        with pytest.raises(error):
            bench.layers.trees(ref, Cancel())
        with pytest.raises(Error):
            bench.entries(ref)
    assert left_over(bench) == []


def test_content_of_another_digest_than_the_config_says_leaves_no_tree(bench: Bench):
    digest, size = bench.store.add(GOOD)
    other = Digest("sha256:" + "0" * 64)
    layer = bench.layers.add_remote(None, diff_id=other, blob=digest, blob_size=size, media_type="x", origin="")

    with pytest.raises(DiffIdError):
        bench.layers.trees(LayerRef(layer), Cancel())
    with pytest.raises(DiffIdError):
        bench.entries(LayerRef(layer))
    assert left_over(bench) == []


def test_a_tree_that_cannot_be_moved_into_place_leaves_no_row(bench: Bench):
    """The rename may fail (a full disk): then there is no row that says a tree is there."""
    shutil.rmtree(bench.root / "trees")
    with pytest.raises(OSError):
        bench.layers.add_tree(LayerRef(None), [Item(Entry("x", "d", 0o755))], "copy", Cancel())
    assert left_over(bench) == []
