"""Modes and owners as users write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import InputError
from lamina.layer.recipe import parse_mode, parse_owner

PASSWD = b"root:x:0:0::/root:/bin/sh\n# no\nweb:x:33:34::/:\nbad:x:-1:99999999999\nshort:x\n"
GROUP = b"root:x:0:\nstaff:x:50:web\n\n"


@pytest.mark.parametrize(
    ("text", "before", "is_dir", "after"),
    [
        ("755", 0o600, False, 0o755),
        ("04755", 0o600, False, 0o4755),
        ("u=rwX,go=rX", 0o600, False, 0o644),
        ("u=rwX,go=rX", 0o700, False, 0o755),
        ("u=rwX,go=rX", 0o600, True, 0o755),
        ("a+x", 0o640, False, 0o751),
        ("+x", 0o640, False, 0o751),
        ("go-rwx", 0o4777, False, 0o4700),
        ("g=u", 0o640, False, 0o660),
        ("u+s,g+s,+t", 0o755, False, 0o7755),
        ("u=rx", 0o4755, False, 0o555),
        ("o=", 0o757, False, 0o750),
        ("u+r-w", 0o200, False, 0o400),
    ],
)
def test_modes_change_as_chmod_does(text: str, before: int, is_dir: bool, after: int) -> None:
    """With umask 0; X means execute for directories and for what has it somewhere."""
    assert parse_mode(text)(before, is_dir) == after


@pytest.mark.parametrize("text", ["", "789", "u", "u=q", "77777", "z+x", "u=r,", "=r=w?", "rwx"])
def test_bad_modes_are_named(text: str) -> None:
    """Never silently something else."""
    with pytest.raises(InputError, match="mode"):
        parse_mode(text)


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("web", (33, 34)),
        ("web:staff", (33, 50)),
        ("5", (5, 5)),
        ("5:staff", (5, 50)),
        ("web:7", (33, 7)),
        (":staff", (0, 50)),
        ("4000000000:0", (4000000000, 0)),
    ],
)
def test_owners_are_looked_up(text: str, owner: tuple[int, int]) -> None:
    """A name alone brings its group, a number alone is both."""
    assert parse_owner(text, PASSWD, GROUP) == owner


@pytest.mark.parametrize("text", ["nobody", "web:none", "4294967295", "0:4294967295", "bad", "short", "", "٣"])
def test_unknown_and_impossible_owners_are_refused(text: str) -> None:
    """2^32 never becomes root."""
    with pytest.raises(InputError):
        parse_owner(text, PASSWD, GROUP)


def test_a_huge_passwd_is_refused() -> None:
    """It comes from an image."""
    with pytest.raises(InputError, match="10 MiB"):
        parse_owner("web", b"x" * (10 << 20) + b"x", b"")


@given(st.binary(max_size=60), st.text(max_size=6))
def test_any_passwd_gives_an_owner_or_an_error(data: bytes, name: str) -> None:
    """No other exception."""
    try:
        uid, gid = parse_owner(name, data, data)
    except InputError:
        return
    assert 0 <= uid < 2**32 - 1
    assert 0 <= gid < 2**32 - 1
