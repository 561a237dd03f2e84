"""What indexes say equals what overlayfs shows: unions of layers, and plans of file actions.

Each example builds a chain of layers, lays their trees under a real overlay mount, and compares. Needs the right to
mount; without it there is nothing to compare with.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lamina.errors import InputError
from lamina.layer.entry import Entry, FileSlice, Item
from lamina.layer.index import Index
from lamina.layer.recipe import CopyOptions, Plan
from lamina.layer.union import Union
from lamina.layer.view import ChainView
from lamina.source.context import ContextView

LIBC = ctypes.CDLL(None, use_errno=True)
OPAQUE = "trusted.overlay.opaque"
OLD = 10**18  # times of everything we make on purpose; what is younger was stamped by the kernel


def mount(kind: str, target: Path, options: str) -> None:
    if LIBC.mount(kind.encode(), os.fsencode(target), kind.encode(), 0, options.encode()):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), kind)


def unmount(target: Path) -> None:
    if LIBC.umount2(os.fsencode(target), 0):
        raise OSError(ctypes.get_errno(), "umount", str(target))


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A tmpfs: overlay needs an upper file system with trusted xattrs, and ext4 would be slow."""
    place = tmp_path_factory.mktemp("arena")
    try:
        mount("tmpfs", place, "size=64m")
    except OSError as error:
        pytest.skip(f"cannot mount here: {error}")
    try:
        yield place
    finally:
        unmount(place)


class Bench:
    """One example's directory: a chain of trees with their indexes, and mounts over them."""

    def __init__(self, arena: Path) -> None:
        self.place = arena / "example"
        self.place.mkdir()
        self.trees: list[Path] = []
        self.indexes: list[Index] = []
        self._numbers = itertools.count()

    @property
    def union(self) -> Union:
        return Union(self.indexes)

    def fresh(self) -> Path:
        path = self.place / str(next(self._numbers))
        path.mkdir()
        return path

    def add_tree(self, tree: Path) -> None:
        self.trees.append(tree)
        self.indexes.append(Index.from_entries(read_tree(tree)))

    def add_entries(self, items: list[Item]) -> None:
        tree = self.fresh()
        write_tree(tree, items, self.union)
        self.trees.append(tree)
        self.indexes.append(Index.from_entries(item.entry for item in items))

    @contextlib.contextmanager
    def mounted(self) -> Iterator[tuple[Path, Path]]:
        """Yield (merged, upper)."""
        upper, work, merged = self.fresh(), self.fresh(), self.fresh()
        lowers = ":".join(str(tree) for tree in reversed(self.trees)) or str(self.fresh())
        options = f"lowerdir={lowers},upperdir={upper},workdir={work},redirect_dir=off,metacopy=off,index=off"
        mount("overlay", merged, options)
        try:
            yield merged, upper
        finally:
            unmount(merged)


@contextlib.contextmanager
def bench(arena: Path) -> Iterator[Bench]:
    made = Bench(arena)
    try:
        yield made
    finally:
        shutil.rmtree(made.place)


def read_tree(root: Path) -> list[Entry]:
    """Walk an overlay upper directory into entries, whiteouts and all."""
    entries, first = [], {}
    for folder, folders, files in os.walk(root):
        for name in sorted([*folders, *files]):
            path = os.path.join(folder, name)
            entry = read_entry(path, os.path.relpath(path, root))
            inode = os.lstat(path)
            if entry.kind == "f" and inode.st_nlink > 1:
                target = first.setdefault(inode.st_ino, entry.path)
                if target != entry.path:
                    entry = entry._replace(kind="h", target=target, size=0)
            entries.append(entry)
    return entries


def read_entry(path: str, relative: str) -> Entry:
    found = os.lstat(path)
    names = [name for name in os.listxattr(path, follow_symlinks=False) if name.startswith("user.")]
    xattrs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names))
    if stat.S_ISCHR(found.st_mode) and found.st_rdev == 0:
        return Entry(relative, "w")
    kind = {stat.S_IFREG: "f", stat.S_IFDIR: "d", stat.S_IFLNK: "l", stat.S_IFIFO: "p"}[stat.S_IFMT(found.st_mode)]
    opaque = kind == "d" and OPAQUE in os.listxattr(path) and os.getxattr(path, OPAQUE) == b"y"
    return Entry(
        relative,
        kind,
        stat.S_IMODE(found.st_mode),
        found.st_uid,
        found.st_gid,
        found.st_mtime_ns,
        found.st_size if kind == "f" else 0,
        os.readlink(path) if kind == "l" else "",
        xattrs=xattrs,
        opaque=opaque,
    )


