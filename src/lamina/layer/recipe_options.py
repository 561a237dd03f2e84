"""What a copy is told, and the two little languages in it: modes and owners.

Pure. Follows pb.FileActionCopy (BuildKit's ops.proto) field by field; how the fields act is told in recipe_copy.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_USER_FILE = 10 << 20
"""The most bytes of /etc/passwd or /etc/group that are read."""
_HIGHEST_ID = 2**32 - 2

Owner = tuple[int, int]


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """How to copy.

    Attributes:
        owner: uid and gid for all that is made; None keeps the source's, and root for parents.
        mode: permission bits for files and directories (parents too), or chmod's symbolic text (parents stay 0755);
            None keeps the source's.
        follow_symlink: a source that is itself a symbolic link is followed; parents always are.
        dir_copy_contents: a source directory gives its contents and not itself.
        attempt_unpack: a source file that is a tar archive (by content) is unpacked at the destination.
        create_dest_path: missing parents of the destination are made.
        allow_wildcard: the source is a pattern; else its characters are literal.
        allow_empty_wildcard: a pattern that matches nothing copies nothing, instead of being an error.
        include: patterns of which a path below the source must match one; () for all.
        exclude: patterns that keep paths below the source out.
        required: paths that must be there, whatever the patterns match (`--parents` of plain names).
        always_replace_existing_dest_paths: what is in the way is removed, where it otherwise would be an error.
        timestamp_ns: modification time of all that is made; None keeps the source's.
    """

    owner: Owner | None = None
    mode: int | str | None = None
    follow_symlink: bool = False
    dir_copy_contents: bool = False
    attempt_unpack: bool = False
    create_dest_path: bool = False
    allow_wildcard: bool = False
    allow_empty_wildcard: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    required: tuple[str, ...] = ()
    always_replace_existing_dest_paths: bool = False
    timestamp_ns: int | None = None


ModeChange = tuple[str, str, str]
"""Who ("ugo"), operator, permissions."""


def parse_mode(text: str) -> Callable[[int, bool], int]:
    """Return what a chmod text does to a mode: `change(mode, is_directory) -> mode`. The umask is 0.

    Octal digits, or clauses as in chmod(1): `u=rwX,go=rX`, `a+x`, `g=u`.

    Raises:
        InputError: it is neither.
    """
    if text and all(letter in "01234567" for letter in text):
        number = int(text, 8)
        if number > 0o7777:
            raise InputError(f"mode {text!r} is larger than 7777")
        return lambda mode, is_directory: number  # noqa: ARG005 - the same for all
    changes: list[ModeChange] = []
    for clause in text.split(","):
        changes.extend(_parse_clause(clause, text))

    def change(mode: int, is_directory: bool) -> int:
        for who, operator, permissions in changes:
            mode = _apply(mode, who, operator, permissions, is_directory)
        return mode

    return change


def _parse_clause(clause: str, text: str) -> list[ModeChange]:
    rest = clause.lstrip("ugoa")
    letters = clause[: len(clause) - len(rest)]
    who = "ugo" if not letters or "a" in letters else letters
    changes: list[ModeChange] = []
    for letter in rest:
        if letter in "+-=":
            changes.append((who, letter, ""))
        elif changes and letter in "rwxXstugo":
            changes[-1] = (who, changes[-1][1], changes[-1][2] + letter)
        else:
            changes = []
            break
    if not changes:
        raise InputError(f"bad mode {text!r}", hint="write it in octal (755) or as chmod does (u=rwX,go=rX)")
    return changes


_SHIFT = {"u": 6, "g": 3, "o": 0}
_SPECIAL = {"u": 0o4000, "g": 0o2000, "o": 0}


def _apply(mode: int, who: str, operator: str, permissions: str, is_directory: bool) -> int:
    bits = 0
    for letter in permissions:
        if letter in "rwx":
            bits |= {"r": 4, "w": 2, "x": 1}[letter]
        elif letter == "X":
            bits |= 1 if is_directory or mode & 0o111 else 0
        elif letter in "ugo":
            bits |= mode >> _SHIFT[letter] & 7
    for one in who:
        wanted = bits << _SHIFT[one] | (_SPECIAL[one] if "s" in permissions else 0)
        if operator == "=":
            mode &= ~(7 << _SHIFT[one] | _SPECIAL[one])
        mode = mode & ~wanted if operator == "-" else mode | wanted
    if "t" in permissions:
        mode = mode & ~0o1000 if operator == "-" else mode | 0o1000
    return mode


def parse_owner(text: str, passwd: bytes, group: bytes) -> Owner:
    """Return the numbers of `user[:group]`, names looked up in the texts of /etc/passwd and /etc/group.

    A user alone sets the group too: a name its login group, a number the same number.

    Args:
        text: names or numbers.
        passwd: content of /etc/passwd, b"" when there is none.
        group: content of /etc/group, b"" when there is none.

    Raises:
        InputError: an unknown name, a number out of range, or a file over 10 MiB.
    """
    if max(len(passwd), len(group)) > MAX_USER_FILE:
        raise InputError("/etc/passwd or /etc/group of the image is larger than 10 MiB", where=text)
    user, colon, group_name = text.partition(":")
    uid, gid = _parse_user(user, passwd) if user or not colon else (0, 0)
    if group_name:
        gid = _number(group_name) if group_name.isdecimal() else _find_group(group_name, group)
    return uid, gid


def _parse_user(name: str, passwd: bytes) -> Owner:
    if name.isdecimal():
        return _number(name), _number(name)
    for row in _rows(passwd):
        if row[0] == name and len(row) >= 4:
            return _number(row[2]), _number(row[3])
    raise InputError(
        f"no user {name!r} in the image's /etc/passwd", hint="make it with a RUN step before, or write its number"
    )


def _find_group(name: str, group: bytes) -> int:
    for row in _rows(group):
        if row[0] == name and len(row) >= 3:
            return _number(row[2])
    raise InputError(
        f"no group {name!r} in the image's /etc/group", hint="make it with a RUN step before, or write its number"
    )


def _rows(data: bytes) -> list[list[str]]:
    lines = data.decode("utf-8", "surrogateescape").split("\n")
    return [line.strip().split(":") for line in lines if line.strip() and not line.startswith("#")]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) <= _HIGHEST_ID):
        raise InputError(f"impossible user or group number {text[:40]!r}", hint=f"0 to {_HIGHEST_ID}")
    return int(text)
