"""Sizes and ages as people and BuildKit's configuration write them. Pure.

In: `10GB`, `512m`, `1024`, `20%`; `48h`, `1h30m`, `7d`, `172800`. Out: an `Amount` (percentages are of a disk and
become bytes only when that is known) and seconds. Units of bytes are binary, as docker and buildkitd read them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lamina.dockerfile.durations import parse_duration
from lamina.errors import InputError

_BYTES = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))? ?([kmgtp]?)i?b?", re.IGNORECASE)
_PERCENT = re.compile(r"([0-9]{1,3})%")
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_DAYS = re.compile(r"([0-9]{1,6})d")
MOST_BYTES = 1 << 62


@dataclass(frozen=True, slots=True)
class Amount:
    """Space on a disk: bytes, or a percentage of the whole disk. Zero says nothing.

    Attributes:
        bytes: how many, 0 when `percent` says it.
        percent: 0..100 of the file system's size.
    """

    bytes: int = 0
    percent: int = 0

    def of(self, total_bytes: int) -> int:
        """Return the bytes on a file system of `total_bytes`."""
        return self.bytes or total_bytes * self.percent // 100

    def __bool__(self) -> bool:
        return bool(self.bytes or self.percent)

    def __str__(self) -> str:
        return f"{self.percent}%" if self.percent else str(self.bytes)


NOTHING = Amount()


def parse_amount(value: str | int, what: str) -> Amount:
    """Return what `value` stands for.

    Args:
        value: a number of bytes, or text with a unit or a percent sign; "" and 0 are nothing.
        what: names the option in the error.

    Raises:
        InputError: it is neither.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _wrong(what, str(value))
    if isinstance(value, int):
        if not 0 <= value <= MOST_BYTES:
            raise _wrong(what, str(value))
        return Amount(value)
    text = value.strip()
    if not text:
        return Amount()
    if percent := _PERCENT.fullmatch(text):
        if int(percent[1]) > 100:
            raise _wrong(what, text)
        return Amount(percent=int(percent[1]))
    found = _BYTES.fullmatch(text)
    if found is None:
        raise _wrong(what, text)
    unit = _UNITS[found[3].lower()]
    fraction = found[2] or ""
    size = (int(found[1]) << unit) + (int(fraction or "0") << unit) // 10 ** len(fraction)
    if size > MOST_BYTES:
        raise _wrong(what, text)
    return Amount(size)


def parse_seconds(value: str | int, what: str) -> float:
    """Return seconds for a duration in Go's form, whole days (`7d`), or a bare number of seconds.

    Raises:
        InputError: another shape, or negative.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"{what}: {value!r} is not a duration")
    if isinstance(value, int):
        value = str(value)
    text = value.strip()
    if not text:
        return 0.0
    if days := _DAYS.fullmatch(text):
        return int(days[1]) * 86_400.0
    if text.isascii() and text.isdigit() and len(text) <= 12:
        return float(int(text))
    try:
        seconds = parse_duration(text) / 1e9
    except InputError as error:
        raise InputError(f"{what}: {error.what}", hint="such as 24h, 90m, 7d") from error
    if seconds < 0:
        raise InputError(f"{what}: {text!r} is negative")
    return seconds


def _wrong(what: str, text: str) -> InputError:
    return InputError(f"{what}: {text[:80]!r} is not a size", hint="write bytes, a unit (10GB, 512m) or a share (20%)")
