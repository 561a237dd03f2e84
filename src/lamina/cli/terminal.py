"""What people see: text made safe for a terminal, sizes, ages and tables.

Names, logs and messages come from images, registries and build steps, so they may hold escape sequences that
would move the cursor, change the title or fake other output. Everything shown passes `clean_name` (control
characters become visible) or `clean_text`/`clean_log` (they are dropped or replaced, line structure stays).
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Control characters (C0, DEL, C1), line separators, and the marks that reorder text (CVE-2021-42574).
_REORDER = "\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_UNSAFE_NAME = re.compile(f"[\x00-\x1f\x7f-\x9f{_REORDER}\ud800-\udfff]")
_UNSAFE_TEXT = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_REORDER}\ud800-\udfff]")
# CSI, OSC/DCS/APC/PM/SOS strings (ended by BEL or ST), and two-character escapes; bounded, so linear.
_ESCAPE = re.compile(
    r"\x1b\[[0-?]{0,64}[ -/]{0,16}[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b\x9c\n]{0,4096}(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]{0,4}[0-~]"
    r"|\x9b[0-?]{0,64}[ -/]{0,16}[@-~]"
)


def _visible(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, carried by surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def clean_name(text: str) -> str:
    """Return `text` on one line, with everything a terminal would obey made visible (as hexadecimal escapes)."""
    return _UNSAFE_NAME.sub(_visible, text)


def clean_text(text: str) -> str:
    """Return `text` of several lines, keeping newlines and tabs and making other controls visible."""
    return _UNSAFE_TEXT.sub(_visible, text)


def clean_log(line: str) -> str:
    """Return one line of a step's output without escape sequences, as its last carriage return left it."""
    if line.isprintable():
        return line
    line = _ESCAPE.sub("", line).rstrip("\r")
    if "\r" in line:
        line = line[line.rindex("\r") + 1 :]
    return _UNSAFE_TEXT.sub(_log_character, line)


def _log_character(match: re.Match[str]) -> str:
    return "\ufffd" if "\ud800" <= match[0] <= "\udfff" else ""


def size_text(size_bytes: int) -> str:
    """Return a size as docker shows it: decimal units, three digits (`12.3MB`)."""
    units = ["TB", "GB", "MB", "kB"]
    value, unit = float(size_bytes), "B"
    while value >= 999.5 and units:
        value, unit = value / 1000, units.pop()
    if unit == "B":
        return f"{size_bytes}B"
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}{unit}"


def age_text(seconds: float) -> str:
    """Return how long ago something was, in one unit (`3 hours ago`)."""
    for unit, length in (("year", 31_557_600), ("month", 2_629_800), ("week", 604_800), ("day", 86_400)):
        if seconds >= length:
            return _count(int(seconds // length), unit)
    if seconds >= 3600:
        return _count(int(seconds // 3600), "hour")
    if seconds >= 60:
        return _count(int(seconds // 60), "minute")
    return _count(max(0, int(seconds)), "second")


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'} ago"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return left-aligned columns, three spaces apart, each cell made safe for a terminal."""
    lines = [list(header), *([clean_name(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