def write_tree(root: Path, items: list[Item], below: Union) -> None:
    """Unpack items as a tree over a chain: parents they lack are taken from below."""
    for item in sorted(items, key=lambda item: (item.entry.kind == "h", item.entry.path.count("/"))):
        entry = item.entry
        target = root / entry.path
        for parent in reversed(target.relative_to(root).parents):
            if not (root / parent).is_dir():
                known = None if is_cut(str(parent), items) else below.lookup(str(parent))
                implied = Entry(str(parent), "d", 0o755)
                whiteout = os.path.lexists(root / parent)
                implied = known if known is not None and known.kind == "d" else implied
                (root / parent).unlink(missing_ok=True)
                (root / parent).mkdir()
                dress(root / parent, implied._replace(opaque=whiteout))
        if entry.kind == "w" and hides_nothing(entry.path, items, below):
            continue  # overlayfs would list it in a directory that has nothing below it
        if entry.kind == "w":
            os.mknod(target, stat.S_IFCHR, 0)
        elif entry.kind == "d":
            target.mkdir()
        elif entry.kind == "l":
            os.symlink(entry.target, target)
        elif entry.kind == "h":
            os.link(root / entry.target, target)
        elif entry.kind == "p":
            os.mkfifo(target)
        else:
            target.write_bytes(content_of(item))
        if entry.kind not in "hw":
            dress(target, entry)
    for item in sorted(items, key=lambda item: -item.entry.path.count("/")):
        if item.entry.kind == "d":
            os.utime(root / item.entry.path, ns=(OLD, item.entry.mtime_ns))


def hides_nothing(path: str, items: list[Item], below: Union) -> bool:
    return below.lookup(path) is None or is_cut(path.rpartition("/")[0], items)


def is_cut(path: str, items: list[Item]) -> bool:
    """Tell whether a layer hides all below it at `path`."""
    cuts = {item.entry.path for item in items if item.entry.kind == "w" or item.entry.opaque}
    parts = path.split("/")
    return any("/".join(parts[:number]) in cuts for number in range(1, len(parts) + 1))


def content_of(item: Item) -> bytes:
    content = item.content
    if isinstance(content, FileSlice):
        return Path(content.root, content.path).read_bytes()
    return content or b"x" * item.entry.size


def dress(target: Path, entry: Entry) -> None:
    os.chown(target, entry.uid, entry.gid, follow_symlinks=False)
    if entry.kind != "l":
        os.chmod(target, entry.mode)
    for name, value in entry.xattrs:
        os.setxattr(target, name, value, follow_symlinks=False)
    if entry.opaque:
        os.setxattr(target, OPAQUE, b"y")
    os.utime(target, ns=(OLD, entry.mtime_ns), follow_symlinks=False)


def listing(root: Path) -> dict[str, Entry]:
    """Everything a mount shows, times that the kernel stamped set to 0."""
    shown = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            entry = read_entry(path, os.path.relpath(path, root))
            shown[entry.path] = entry._replace(mtime_ns=entry.mtime_ns if entry.mtime_ns <= OLD else 0, opaque=False)
    return shown


def told(union: Union) -> dict[str, Entry]:
    """The same, told by a union."""
    return {entry.path: entry._replace(digest="") for entry in union.walk() if entry.path}


def same_trees(real: dict[str, Entry], ours: dict[str, Entry]) -> None:
    assert sorted(real) == sorted(ours)
    for path, entry in real.items():
        mine = ours[path]
        if entry.mtime_ns == 0:  # the kernel's time: ours is what the source or the layer below had
            mine = mine._replace(mtime_ns=0)
        assert entry == mine, path


