"""Open paths that came from outside, without ever leaving the directory they belong to.

Everything that follows a path from a Dockerfile, an image, an archive or a client beneath some root goes through
here: the kernel resolves it in one step (openat2(2)), so nobody can swap a directory for a symbolic link in
between. Where the kernel or a filter refuses openat2, a walk with one O_NOFOLLOW open per part does the same.

Two ways of resolving:
  * in root: the root acts as "/"; absolute links and ".." stay inside, as after chroot;
  * beneath: no part may be a symbolic link, and ".." above the root is an error.

Paths are `str` decoded with surrogateescape; a leading "/" means the root. Errors are plain `OSError`s, so that
callers may tell ENOENT from ELOOP. Every function that returns a descriptor hands it over: the caller closes it.
Must not: join strings and hope, follow magic links of /proc, block on a fifo or a device.

    with_root = open_root("/var/lib/x/trees/1")
    passwd = read_file(with_root, "etc/passwd", 10 << 20)
"""

from __future__ import annotations

import errno
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SYS_OPENAT2 = 437  # the same number on every architecture
_NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH, _IN_ROOT = 0x02, 0x04, 0x08, 0x10
_MAX_LINKS = 40  # what the kernel allows in one resolution
_RACES = 64  # openat2 says EAGAIN when a rename raced with it; bounded retries

_syscall: Callable[..., int] | None = None
_use_walk = False


