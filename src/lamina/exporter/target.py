"""The one file an archive goes to: a path, replaced atomically, or standard output.

Nothing but a whole archive ever has the destination's name; on any failure the temporary file is gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lamina.errors import CancelledError, InputError, StorageError
from lamina.exporter.outputs import STDOUT
from lamina.exporter.protocol import Surroundings
from lamina.store.errors import storage_error
from lamina.store.files import random_name, unlink_quietly, write_all

Write = Callable[[bytes], None]


@contextmanager
def open_target(dest: str, around: Surroundings) -> Iterator[Write]:
    """Give a function that writes to `dest` ("-" or "": standard output), and finish the file when all went well.

    Raises:
        InputError: standard output was meant but must not be used, or `dest` is a directory.
        StorageError: it could not be written.
        CancelledError: whoever read standard output has gone.
    """
    if dest in ("", STDOUT):
        yield _stdout_writer(dest, around)
        return
    path = around.directory / dest
    if path.is_dir():
        raise InputError("the destination of an archive is a directory", where=str(path), hint="add a file name")
    if not path.parent.is_dir():
        raise InputError("the directory of the destination does not exist", where=str(path.parent))
    if path.exists() and not path.is_file():  # a pipe or device is written to as it is
        with _opened(path) as fd:
            yield _file_writer(fd, path, around)
        return
    real = Path(os.path.realpath(path))  # a link to a file keeps being one
    temporary = real.parent / f".{real.name[:200]}.{random_name()[:8]}"
    try:
        with _created(temporary) as fd:
            yield _file_writer(fd, path, around)
            os.fchmod(fd, 0o666 & ~around.umask)  # not synced: like any program's output, it can be made again
        os.rename(temporary, real)
    except OSError as exc:
        unlink_quietly(os.fspath(temporary))
        raise storage_error(exc, path) from exc
    except BaseException:
        unlink_quietly(os.fspath(temporary))
        raise


@contextmanager
def _created(path: Path) -> Iterator[int]:
    """Open a new file for writing."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open what is there for writing."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise storage_error(exc, path) from exc
    try:
        yield fd
    finally:
        os.close(fd)


def _file_writer(fd: int, path: Path, around: Surroundings) -> Write:
    """Return a function that writes to a descriptor."""

    def write(data: bytes) -> None:
        around.cancel.check()
        try:
            write_all(fd, data)
        except OSError as exc:
            raise storage_error(exc, path) from exc

    return write


def _stdout_writer(dest: str, around: Surroundings) -> Write:
    """Return a function that writes to standard output."""
    out = around.stdout
    if out is None:
        hint = "redirect standard output or name a file with dest="
        what = "not writing an archive to a terminal" if dest == STDOUT else "--output: no destination"
        raise InputError(what, hint=hint)

    def write(data: bytes) -> None:
        around.cancel.check()
        try:
            out.write(data)
        except BrokenPipeError:
            raise CancelledError("whoever read standard output has gone") from None
        except OSError as exc:
            raise StorageError(f"cannot write to standard output: {exc.strerror}") from exc

    return write
