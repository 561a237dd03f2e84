"""Put a step's root file system together: overlay, stubs, files from memory, binds, chains, in that order.

In: the request's `rootfs` and `mounts` (plain JSON values, see `wire.py`) and an empty directory in the helper's
memory file system. Out: the directory the runtime takes as its root, and the mounts the runtime has to make itself
because they lie under what it mounts (/dev, /proc, /sys).
Mounts are made here and not by the runtime, so that one set of rules holds whatever the runtime: every target is
resolved by descriptor with the root as "/", and every source below something untrusted likewise.
Runs in the helper's mount namespace; what it leaves behind is undone by `release`.
"""

from __future__ import annotations

import os
import shutil
import stat

from lamina import rooted
from lamina.executor import kernel, overlay, stubs
from lamina.executor.stubs import MachineSetupError, SetupError, Want

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

_RUNTIME_OWNS = ("/proc", "/dev", "/sys")
_KEEP_FLAGS = {
    os.ST_NOSUID: kernel.MS_NOSUID,
    os.ST_NODEV: kernel.MS_NODEV,
    os.ST_NOEXEC: kernel.MS_NOEXEC,
    os.ST_RDONLY: kernel.MS_RDONLY,
    os.ST_NOATIME: kernel.MS_NOATIME,
    os.ST_NODIRATIME: kernel.MS_NODIRATIME,
    os.ST_RELATIME: kernel.MS_RELATIME,
}
_GIVEN_FLAGS = {"nosuid": kernel.MS_NOSUID, "nodev": kernel.MS_NODEV, "noexec": kernel.MS_NOEXEC}
_SECRET_FLAGS = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC


class _Mount:
    """One mount of the step while it is being placed."""

    def __init__(self, values: Json, fd: int, is_dir: bool, look: str = "") -> None:
        self.values = values
        self.look = look  # chain: its stack without stubs and without writes
        self.fd = fd  # O_PATH descriptor of the source, -1 for tmpfs and chains that are not mounted yet
        self.is_dir = is_dir
        self.target: str = values["target"]
        self.found = stubs.Found((), 0, True)
        self.is_inside = False  # lies in another mount
        self.inside: list[_Mount] = []  # mounts whose targets lie in this one

    @property
    def depth(self) -> int:
        return len(self.found.parts)