def open_root(path: str | os.PathLike[str]) -> int:
    """Return an O_PATH descriptor of a trusted directory, to be the root of other calls."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def open_in_root(root_fd: int, path: str, flags: int = os.O_PATH, mode: int = 0) -> int:
    """Open `path` with `root_fd` as "/": links and ".." stay inside.

    Args:
        root_fd: descriptor of the directory that acts as the root.
        path: any path; "" and "/" are the root itself.
        flags: as for open(2); O_CLOEXEC is always added.
        mode: permission bits for O_CREAT.

    Raises:
        OSError: as open(2) would.
    """
    return _open(root_fd, path, flags, mode, beneath=False)


def open_beneath(root_fd: int, path: str, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """Open `path` below `root_fd` when no part of it, the last included, is a symbolic link.

    Raises:
        OSError: ELOOP for a symbolic link, EXDEV for a ".." that would leave the root, else as open(2).
    """
    return _open(root_fd, path, flags, mode, beneath=True)


def read_file(root: int | str | os.PathLike[str], path: str, max_bytes: int, *, follow: bool = True) -> bytes:
    """Return the content of a regular file below a root.

    Args:
        root: descriptor or trusted path of the root directory.
        path: the file, resolved in root (`follow`) or without any symbolic link.
        max_bytes: the most it may have.
        follow: whether symbolic links are followed (inside the root).

    Raises:
        OSError: as open(2); EINVAL when it is not a regular file; EFBIG when it has more than `max_bytes`.
    """
    if not isinstance(root, int):
        root_fd = open_root(root)
        try:
            return read_file(root_fd, path, max_bytes, follow=follow)
        finally:
            os.close(root_fd)
    opener = open_in_root if follow else open_beneath
    # O_NONBLOCK: opening a fifo returns at once instead of waiting for its other end.
    fd = opener(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        return _read_regular(fd, path, max_bytes)
    finally:
        os.close(fd)


def make_dirs(root_fd: int, path: str, mode: int = 0o755) -> int:
    """Make the directories of `path` that are missing (resolved in root) and return an O_PATH descriptor of the last.

    Raises:
        OSError: EEXIST when a dangling link is in the way, ENOTDIR when a file is, else as mkdir(2).
    """
    current = os.dup(root_fd)
    done: list[str] = []
    for part in _parts(path):
        done.append(part)
        try:
            try:
                child = open_in_root(root_fd, "/".join(done), os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                os.mkdir(part, mode, dir_fd=current)
                child = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
        finally:
            os.close(current)
        current = child
    return current


def _read_regular(fd: int, path: str, max_bytes: int) -> bytes:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)
    chunks: list[bytes] = []
    left = max_bytes + 1
    while left > 0 and (chunk := os.read(fd, min(left, 1 << 20))):
        chunks.append(chunk)
        left -= len(chunk)
    if left <= 0:
        raise OSError(errno.EFBIG, f"larger than {max_bytes} bytes", path)
    return b"".join(chunks)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _open(root_fd: int, path: str, flags: int, mode: int, *, beneath: bool) -> int:
    if "\0" in path:
        raise OSError(errno.EINVAL, "path holds a NUL byte", path)
    relative = path.lstrip("/") or "."
    if beneath and "/" not in relative and relative not in (".", ".."):
        # One part that may not be a link needs no openat2 (and spares the import of ctypes).
        fd = os.open(relative, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=root_fd)
        return _refuse_link(fd, path) if flags & os.O_PATH else fd
    if not _use_walk:
        resolve = _NO_MAGICLINKS | (_BENEATH | _NO_SYMLINKS if beneath else _IN_ROOT)
        fd = _openat2(root_fd, relative, flags, mode, resolve)
        if fd >= 0:
            return fd
    return _walk(root_fd, relative, flags, mode, beneath=beneath)


def _refuse_link(fd: int, path: str) -> int:
    if stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return fd


def _openat2(root_fd: int, path: str, flags: int, mode: int, resolve: int) -> int:
    """Return a descriptor, or -1 when this machine has no openat2 (remembered)."""
    global _syscall, _use_walk  # noqa: PLW0603 - what the kernel offers does not change while we run
    import ctypes

    if _syscall is None:
        _syscall = ctypes.CDLL(None, use_errno=True).syscall
    how = (ctypes.c_uint64 * 3)(flags | os.O_CLOEXEC, mode if flags & os.O_CREAT else 0, resolve)
    name = os.fsencode(path)
    for _ in range(_RACES):
        fd = int(_syscall(_SYS_OPENAT2, root_fd, ctypes.c_char_p(name), ctypes.byref(how), ctypes.sizeof(how)))
        if fd >= 0:
            return fd
        code = ctypes.get_errno()
        if code == errno.ENOSYS or (code == errno.EPERM and not _works()):
            _use_walk = True
            return -1
        if code not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(code, os.strerror(code), path)


def _works() -> bool:
    """Tell whether EPERM was about the file (openat2 works on ".") and not about the call itself."""
    import ctypes as c

    how = (c.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC, 0, 0)
    here = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        assert _syscall is not None
        fd = int(_syscall(_SYS_OPENAT2, here, c.c_char_p(b"."), c.byref(how), c.sizeof(how)))
    finally:
        os.close(here)
    if fd >= 0:
        os.close(fd)
    return fd >= 0


def _walk(root_fd: int, path: str, flags: int, mode: int, *, beneath: bool) -> int:
    """Resolve part by part: `stack` holds an O_PATH descriptor of every directory from the root to here."""
    stack = [os.dup(root_fd)]
    parts = path.split("/")[::-1]
    links = 0
    try:
        while parts:
            part = parts.pop()
            if part == "..":
                if len(stack) > 1:
                    os.close(stack.pop())
                elif beneath:
                    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
                continue
            if part in ("", "."):
                continue
            last = not any(rest not in ("", ".") for rest in parts)
            target = _link_target(stack[-1], part)
            if target is not None and not (last and flags & os.O_NOFOLLOW and not beneath):
                links += 1
                if beneath or links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                if target.startswith("/"):
                    while len(stack) > 1:
                        os.close(stack.pop())
                parts.extend(target.split("/")[::-1])
                continue
            if last and not parts:
                return os.open(part, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=stack[-1])
            step = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            stack.append(os.open(part, step, dir_fd=stack[-1]))
        return os.open(".", flags | os.O_CLOEXEC, mode, dir_fd=stack[-1])
    finally:
        for fd in stack:
            os.close(fd)


def _link_target(dir_fd: int, name: str) -> str | None:
    """Return the text of a symbolic link, None for anything else (missing included)."""
    try:
        return os.readlink(name, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise
