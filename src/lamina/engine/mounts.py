"""The cache mounts of one machine: list, write out, read in, remove (`lamina cache mount`)."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from lamina.cancel import Cancel
from lamina.engine.options import Environment
from lamina.engine.place import Place
from lamina.errors import InputError, MachineError, StorageError
from lamina.layer.tree import TreeWriter, remove_tree, tree_items, walk_tree


def list_mounts(environment: Environment) -> list[dict[str, Any]]:
    """Return id, bytes, and times of all cache mounts, biggest first."""
    with Place(environment, Cancel()) as place:
        found = []
        for directory, name, created, used in place.state.execute("SELECT id, name, created, used FROM cachemount"):
            path = place.root / "caches" / directory
            if path.is_dir():
                size = sum(entry.size for entry in walk_tree(path, place.layers.flavour))
                found.append({"id": name, "bytes": size, "created": _shown(created), "used": _shown(used)})
    return sorted(found, key=lambda mount: -int(mount["bytes"]))


def export_mount(environment: Environment, name: str, sink: BinaryIO) -> None:
    """Write a mount's content as a tar archive.

    Raises:
        InputError: there is none of that id.
        MachineError: a build is using it.
    """
    from lamina.layer.tar_write import write_items

    with Place(environment, Cancel()) as place, _held(place, name) as directory:
        if not directory.is_dir():
            raise _none(place, name)
        write_items(tree_items(directory, walk_tree(directory, place.layers.flavour)), sink.write)
        sink.flush()


def export_to_file(environment: Environment, name: str, path: str) -> None:
    """Write a mount's content to a file, which appears when it is whole."""
    making = f"{path}.{os.getpid()}.tmp"
    try:
        with open(making, "xb") as sink:
            export_mount(environment, name, sink)
        os.replace(making, path)
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}", where=path) from error
    finally:
        Path(making).unlink(missing_ok=True)


def import_mount(environment: Environment, name: str, source: BinaryIO) -> None:
    """Fill a mount from a tar archive, compressed or not; what it had is replaced once the archive was read whole.

    Raises:
        InputError: no archive, or one that leads out of its root.
        MachineError: a build is using the mount.
    """
    from lamina.layer.tree import unpack

    with Place(environment, Cancel()) as place, _held(place, name) as directory:
        making = place.layers.scratch("c")
        making.mkdir(mode=0o755)
        os.chmod(making, 0o755)
        unpack(source, TreeWriter(making, place.layers.flavour, None, None, place.cancel), cancel=place.cancel)
        _discard(place, directory)
        os.rename(making, directory)
        now = time.time()
        place.state.execute(
            "INSERT INTO cachemount(id, name, created, used) VALUES (?, ?, ?, ?) "
            "ON CONFLICT(id) DO UPDATE SET used = ?",
            (directory.name, _known(place, name) or name, now, now, now),
        )


def remove_mount(environment: Environment, name: str) -> None:
    """Remove a mount.

    Raises:
        InputError: there is none of that id.
        MachineError: a build is using it.
    """
    with Place(environment, Cancel()) as place, _held(place, name) as directory:
        if not directory.is_dir():
            raise _none(place, name)
        _discard(place, directory)
        place.state.execute("DELETE FROM cachemount WHERE id = ?", (directory.name,))


@contextmanager
def _held(place: Place, name: str) -> Iterator[Path]:
    """Hold the mount's lock and yield its directory, which may not be there."""
    known = _known(place, name) or (name if name.startswith("/") else f"/{name}")
    directory = place.root / "caches" / hashlib.sha256(known.encode("utf-8", "surrogateescape")).hexdigest()
    fd = place.locks.try_acquire(f"cache:{directory.name}:0")
    if fd is None:
        raise MachineError(f"the cache mount {name!r} is in use", hint="try again when the build is done")
    try:
        yield directory
    finally:
        os.close(fd)


def _known(place: Place, name: str) -> str:
    """Return a mount's id as it is kept: `pip`, `/pip` and `//pip` are one."""
    for (known,) in place.state.execute("SELECT name FROM cachemount ORDER BY used DESC"):
        if str(known).strip("/") == name.strip("/"):
            return str(known)
    return ""


def _none(place: Place, name: str) -> InputError:
    there = [str(row[0]) for row in place.state.execute("SELECT name FROM cachemount ORDER BY used DESC LIMIT 5")]
    return InputError(f"there is no cache mount {name!r}", hint=f"there are {', '.join(there)}" if there else "")


def _discard(place: Place, directory: Path) -> None:
    if directory.exists():
        doomed = place.layers.scratch("x")
        os.rename(directory, doomed)
        remove_tree(doomed)


def _shown(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