class Assembly:
    """The root of one step, assembled below `home`.

    Attributes:
        root: what the runtime takes as `root.path`.
        late: runtime-spec mounts for targets below what the runtime mounts.
    """

    def __init__(self, home: str, rootfs: Json, mounts: list[Json], blobs: list[bytes], *, nodev: bool) -> None:
        self.root = f"{home}/root"
        self.late: list[Json] = []
        self._home = home
        self._flags = kernel.MS_NODEV if nodev else 0
        self._mounted: list[str] = []
        self._works: list[str] = []
        self._fds: list[int] = []
        self._count = 0
        try:
            self._build(rootfs, mounts, blobs)
        except OSError as error:
            where = f" ({error.filename})" if error.filename else ""
            raise MachineSetupError(f"cannot set up the step's file system: {error.strerror}{where}") from error

    def close_sources(self) -> None:
        """Close the descriptors of the sources; the mounts hold what they need."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def release(self) -> None:
        """Unmount everything and remove the step's directory; never raises."""
        self.close_sources()
        for place in reversed(self._mounted):
            try:
                kernel.umount(place)
            except OSError:
                pass
        for work in self._works:
            overlay.clean_work(work)
        shutil.rmtree(self._home, ignore_errors=True)

    def _new(self, name: str) -> str:
        self._count += 1
        path = f"{self._home}/{name}{self._count}"
        os.mkdir(path)
        return path

    def _build(self, rootfs: Json, mounts: list[Json], blobs: list[bytes]) -> None:
        look = self._look(rootfs)
        placed = [self._source(values, blobs) for values in mounts]
        for mount in placed:
            mount.found = stubs.resolve(look, mount.target)
            if not mount.found.parts:
                raise SetupError("a mount cannot take the place of the whole root file system")
        # Parents before what lies in them; the sort is stable, so of equal targets the last is seen.
        placed.sort(key=lambda mount: mount.depth)
        outer = _nest(placed)
        wants = [Want(mount.target, mount.found, mount.is_dir) for mount in outer if not _is_late(mount)]
        wants += [Want(path, stubs.resolve(look, path), True) for path in _RUNTIME_OWNS]
        os.mkdir(self.root)
        self._stack(rootfs, wants, look, self.root)
        root_fd = rooted.open_root(self.root)
        self._fds.append(root_fd)
        # A writable root is always an overlay, with a device number of its own; a read-only one defends itself.
        device = os.fstat(root_fd).st_dev if rootfs["upper"] is not None else -1
        for number, mount in enumerate(placed):
            if _is_late(mount):
                self._place_late(mount, number)
            else:
                self._place(mount, root_fd, device)

    def _look(self, rootfs: Json) -> str:
        """Return a directory that shows the stack as it is now, without stubs and without a writable mount."""
        layers = list(rootfs["lowers"])
        if rootfs["upper"] is not None and os.listdir(rootfs["upper"]):
            layers.insert(0, rootfs["upper"])
        if len(layers) == 1:
            return str(layers[0])
        place = self._new("look")
        overlay.mount_overlay(place, layers, None, None, userxattr=rootfs["userxattr"], flags=kernel.MS_RDONLY)
        self._mounted.append(place)
        return place

    def _stack(self, rootfs: Json, wants: list[Want], look: str, place: str) -> None:
        """Mount the stack at `place`, with a stub layer for what is missing."""
        lowers = list(rootfs["lowers"])
        stub = self._new("stub")
        if stubs.build(look, stub, wants):
            lowers.insert(0, stub)
        upper, work = rootfs["upper"], rootfs["work"]
        if upper is None and len(lowers) == 1:
            kernel.mount(lowers[0], place, flags=kernel.MS_BIND)
            self._mounted.append(place)
            self._remount(place, kernel.MS_RDONLY | self._flags)
            return
        overlay.mount_overlay(place, lowers, upper, work, userxattr=rootfs["userxattr"], flags=self._flags)
        self._mounted.append(place)
        if upper is not None:
            self._works.append(work)

    def _source(self, values: Json, blobs: list[bytes]) -> _Mount:
        kind, look = values["kind"], ""
        if kind == "tmpfs":
            return _Mount(values, -1, True)
        if kind in ("secret", "file"):
            return _Mount(values, self._file(blobs[values["blob"]], values), False)
        if kind == "bind":
            base = os.open(values["source"], os.O_PATH | os.O_CLOEXEC)
        elif kind == "chain":
            look = self._look(values["rootfs"])
            base = rooted.open_root(look)
        else:
            raise SetupError(f"unknown kind of mount: {kind}")
        self._fds.append(base)
        subpath = values["subpath"].strip("/")
        if subpath:
            try:
                base = rooted.open_in_root(base, subpath)
            except OSError as error:
                raise SetupError(f"mount {values['target']}: no {subpath!r} in its source: {error.strerror}") from error
            self._fds.append(base)
        return _Mount(values, base, stat.S_ISDIR(os.fstat(base).st_mode), look)

    def _file(self, data: bytes, values: Json) -> int:
        """Write bytes into the helper's memory and return a descriptor for mounting them."""
        path = f"{self._new('file')}/data"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fchown(fd, values["uid"], values["gid"])
            os.fchmod(fd, 0o400 if values["mode"] is None else values["mode"])
        finally:
            os.close(fd)
        held = os.open(path, os.O_PATH | os.O_CLOEXEC)
        self._fds.append(held)
        return held

    def _place(self, mount: _Mount, root_fd: int, device: int) -> None:
        path = mount.found.path
        try:
            target = rooted.open_in_root(root_fd, path)
        except FileNotFoundError:
            target = self._make_place(mount, root_fd, device)
        self._fds.append(target)
        if stat.S_ISDIR(os.fstat(target).st_mode) != mount.is_dir:
            raise SetupError(f"mount target {mount.target}: a directory goes on a directory, a file on a file")
        # What is mounted on the root goes with it when the root is unmounted.
        self._mount_at(mount, target, lambda: rooted.open_in_root(root_fd, path))

    def _make_place(self, mount: _Mount, root_fd: int, device: int) -> int:
        """Make a mount point inside another mount (a cache, a tmpfs); never in the root file system itself."""
        path = mount.found.path
        if not mount.is_inside:
            raise SetupError(
                f"mount target {mount.target}: hidden by what is in the upper; a step starts with an empty one"
            )
        if _nearest_device(root_fd, path) != device:
            try:
                return _make_dir_or_file(root_fd, path, mount.is_dir)
            except FileExistsError:
                pass  # a dangling link
        raise SetupError(f"mount target {mount.target}: a link inside another mount is in the way")

    def _place_late(self, mount: _Mount, number: int) -> None:
        place = f"{self._home}/late{number}"
        if mount.is_dir:
            os.mkdir(place)
        else:
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        target = os.open(place, os.O_PATH | os.O_CLOEXEC)
        self._fds.append(target)
        self._mount_at(mount, target, lambda: os.open(place, os.O_PATH | os.O_CLOEXEC))
        self._mounted.append(place)
        access = "ro" if _is_readonly(mount) else "rw"
        given = mount.values.get("flags")
        options = ["rbind", access, *(("nosuid", "nodev") if given is None else given)]
        self.late.append({"destination": mount.found.path, "type": "bind", "source": place, "options": options})

    def _mount_at(self, mount: _Mount, target: int, reopen: Any) -> None:
        values, kind, place = mount.values, mount.values["kind"], f"/proc/self/fd/{target}"
        if kind == "tmpfs":
            mode = 0o1777 if values["mode"] is None else values["mode"]
            data = f"mode={mode:o},uid={values['uid']},gid={values['gid']}"
            data += f",size={values['size']}" if values["size"] else ""
            flags = kernel.MS_NOSUID | kernel.MS_NODEV | (kernel.MS_RDONLY if values["readonly"] else 0)
            for flag in values.get("flags") or ():
                flags |= _GIVEN_FLAGS[flag]
            kernel.mount("tmpfs", place, "tmpfs", flags, data)
            return
        source = mount.fd
        readonly = kernel.MS_RDONLY if _is_readonly(mount) else 0
        if kind == "chain" and (mount.inside or values["rootfs"]["upper"] is not None):
            source = self._chain_view(mount)
        elif readonly and mount.is_dir and mount.inside:
            source = self._bind_view(mount)
        kernel.mount(f"/proc/self/fd/{source}", place, flags=kernel.MS_BIND)
        over = reopen()
        try:
            extra = _SECRET_FLAGS if kind == "secret" else kernel.MS_NODEV if self._flags else 0
            if values.get("flags") is not None:
                extra = sum(_GIVEN_FLAGS[flag] for flag in values["flags"])
            if readonly or extra:
                self._remount(f"/proc/self/fd/{over}", readonly | extra)
        finally:
            os.close(over)

    def _chain_view(self, mount: _Mount) -> int:
        """Mount a chain with stubs for what is mounted inside of it; return its directory or file for binding."""
        rootfs, subpath = mount.values["rootfs"], mount.values["subpath"].strip("/")
        wants = _wants_inside(mount, mount.look, subpath)
        place = self._new("chain")
        self._stack(rootfs, wants, mount.look, place)
        return self._open_sub(place, subpath)

    def _bind_view(self, mount: _Mount) -> int:
        """Show a read-only directory with stubs for what is mounted inside of it, as it cannot get any itself."""
        source = f"/proc/self/fd/{mount.fd}"
        rootfs: Json = {"lowers": [source], "upper": None, "work": None, "userxattr": False}
        wants = _wants_inside(mount, source, "")
        place = self._new("view")
        self._stack(rootfs, wants, source, place)
        return self._open_sub(place, "")

    def _open_sub(self, place: str, subpath: str) -> int:
        root = rooted.open_root(place)
        self._fds.append(root)
        if not subpath:
            return root
        found = rooted.open_in_root(root, subpath)
        self._fds.append(found)
        return found

    def _remount(self, place: str, flags: int) -> None:
        """Add flags to a mount, keeping those it has: in a user namespace they are locked."""
        have = os.statvfs(place).f_flag
        kept = sum(mount_flag for bit, mount_flag in _KEEP_FLAGS.items() if have & bit)
        kernel.mount("none", place, flags=kernel.MS_REMOUNT | kernel.MS_BIND | kept | flags)


