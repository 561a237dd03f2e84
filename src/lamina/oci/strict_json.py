"""JSON from outside, read strictly: what two readers could understand differently is refused.

Bytes in, Python values out. Refused: text that is not UTF-8, a byte order mark, a key given twice, NaN and
infinities, unpaired surrogates, more than `max_bytes`, more than `MAX_DEPTH` levels. Readers written in Go match
keys without regard to case, so `check_known_keys` refuses a misspelt variant of a key that matters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NoReturn

from lamina.errors import InputError

MAX_BYTES = 4 * 1024 * 1024
"""Cap for manifests, indexes and configs, the one that registries and other tools apply."""

MAX_DEPTH = 64


def parse_json(raw: bytes, where: str = "", *, max_bytes: int = MAX_BYTES) -> Any:
    """Return the value of a JSON text.

    Raises:
        InputError: the text is too long, too deep, not JSON or ambiguous.
    """
    if len(raw) > max_bytes:
        raise InputError(f"JSON of {len(raw)} bytes, more than the {max_bytes} allowed", where=where)
    try:
        value = json.loads(raw.decode(), object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError:
        raise InputError("JSON is nested too deeply", where=where) from None
    except ValueError as exc:  # UnicodeDecodeError, JSONDecodeError, a number of too many digits, our own two
        raise InputError(f"not valid JSON: {exc}", where=where) from None
    _check_values(value, where)
    return value


def parse_object(raw: bytes, where: str = "", *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Return the value of a JSON text that must be an object. Raises as `parse_json`."""
    value = parse_json(raw, where, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise InputError("expected a JSON object", where=where)
    return value


def check_known_keys(obj: dict[str, Any], known: Iterable[str], where: str = "") -> None:
    """Raise `InputError` for a key that equals a known one but for its case."""
    by_lower = {key.lower(): key for key in known}
    for key in obj:
        expected = by_lower.get(key.lower())
        if expected is not None and key != expected:
            raise InputError(f"ambiguous key {key!r}, expected {expected!r}", where=where)


def dump_json(value: Any, *, sort: bool = False) -> bytes:
    """Return the compact JSON text of `value`; equal values in equal order (or sorted) give equal bytes."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False, sort_keys=sort).encode()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; a key given twice is an error."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {double[:80]!r} is given twice")
    return found


def _constant(name: str) -> NoReturn:
    """Refuse NaN, Infinity and -Infinity."""
    raise ValueError(f"{name} is not a JSON number")


def _check_values(value: Any, where: str) -> None:
    """Refuse what is nested too deeply, and text that cannot be written as UTF-8 again."""
    stack = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise InputError("JSON is nested too deeply", where=where)
        if isinstance(item, dict):
            stack += [(key, depth) for key in item]
            stack += [(child, depth + 1) for child in item.values()]
        elif isinstance(item, list):
            stack += [(child, depth + 1) for child in item]
        elif isinstance(item, str) and not item.isascii():
            try:
                item.encode()
            except UnicodeEncodeError:
                raise InputError("JSON text holds an unpaired surrogate", where=where) from None
