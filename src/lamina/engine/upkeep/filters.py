"""The filter language of `du`, `prune` and GC policies, as BuildKit has it. Pure.

A filter is a list of conditions with commas, all of which hold: `field=value` (also `==`), `field!=value`,
`field~=regex`, or a bare `field` that is true (`inuse`, `mutable`, `immutable`, `shared`, `private`). Fields:
`id`, `parents` (joined by ";"), `description`, `type`, and `until` (or `unused-for`), an age: not used since.
Several `=` on one field are alternatives, since a record has only one value there. `id=` also takes the beginning of an
id, as buildx has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lamina.engine.upkeep.amounts import parse_seconds
from lamina.engine.upkeep.records import TYPES, Record
from lamina.errors import InputError

_CONDITION = re.compile(r"\s*([a-z-]+)\s*(==|!=|~=|=|)\s*(.*)", re.DOTALL)
_TEXTS: dict[str, Callable[[Record], str]] = {
    "id": lambda record: record.name,
    "parents": lambda record: ";".join(record.parents),
    "description": lambda record: record.description,
    "type": lambda record: record.type,
}
_FLAGS: dict[str, Callable[[Record], bool]] = {
    "inuse": lambda record: record.in_use,
    "mutable": lambda record: record.mutable,
    "immutable": lambda record: not record.mutable,
    "shared": lambda record: record.shared,
    "private": lambda record: not record.shared,
}
_AGES = ("until", "unused-for")
_MOST_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class Filter:
    """What records must be like; made by `parse_filters`.

    Attributes:
        until_s: only what was not used for so many seconds, 0.0 for all.
    """

    conditions: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    until_s: float = 0.0

    def matches(self, record: Record, now: float) -> bool:
        """Tell whether the record is meant."""
        if self.until_s and record.used > now - self.until_s:
            return False
        return all(_holds(record, *condition) for condition in self.conditions)


def parse_filters(texts: Sequence[str], what: str = "--filter") -> Filter:
    """Return the filter that is all of `texts` together.

    Raises:
        InputError: an unknown field or operator, a value that cannot be.
    """
    until = 0.0
    equal: dict[str, list[str]] = {}
    found: list[tuple[str, str, tuple[str, ...]]] = []
    for text in texts:
        if len(text) > _MOST_CHARACTERS:
            raise InputError(f"{what} is longer than {_MOST_CHARACTERS} characters")
        for part in filter(None, (part.strip() for part in text.split(","))):
            field, operator, value = _split(part, what)
            if field in _AGES:
                if operator not in ("=", "=="):
                    raise InputError(f"{what}: {field} takes an age", hint="such as until=24h")
                until = max(until, parse_seconds(value, f"{what} {field}"))
            elif operator in ("=", "=="):
                equal.setdefault(field, []).append(value)
            else:
                found.append((field, operator, (value,)))
    found += [(field, "=", tuple(values)) for field, values in equal.items()]
    return Filter(tuple(found), until)


def _split(part: str, what: str) -> tuple[str, str, str]:
    """Return field, operator and value of one condition, checked."""
    match = _CONDITION.fullmatch(part)
    field, operator, value = match.groups() if match else ("", "", "")
    value = value.strip().strip('"')
    if field not in _TEXTS and field not in _FLAGS and field not in _AGES:
        names = ", ".join(["until", *_TEXTS, *_FLAGS])
        raise InputError(f"{what}: {part[:80]!r} names no field of a record", hint=f"fields: {names}")
    if field in _FLAGS:
        if operator and value not in ("true", "false", "1", "0"):
            raise InputError(f"{what}: {field} is true or false, not {value[:80]!r}")
        if operator == "~=":
            raise InputError(f"{what}: {field} cannot be matched by a regular expression")
    elif not operator and value:
        raise InputError(f"{what}: no operator in {part[:80]!r}", hint="write =, !=, or ~= for a regular expression")
    if operator == "~=":
        try:
            re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            raise InputError(f"{what}: {value[:80]!r} is not a regular expression: {error}") from error
    if field == "type" and operator in ("=", "==", "!=") and value not in TYPES:
        raise InputError(f"{what}: unknown type {value[:80]!r}", hint=f"types: {', '.join(TYPES)}")
    return field, operator, value


def _holds(record: Record, field: str, operator: str, values: tuple[str, ...]) -> bool:
    if field in _FLAGS:
        wanted = not operator or any(value in ("true", "1") for value in values)
        return (_FLAGS[field](record) is wanted) is not (operator == "!=")
    text = _TEXTS[field](record)
    if operator == "":
        return bool(text)
    if operator == "~=":
        return re.search(values[0], text) is not None
    if operator == "!=":
        return text != values[0]
    if field == "id":
        return any(_same_id(text, value) for value in values)
    return text in values


def _same_id(name: str, value: str) -> bool:
    """Tell whether `value` names a thing: a number all of it, a digest or a hash its beginning."""
    bare = name.partition(":")[2] or name
    return value in (name, bare) or (
        len(value) >= 4 and len(bare) >= 32 and (name.startswith(value) or bare.startswith(value))
    )