def _is_readonly(mount: _Mount) -> bool:
    values = mount.values
    chain_view = values["kind"] == "chain" and values["rootfs"]["upper"] is None
    return bool(values["readonly"] or values["kind"] == "secret" or chain_view)


def _is_late(mount: _Mount) -> bool:
    return mount.found.parts[0] in ("proc", "dev", "sys") and len(mount.found.parts) > 1


def _nest(placed: list[_Mount]) -> list[_Mount]:
    """Say which mounts lie in which others; return those that lie in none."""
    outer: list[_Mount] = []
    for number, mount in enumerate(placed):
        owners = [
            other
            for other in placed[:number]
            if other.is_dir and mount.found.parts[: other.depth] == other.found.parts and not _is_late(other)
        ]
        if owners:
            owners[-1].inside.append(mount)
            mount.is_inside = True
        else:
            outer.append(mount)
    return outer


def _wants_inside(mount: _Mount, look: str, subpath: str) -> list[Want]:
    wants = []
    for inner in mount.inside:
        rest = inner.found.parts[mount.depth :]
        if rest:
            base = stubs.resolve(look, subpath).parts
            wants.append(Want(inner.target, stubs.resolve(look, "/".join((*base, *rest))), inner.is_dir))
    return wants


def _make_dir_or_file(root_fd: int, path: str, is_dir: bool) -> int:
    if is_dir:
        return rooted.make_dirs(root_fd, path)
    parent_path, _, name = path.rpartition("/")
    parent = rooted.make_dirs(root_fd, parent_path)
    try:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=parent))
    finally:
        os.close(parent)
    return rooted.open_in_root(root_fd, path)


def _nearest_device(root_fd: int, path: str) -> int:
    """Return the device of the deepest part of `path` that is there."""
    parts = path.strip("/").split("/")
    while True:
        try:
            fd = rooted.open_in_root(root_fd, "/".join(parts))
        except FileNotFoundError:
            parts.pop()
            continue
        try:
            return os.fstat(fd).st_dev
        finally:
            os.close(fd)
