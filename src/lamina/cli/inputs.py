"""Find what a build reads: the Dockerfile, its ignore file and the context directory.

In: PATH and `--file` as given, and standard input. Out: an `Inputs` of plain values. A tar archive on standard
input is unpacked into a temporary directory of its own, which `Inputs.close` removes. Light: the fully cached
path passes through here.
"""

from __future__ import annotations

import os
import stat
import sys

from lamina.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

MAX_DOCKERFILE = 16 << 20
"""Most bytes of a Dockerfile or ignore file."""
_REMOTE = ("http://", "https://", "git://", "ssh://", "git@", "github.com/")


class Inputs:
    """What one build reads.

    Attributes:
        context: absolute path of the context directory, "" when there is none.
        dockerfile, name: the Dockerfile's bytes, and how messages call it.
        path: where the user's Dockerfile lies; "" when it came by standard input or inside an archive or repository.
        materials: (kind, where, digest) of what a remote context was brought from.
        ignore, ignore_name: the ignore file's bytes (None: there is none), and how messages call it.
    """

    __slots__ = ("_temporary", "context", "dockerfile", "ignore", "ignore_name", "materials", "name", "path")

    def __init__(self, context: str, temporary: str = "") -> None:
        self.context = context
        self.dockerfile = b""
        self.name = "Dockerfile"
        self.path = ""
        self.ignore: bytes | None = None
        self.ignore_name = ".dockerignore"
        self.materials: list[tuple[str, str, str]] = []
        self._temporary = temporary

    @property
    def temporary(self) -> bool:
        """Whether the context is a copy that goes away again."""
        return bool(self._temporary)

    def close(self) -> None:
        """Remove the temporary directory, if there is one."""
        if self._temporary:
            import shutil

            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = ""


def is_remote(path: str) -> bool:
    """Tell whether PATH names something on a server; a directory of that very name comes first."""
    return path.startswith(_REMOTE) and not os.path.isdir(path)


def find_inputs(path: str, file: str, stdin: BinaryIO | None = None, *, must_have: bool = True) -> Inputs:
    """Read the Dockerfile and find the context for `lamina build [-f FILE] PATH`, where PATH is not remote.

    Args:
        path: a directory, or "-": standard input holds a Dockerfile, or a tar archive that is the context.
        file: `--file`, "" when absent, "-": the Dockerfile is on standard input.
        stdin: standard input; the process's own by default.
        must_have: a directory without a Dockerfile (and no `file` given) is an error; else the bytes stay empty.

    Raises:
        InputError: something is not there, or both want standard input.
    """
    stdin = stdin if stdin is not None else sys.stdin.buffer
    if path == "-":
        return _from_stdin(file, stdin)
    if not os.path.isdir(path):
        what = "the context is a file, not a directory" if os.path.exists(path) else "no such directory"
        raise InputError(what, where=path, hint="PATH is the build context; name the Dockerfile with -f")
    inputs = Inputs(os.path.abspath(path))
    if file == "-":
        inputs.dockerfile, inputs.name = read_stream(stdin), "-"
    elif file or must_have or os.path.lexists(_default_dockerfile(path)):
        _take_dockerfile(inputs, file or _default_dockerfile(path), file)
    if inputs.ignore is None:
        inputs.ignore = _read_optional(os.path.join(inputs.context, ".dockerignore"))
    return inputs


def _default_dockerfile(path: str) -> str:
    """Return PATH/Dockerfile, or PATH/dockerfile where only that exists."""
    usual, lower = os.path.join(path, "Dockerfile"), os.path.join(path, "dockerfile")
    return lower if not os.path.lexists(usual) and os.path.lexists(lower) else usual


def _take_dockerfile(inputs: Inputs, dockerfile: str, given: str) -> None:
    """Read the Dockerfile and the ignore file that belongs to it alone."""
    found = _read_optional(dockerfile)
    if found is None:
        inside = os.path.join(inputs.context, given)
        if given and not os.path.isabs(given) and os.path.isfile(inside):
            hint = f"there is one in the context: -f {os.path.relpath(inside)}"
        else:
            hint = "name it with -f FILE" if not given else ""
        raise InputError("no such Dockerfile", where=dockerfile, hint=hint)
    inputs.dockerfile = found
    inputs.name = given or os.path.basename(dockerfile)
    inputs.path = "" if inputs.temporary else os.path.abspath(dockerfile)
    own = _read_optional(dockerfile + ".dockerignore")
    if own is not None:
        inputs.ignore, inputs.ignore_name = own, os.path.basename(dockerfile) + ".dockerignore"