# --- strategies: few names, so that layers collide ---

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
LINKS = st.sampled_from(["a", "b", "/a", "../b", "a/b", "/c/a", "missing", "../../a", "/"])
MODES = st.sampled_from([0o644, 0o755, 0o700, 0o4755, 0o600])
XATTRS = st.sampled_from([(), (), (("user.x", b"1"),), (("user.x", b"2"), ("user.y", b"\0"))])


@st.composite
def entries(draw: st.DrawFn, whiteouts: bool = True) -> list[Entry]:
    """Entries of a layer that other tools made: parents may be missing, whiteouts and opaque directories anywhere."""
    table: dict[str, Entry] = {}
    for path in draw(st.lists(PATHS, max_size=7)):
        kind = draw(st.sampled_from("ffddlwp" if whiteouts else "ffddl"))
        uid = draw(st.sampled_from([0, 7]))
        table[path] = Entry(
            path,
            kind,
            0o777 if kind == "l" else 0 if kind == "w" else draw(MODES),
            0 if kind == "w" else uid,
            0 if kind == "w" else uid,
            0 if kind == "w" else OLD - draw(st.integers(0, 5)) * 10**9,
            draw(st.integers(0, 9)) if kind == "f" else 0,
            draw(LINKS) if kind == "l" else "",
            xattrs=draw(XATTRS) if kind in "fd" else (),
            opaque=kind == "d" and whiteouts and draw(st.booleans()),
        )
    usable = [entry for entry in table.values() if not below_a_leaf(entry.path, table)]
    files = [entry.path for entry in usable if entry.kind == "f"]
    if files and draw(st.booleans()):
        name = draw(PATHS)
        if name not in table and not below_a_leaf(name, table) and not any(p.startswith(name + "/") for p in table):
            data = table[files[0]]
            usable.append(data._replace(path=name, kind="h", target=data.path, size=0))
    return usable


def below_a_leaf(path: str, table: dict[str, Entry]) -> bool:
    parts = path.split("/")
    return any(
        (found := table.get("/".join(parts[:number]))) is not None and found.kind not in "dw"
        for number in range(1, len(parts))
    )


