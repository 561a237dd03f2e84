"""Unpack a build context that comes as a tar archive: the strict reader of `layer`, into a fresh directory."""

from __future__ import annotations

from lamina.errors import NotYetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO


def unpack_context(head: bytes, stream: BinaryIO, directory: str) -> None:
    """Unpack the archive that begins with `head` and goes on in `stream` into the empty `directory`.

    Raises:
        InputError: the archive is malformed or leaves its root.
    """
    raise NotYetError("a context archive on standard input", hint="unpack it and name the directory")
