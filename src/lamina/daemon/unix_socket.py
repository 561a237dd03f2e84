"""One unix socket on which clients are waited for: nobody else's is taken, and none is left behind.

In: an absolute path. Out: a listening socket for the length of a block. Beside the socket `PATH.lock` is locked while
the daemon lives, so that of two daemons that start at once one is refused; the lock ends with its holder, whatever
killed it. The socket is made as `PATH.new` and renamed when it has its owner and mode: nobody connects before that,
and a dead daemon's socket is replaced in one step. In the end it goes only if it is still ours.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from lamina.errors import MachineError

_BACKLOG = 128
_MODE = 0o660
_FOLDER_MODE = 0o711
"""Clients have to get through the directory, and the socket's own mode says who may connect. To list it is of no use to
them; it would show who else has sockets there."""
_PROBE_S = 2.0


@contextmanager
def unix_listener(path: str, *, uid: int | None = None, gid: int | None = None) -> Iterator[socket.socket]:
    """Listen on a path for as long as the block lasts.

    Args:
        uid: owner of the socket file, and `gid` its group; None for this process's.

    Raises:
        MachineError: another daemon listens there, something else lies there, or it cannot be made.
    """
    try:
        _make_folder(os.path.dirname(path))
        lock = _hold(f"{path}.lock")
    except OSError as error:
        raise _fault(path, error) from error
    try:
        listener, mine = _bind(path, uid, gid)
        try:
            yield listener
        finally:
            listener.close()
            _remove(path, mine)
    finally:
        _remove(f"{path}.lock", os.fstat(lock))
        os.close(lock)


def _fault(path: str, error: OSError) -> MachineError:
    hint = "--addr unix:///path, in a directory of yours" if isinstance(error, PermissionError) else ""
    return MachineError(f"cannot listen on unix://{path}: {error.strerror or error}", hint=hint)


def _make_folder(folder: str) -> None:
    if not os.path.isdir(folder):
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, _FOLDER_MODE)  # whatever the umask is


def _hold(path: str) -> int:
    """Return a descriptor that holds the lock until it is closed."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_there(path, os.fstat(lock)):
                return lock
        except BlockingIOError:
            os.close(lock)
            raise OSError(errno.EADDRINUSE, "another daemon listens there") from None
        os.close(lock)  # its last holder removed it between our open and our lock


def _bind(path: str, uid: int | None, gid: int | None) -> tuple[socket.socket, os.stat_result]:
    """Return a listening socket and its file. The lock is held."""
    early = f"{path}.new"
    listener = socket.socket(socket.AF_UNIX)
    try:
        _check_free(path)
        try:
            os.unlink(early)
        except FileNotFoundError:
            pass
        listener.bind(early)
        try:
            os.chmod(early, _MODE)
            if uid is not None or gid is not None:
                os.chown(early, -1 if uid is None else uid, -1 if gid is None else gid)
            listener.listen(_BACKLOG)
            mine = os.lstat(early)
            os.rename(early, path)
        except OSError:
            os.unlink(early)
            raise
    except OSError as error:
        listener.close()
        raise _fault(path, error) from error
    return listener, mine


def _check_free(path: str) -> None:
    """Check that nothing is there but the socket of a daemon that died."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "there is something else of that name")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except (BlockingIOError, TimeoutError):
            pass  # its queue is full: somebody has it who does not come to answer
    raise OSError(errno.EADDRINUSE, "another daemon listens there")


def _is_there(path: str, mine: os.stat_result) -> bool:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)


def _remove(path: str, mine: os.stat_result) -> None:
    """Remove a file, unless another has taken its name."""
    if _is_there(path, mine):
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