SETTINGS = settings(
    max_examples=int(os.environ.get("LAMINA_EXAMPLES", "150")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@SETTINGS
@given(layers=st.lists(entries(), min_size=1, max_size=4))
def test_a_union_shows_what_overlay_shows(arena: Path, layers: list[list[Entry]]) -> None:
    """For layers of any origin: the same names, kinds, owners, modes, xattrs, targets, sizes."""
    with bench(arena) as made:
        for layer in layers:
            made.add_entries([Item(entry) for entry in layer])

        with made.mounted() as (merged, _):
            real = listing(merged)

        same_trees(real, told(made.union))


# --- file actions, done for real on a mount: the judge ---


def in_root(root: Path, path: str) -> Path:
    """Resolve `path` with `root` as "/", missing parts kept."""
    done, pending, links = root, [part for part in path.split("/") if part][::-1], 0
    while pending:
        part = pending.pop()
        if part == "..":
            done = done.parent if done != root else root
        elif part != ".":
            step = done / part
            if step.is_symlink():
                links += 1
                if links > 100:
                    raise OSError("loop")
                text = os.readlink(step)
                done = root if text.startswith("/") else done
                pending.extend([one for one in text.split("/") if one][::-1])
            else:
                done = step
    return done


class Real:
    """The file actions by system calls on a mounted root, following what BuildKit's file backend documents."""

    def __init__(self, root: Path, owner: tuple[int, int] | None, mode: int | None) -> None:
        self.root, self.owner, self.mode = root, owner, mode
        self.inodes: dict[int, Path] = {}

    def make_dirs(self, path: Path, mode: int = 0o755) -> None:
        for part in [*reversed(path.relative_to(self.root).parents), path.relative_to(self.root)]:
            one = self.root / part
            if not os.path.lexists(one):
                one.mkdir()
                os.chmod(one, (self.mode if self.mode is not None else mode) & 0o777)
                if self.owner:
                    os.chown(one, *self.owner)
            elif not stat.S_ISDIR(os.lstat(one).st_mode):
                raise NotADirectoryError(one)

    def copy(self, src: Path, name: str, dest: str, contents: bool, replace: bool) -> None:
        self.replace = replace
        ensure = dest if dest.endswith("/") else dest.rpartition("/")[0]
        self.make_dirs(in_root(self.root, ensure))
        target = in_root(self.root, dest)
        there = os.path.lexists(target)
        is_dir = stat.S_ISDIR(os.lstat(src).st_mode)
        if there and ((is_dir and not contents) or (not is_dir and target.is_dir())):
            target /= name
        if target != self.root:
            self.make_dirs(target if is_dir and contents and not there else target.parent)
        self._copy(src, target, top=True)

    def _copy(self, src: Path, target: Path, top: bool = False) -> None:
        found = os.lstat(src)
        is_dir = stat.S_ISDIR(found.st_mode)
        there = os.lstat(target) if os.path.lexists(target) else None
        if self.replace and there and not (is_dir and stat.S_ISDIR(there.st_mode)):
            shutil.rmtree(target) if stat.S_ISDIR(there.st_mode) else target.unlink()
            there = None
        if is_dir:
            if there is None:
                target.mkdir()
            elif not stat.S_ISDIR(there.st_mode):
                raise NotADirectoryError(target)
            for name in sorted(os.listdir(src)):
                self._copy(src / name, target / name)
            if top and there is not None:
                os.utime(target, ns=(OLD, found.st_mtime_ns))
                return
        else:
            if there is not None:
                if stat.S_ISDIR(there.st_mode):
                    raise IsADirectoryError(target)
                target.unlink()
            if stat.S_ISLNK(found.st_mode):
                os.symlink(os.readlink(src), target)
            elif stat.S_ISFIFO(found.st_mode):
                os.mkfifo(target)
            elif found.st_ino in self.inodes:
                os.link(self.inodes[found.st_ino], target)
            else:
                shutil.copyfile(src, target)
                if found.st_nlink > 1:
                    self.inodes[found.st_ino] = target
        self._dress(src, target, found)

    def _dress(self, src: Path, target: Path, found: os.stat_result) -> None:
        os.chown(target, *(self.owner or (found.st_uid, found.st_gid)), follow_symlinks=False)
        if not target.is_symlink():
            os.chmod(target, self.mode if self.mode is not None else stat.S_IMODE(found.st_mode))
        for name in os.listxattr(src, follow_symlinks=False):
            if name.startswith("user."):
                os.setxattr(target, name, os.getxattr(src, name), follow_symlinks=False)
        os.utime(target, ns=(OLD, found.st_mtime_ns), follow_symlinks=False)

    def rm(self, path: str) -> None:
        parent, _, name = path.strip("/").rpartition("/")
        target = in_root(self.root, parent) / name
        if not os.path.lexists(target) or not target.parent.is_dir():
            raise FileNotFoundError(target)
        shutil.rmtree(target) if stat.S_ISDIR(os.lstat(target).st_mode) else target.unlink()

    def mkdir(self, path: str, parents: bool) -> None:
        target = in_root(self.root, path)
        if parents:
            self.make_dirs(target)
        elif not os.path.lexists(target):
            target.mkdir()
            os.chmod(target, 0o755)

    def mkfile(self, path: str, data: bytes) -> None:
        target = in_root(self.root, path)
        if os.path.lexists(target) and not stat.S_ISREG(os.lstat(target).st_mode):
            raise OSError("not a file")
        new = not target.exists()
        target.write_bytes(data)
        if new:
            os.chmod(target, 0o644)

    def symlink(self, text: str, path: str) -> None:
        os.symlink(text, in_root(self.root, path))


@st.composite
def actions(draw: st.DrawFn) -> tuple[object, ...]:
    kind = draw(st.sampled_from(["copy", "copy", "copy", "rm", "mkdir", "mkfile", "symlink"]))
    path = "/" + draw(PATHS)
    if kind == "copy":
        src = draw(st.sampled_from(["/", "a", "b", "a/b", "c"]))
        dest = draw(st.sampled_from([path, path + "/", "/"]))
        owner = draw(st.sampled_from([None, (3, 4)]))
        return (
            kind,
            src,
            dest,
            owner,
            draw(st.sampled_from([None, None, 0o711])),
            draw(st.booleans()),
            draw(st.booleans()),
        )
    if kind == "mkdir":
        return kind, path, draw(st.booleans())
    if kind == "mkfile":
        return kind, path, draw(st.binary(max_size=3))
    return (kind, draw(LINKS), path) if kind == "symlink" else (kind, path)


def act_for_real(root: Path, source: Path, action: tuple) -> None:
    kind, *rest = action
    if kind == "copy":
        src, dest, owner, mode, contents, replace = rest
        found = in_root(source, src)
        os.lstat(found)
        Real(root, owner, mode).copy(found, src.strip("/").rpartition("/")[2], dest, contents, replace)
    else:
        getattr(Real(root, None, None), kind)(*rest)


def act_in_plan(plan: Plan, view: ContextView | ChainView, action: tuple) -> None:
    kind, *rest = action
    if kind == "copy":
        src, dest, owner, mode, contents, replace = rest
        options = CopyOptions(
            owner=owner,
            mode=mode,
            follow_symlink=True,
            dir_copy_contents=contents,
            create_dest_path=True,
            always_replace_existing_dest_paths=replace,
        )
        plan.copy(view, src, dest, options)
    elif kind == "mkdir":
        plan.mkdir(rest[0], make_parents=rest[1])
    else:
        getattr(plan, kind)(*rest)


def hard_links(tree: Path) -> set[frozenset[str]]:
    groups: dict[int, set[str]] = {}
    for folder, _, files in os.walk(tree):
        for name in files:
            path = os.path.join(folder, name)
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
                groups.setdefault(found.st_ino, set()).add(os.path.relpath(path, tree))
    return {frozenset(group) for group in groups.values()}


@SETTINGS
@given(
    layers=st.lists(entries(), max_size=3),
    source=entries(whiteouts=False),
    todo=st.lists(actions(), min_size=1, max_size=4),
)
def test_a_plan_leaves_what_real_copies_leave_on_a_mount(
    arena: Path, layers: list[list[Entry]], source: list[Entry], todo: list[tuple]
) -> None:
    """The merged tree, the tree made of the plan's items, errors, and hard links agree with the real thing."""
    with bench(arena) as made:
        for layer in layers:
            made.add_entries([Item(entry) for entry in layer])
        context = made.fresh()
        write_tree(context, [Item(entry._replace(uid=0, gid=0)) for entry in source], Union())
        os.utime(context, ns=(OLD, OLD))
        plan = Plan(made.union, now_ns=OLD)
        with ContextView(context) as view, made.mounted() as (merged, upper):
            for action in todo:
                refused = failed = None
                try:
                    act_in_plan(plan, view, action)
                except InputError as error:
                    refused = error
                try:
                    act_for_real(merged, context, action)
                except OSError as error:
                    failed = error
                assert bool(refused) == bool(failed), (action, refused, failed)
                if refused:
                    break  # a step that fails leaves no layer
            assume(refused is None)
            real, real_links = listing(merged), hard_links(upper)

            same_trees(real, told(plan.union()))
            made.add_entries(plan.items())
            with made.mounted() as (again, _):
                same_trees(real, listing(again))
                assert all(
                    (again / p).read_bytes() == (merged / p).read_bytes() for p, e in real.items() if e.kind == "f"
                )
            assert real_links == hard_links(made.trees[-1])


@SETTINGS
@given(layers=st.lists(entries(), min_size=1, max_size=3), action=actions())
def test_a_copy_from_a_chain_is_a_copy_from_its_mount(arena: Path, layers: list[list[Entry]], action: tuple) -> None:
    """A chain as source gives, with owners kept, what copying out of the mounted chain gives."""
    assume(action[0] == "copy")
    with bench(arena) as made:
        for layer in layers:
            made.add_entries([Item(entry) for entry in layer])
        plan = Plan(Union(), now_ns=OLD)
        view = ChainView(made.union, lambda number: str(made.trees[number]))
        with made.mounted() as (source, _):
            target = made.fresh()
            refused = failed = None
            try:
                act_in_plan(plan, view, action)
            except InputError as error:
                refused = error
            try:
                act_for_real(target, source, action)
            except OSError as error:
                failed = error
            assert bool(refused) == bool(failed), (refused, failed)
            assume(refused is None)

            same_trees(listing(target), told(plan.union()))
            tree = made.fresh()
            write_tree(tree, plan.items(), Union())
            assert hard_links(tree) == hard_links(target)
