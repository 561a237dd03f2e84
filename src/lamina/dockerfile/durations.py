"""Durations as Dockerfiles write them: `1m30s`, `500ms`, `1.5h`. Pure; the grammar is that of Go's time package."""

from __future__ import annotations

import re

from lamina.errors import InputError

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"([0-9]+)?(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_MAX_NS = (1 << 63) - 1


def parse_duration(text: str) -> int:
    """Return the nanoseconds that `text` stands for; negative with a leading minus.

    Raises:
        InputError: another shape, or more than 292 years.
    """
    sign, body = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if body == "0":
        return 0
    total, position = 0, 0
    while position < len(body):
        part = _PART.match(body, position)
        if part is None or not (part[1] or part[2]) or len(part[0]) > 64:
            raise _wrong(text)
        whole, fraction, unit = part[1] or "0", part[2] or "", _UNITS[part[3]]
        total += int(whole) * unit + int(fraction or "0") * unit // 10 ** len(fraction)
        position = part.end()
    if not body:
        raise _wrong(text)
    if total > _MAX_NS:
        raise InputError(f"too long a duration: {text[:80]!r}", hint="at most 292 years")
    return sign * total


def _wrong(text: str) -> InputError:
    """Return the error for a text that is no duration."""
    return InputError(f"not a duration: {text[:80]!r}", hint="write a number with a unit, such as 500ms, 30s, 1m30s")


def format_duration(nanoseconds: int) -> str:
    """Return a duration as Go prints it: `1m30s`, `1.5s`, `0s`; from 0 on."""
    if nanoseconds < 1_000_000_000:
        for unit, size in (("ms", 1_000_000), ("µs", 1_000), ("ns", 1)):
            if nanoseconds >= size:
                return f"{_decimal(nanoseconds, size)}{unit}"
        return "0s"
    minutes, rest = divmod(nanoseconds, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    shown = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{shown}{_decimal(rest, _UNITS['s'])}s"


def _decimal(value: int, unit: int) -> str:
    whole, rest = divmod(value, unit)
    return f"{whole}.{str(rest).zfill(len(str(unit)) - 1)}".rstrip("0").rstrip(".")
