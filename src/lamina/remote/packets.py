"""The packets of `fsutil`: paths and modes as they travel, checked. Pure.

A directory is sent as a list of stats in the order of a walk (parents first, names in byte order in each directory),
and the contents of files on request, by the number of their stat.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from lamina.api.pb import fsutil_pb2
from lamina.errors import NetworkError
from lamina.layer.entry import Entry, Xattrs
from lamina.source.context import is_kept

STAT = fsutil_pb2.Packet.PACKET_STAT
REQUEST = fsutil_pb2.Packet.PACKET_REQ
DATA = fsutil_pb2.Packet.PACKET_DATA
FIN = fsutil_pb2.Packet.PACKET_FIN
ERROR = fsutil_pb2.Packet.PACKET_ERR
MAX_PATH = 4096
MAX_NAME = 255
MAX_XATTRS = 128 << 10
"""Most bytes of the extended attributes of one file."""
_DIR, _LINK, _DEVICE, _PIPE, _SOCKET, _CHAR = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24, 1 << 21
_TYPES = _DIR | _LINK | _DEVICE | _PIPE | _SOCKET | (1 << 19)
_SPECIAL = ((1 << 23, stat.S_ISUID), (1 << 22, stat.S_ISGID), (1 << 20, stat.S_ISVTX))
_KINDS = {"d": _DIR, "l": _LINK, "p": _PIPE, "c": _DEVICE | _CHAR, "b": _DEVICE, "f": 0, "h": 0}
_MAX_NS = (1 << 63) - 1


class ProtocolError(NetworkError):
    """The client sent what it must not."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One entry as the client tells it.

    Attributes:
        parent, name: where it is; `parent` is "" for the root.
        kind: as in `layer.entry.Entry`; "s" is a socket.
        number: by which its content is asked for.
        xattrs: those that belong to the file, sorted.
    """

    parent: str
    name: str
    kind: str
    mode: int
    size: int
    mtime_ns: int
    target: str
    number: int
    xattrs: Xattrs = ()

    @property
    def path(self) -> str:
        """The whole path."""
        return f"{self.parent}/{self.name}" if self.parent else self.name


def incoming_of(message: fsutil_pb2.Stat, number: int) -> Incoming:
    """Return an entry, checked as far as it can be alone.

    Raises:
        ProtocolError: a path that leaves the directory, or values that cannot be.
    """
    path = message.path
    parent, _, name = path.rpartition("/")
    parts = path.split("/")
    if len(path.encode()) > MAX_PATH or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise ProtocolError(f"the client sent an impossible path: {path[:200]!r}")
    if any(len(part.encode()) > MAX_NAME for part in parts):
        raise ProtocolError(f"the client sent a name that is too long: {path[:200]!r}")
    if message.size < 0 or not -_MAX_NS <= message.modTime <= _MAX_NS or "\0" in message.linkname:
        raise ProtocolError(f"the client sent impossible metadata of {path[:200]!r}")
    mode = message.mode & 0o777
    for go, bit in _SPECIAL:
        if message.mode & go:
            mode |= bit
    kind = _kind(message)
    return Incoming(parent, name, kind, mode, message.size, message.modTime, message.linkname, number, _xattrs(message))


def _xattrs(message: fsutil_pb2.Stat) -> Xattrs:
    if not message.xattrs:
        return ()
    found = tuple(sorted((name, value) for name, value in message.xattrs.items() if is_kept(name)))
    size = sum(len(name.encode()) + len(value) for name, value in found)
    if size > MAX_XATTRS or any(len(name.encode()) > MAX_NAME or "\0" in name for name, _ in found):
        raise ProtocolError(f"the client sent impossible extended attributes of {message.path[:200]!r}")
    return found


def _kind(message: fsutil_pb2.Stat) -> str:
    kind = message.mode & _TYPES
    if kind == 0:
        return "h" if message.linkname else "f"
    found = {_DIR: "d", _LINK: "l", _PIPE: "p", _SOCKET: "s", _DEVICE: "b"}.get(kind & ~(1 << 19), "")
    if found == "b" and message.mode & _CHAR:
        return "c"
    if not found:
        raise ProtocolError(f"the client sent something of an unknown type: {message.path[:200]!r}")
    return found


def stat_of(entry: Entry, path: str) -> fsutil_pb2.Stat:
    """Return an entry as it travels under a path."""
    mode = (entry.mode & 0o777) | _KINDS[entry.kind]
    for go, bit in _SPECIAL:
        if entry.mode & bit:
            mode |= go
    return fsutil_pb2.Stat(
        path=path,
        mode=mode,
        uid=entry.uid,
        gid=entry.gid,
        size=entry.size if entry.kind == "f" else 0,
        modTime=entry.mtime_ns,
        linkname=entry.target,
        devmajor=entry.dev[0],
        devminor=entry.dev[1],
        xattrs=dict(entry.xattrs),
    )


def header_pairs(name: str, values: Iterable[str]) -> list[tuple[str, str]]:
    """Return request metadata of one name; what is not ASCII goes encoded, and is said to."""
    listed = list(values)
    if all(value.isascii() and "\n" not in value and "\r" not in value for value in listed):
        return [(name, value) for value in listed]
    return [*((name, quote(value, safe="")) for value in listed), (f"{name}-encoded", "1")]
