"""Who a step runs as: `user[:group]` by name or number, looked up in the image's own /etc/passwd and /etc/group.

Everything read comes from an image: sizes are capped, only regular files count, numbers are bounded.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina.errors import InputError
from lamina.layer.entry import FileSlice
from lamina.layer.view import ChainView
from lamina.rooted import read_file

_HIGHEST = 2**31 - 1
_FILE_LIMIT = 10 << 20


@dataclass(frozen=True, slots=True)
class User:
    """Numbers and home directory of the one a step runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def read_image_file(view: ChainView, path: str, limit: int = _FILE_LIMIT) -> bytes:
    """Return a regular file of an image, b"" when it is missing or something else."""
    try:
        entry = view.lookup(view.resolve(path))
    except InputError:
        return b""
    if entry is None or entry.kind not in "fh":
        return b""
    content = view.content(entry)
    if isinstance(content, bytes):
        return content[:limit]
    if isinstance(content, FileSlice):
        return read_file(content.root, content.path, limit)
    return b""


def lookup_user(text: str, view: ChainView) -> User:
    """Resolve what USER or `Meta.user` says.

    Raises:
        InputError: a name that the image does not know, or a number out of range.
    """
    name, _, group = text.partition(":")
    passwd = _rows(read_image_file(view, "etc/passwd"), 7)
    groups = _rows(read_image_file(view, "etc/group"), 3)
    row = next((row for row in passwd if row[0] == name), None)
    if row is None and name.isdigit():
        uid = _number(name, "user")
        row = next((row for row in passwd if row[2] == name), None)
    elif row is None:
        raise InputError(
            f"no user {name!r} in the image's /etc/passwd", hint="make it with a RUN step before, or write its number"
        )
    else:
        uid = _number(row[2], "user")
    gid = _number(row[3], "group") if row else 0
    extra = tuple(_number(g[2], "group") for g in groups if row and len(g) > 3 and row[0] in g[3].split(","))
    if group:
        gid, extra = _group(group, groups), ()
    home = row[5] if row and row[5] else "/"
    return User(uid, gid, extra, home)


def _group(text: str, groups: list[list[str]]) -> int:
    found = next((row for row in groups if row[0] == text), None)
    if found is not None:
        return _number(found[2], "group")
    if text.isdigit():
        return _number(text, "group")
    raise InputError(
        f"no group {text!r} in the image's /etc/group", hint="make it with a RUN step before, or write its number"
    )


def _number(text: str, what: str) -> int:
    if not text.isdigit() or int(text) > _HIGHEST:
        raise InputError(f"impossible {what} number {text[:40]!r}")
    return int(text)


def _rows(data: bytes, fields: int) -> list[list[str]]:
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    rows = [line.strip().split(":") for line in lines if line.strip() and not line.startswith("#")]
    return [row for row in rows if len(row) >= fields]