def _from_stdin(file: str, stdin: BinaryIO) -> Inputs:
    """Take a Dockerfile without context, or a context archive, from standard input."""
    if file == "-":
        raise InputError("context and Dockerfile cannot both come from standard input")
    if stdin.isatty():
        raise InputError("standard input is a terminal", hint="pipe a Dockerfile or a tar archive into lamina build -")
    from lamina.layer.magic import is_archive

    head = _read_exactly(stdin, 512)
    if not is_archive(head):
        inputs = Inputs("")
        inputs.dockerfile, inputs.name = head + read_stream(stdin, MAX_DOCKERFILE - len(head)), "-"
        if file:
            raise InputError("-f needs a context, and standard input is a Dockerfile")
        return inputs
    return _from_archive(file, head, stdin)


def _from_archive(file: str, head: bytes, stdin: BinaryIO) -> Inputs:
    """Unpack the context archive on standard input and find the Dockerfile inside it."""
    inputs = take_from_archive(file, head, stdin)
    try:
        if inputs.ignore is None:
            inputs.ignore = _read_optional(os.path.join(inputs.context, ".dockerignore"))
    except BaseException:
        inputs.close()
        raise
    return inputs


def take_from_archive(file: str, head: bytes, stream: BinaryIO, dockerfile: BinaryIO | None = None) -> Inputs:
    """Unpack the context archive that begins with `head` and goes on in `stream`; find the Dockerfile inside it.

    Args:
        file: `--file`; "-" takes the Dockerfile from the stream `dockerfile`.

    Raises:
        InputError: no archive that can be unpacked, or no such Dockerfile in it; nothing is left behind.
    """
    import tempfile

    from lamina.engine.unpack import unpack_context

    temporary = tempfile.mkdtemp(prefix="lamina-context-")
    directory = os.path.join(temporary, "files")  # may be open to all: what it lies in is not
    inputs = Inputs(directory, temporary=temporary)
    try:
        unpack_context(head, stream, directory)
        if file == "-" and dockerfile is not None:
            inputs.dockerfile, inputs.name = read_stream(dockerfile), "-"
        else:
            take_inside(inputs, file)
    except BaseException:
        inputs.close()
        raise
    return inputs


def take_inside(inputs: Inputs, file: str) -> None:
    """Read the Dockerfile that lies in the context itself, named relative to its root.

    Raises:
        InputError: it is not there, or outside.
    """
    directory = inputs.context
    relative = os.path.normpath(file or os.path.basename(_default_dockerfile(directory)))
    if os.path.isabs(relative) or relative.startswith(".."):
        raise InputError("the Dockerfile must lie in the context", where=file)
    path = os.path.join(directory, relative)
    real = os.path.realpath(path)
    if not real.startswith(os.path.realpath(directory) + os.sep) or not os.path.exists(real):
        hint = "" if file else "name it with -f FILE"
        raise InputError("no such Dockerfile in the context", where=relative, hint=hint)
    _take_dockerfile(inputs, path, relative)


def _read_optional(path: str) -> bytes | None:
    """Return a regular file's bytes, None when it does not exist."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from error
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError("is a directory, not a file", where=path)
    with open(descriptor, "rb", buffering=0) as file:
        return read_stream(file, where=path)


def read_stream(stream: BinaryIO, limit: int = MAX_DOCKERFILE, where: str = "standard input") -> bytes:
    """Return everything that is left, up to `limit` bytes."""
    parts = []
    left = limit
    while data := stream.read(min(1 << 20, left + 1)):
        left -= len(data)
        if left < 0:
            raise InputError(f"is larger than {MAX_DOCKERFILE >> 20} MiB", where=where)
        parts.append(data)
    return b"".join(parts)


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    """Return `size` bytes, or fewer at the end of the stream."""
    parts = []
    while size > 0 and (data := stream.read(size)):
        parts.append(data)
        size -= len(data)
    return b"".join(parts)
