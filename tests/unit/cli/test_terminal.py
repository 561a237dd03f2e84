"""Nothing that comes from an image or a step can command the terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.cli.terminal import age_text, clean_log, clean_name, clean_text, size_text, table

ALLOWED = {"\n", "\t"}


@given(st.text(st.characters()))
def test_no_control_character_survives(text: str):
    assert all(c.isprintable() or c in ALLOWED or c.isspace() or ord(c) >= 0xA0 for c in clean_log(text))
    for cleaned in (clean_name(text), clean_text(text), clean_log(text)):
        assert "\x1b" not in cleaned and "\x9b" not in cleaned and "\x7f" not in cleaned
        cleaned.encode()  # no lone surrogate is left either
    assert "\n" not in clean_name(text)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("10%\r50%\r100%", "100%"),
        ("windows line\r", "windows line"),
        ("\x1b[?25lhidden", "hidden"),
        ("\x1b(Bcharset", "charset"),
        ("tab\tstays", "tab\tstays"),
        ("caf\udce9", "caf\ufffd"),
    ],
)
def test_logs_lose_their_escapes(line: str, shown: str):
    assert clean_log(line) == shown


def test_names_show_what_they_hide():
    assert clean_name("a\x1b[2Jb\nc\u202ed\udcff") == "a\\x1b[2Jb\\x0ac\\u202ed\\xff"


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0B"), (999, "999B"), (1000, "1.00kB"), (12_345, "12.3kB"), (999_600, "1.00MB"), (5 * 10**12, "5.00TB")],
)
def test_sizes(size: int, text: str):
    assert size_text(size) == text


def test_ages():
    assert [age_text(s) for s in (1, 59, 60, 7200, 90_000, 40 * 86_400)] == [
        "1 second ago", "59 seconds ago", "1 minute ago", "2 hours ago", "1 day ago", "1 month ago",
    ]  # fmt: skip


def test_tables_align():
    assert table(("A", "LONG"), [("xyz", "1"), ("", "22")]) == "A     LONG\nxyz   1\n      22"
