"""Which records of builds are meant: `lamina history rm --filter ... --older ... --keep N`.

In: conditions as a user writes them. Out: a test on builds. The forms are those of `lamina prune --filter`:
`FIELD=TEXT`, `FIELD!=TEXT`, `FIELD~=REGEX`, several joined by commas or given apart; all must hold. Fields: `id`,
`name`, `status`, `context`, and `until=AGE` (began longer ago).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lamina.engine.upkeep.amounts import parse_seconds
from lamina.errors import InputError
from lamina.history.records import Build

STATUSES = ("running", "completed", "failed", "cancelled", "died")
_MOST_CHARACTERS = 4096
_CONDITION = re.compile(r"\s*([a-z]+)\s*(!=|~=|==?)\s*(.*)", re.DOTALL)
_FIELDS: dict[str, Callable[[Build], str]] = {
    "id": lambda build: build.id,
    "name": lambda build: build.name,
    "status": lambda build: build.status,
    "context": lambda build: str(build.record.get("context", "")),
}


@dataclass(frozen=True, slots=True)
class BuildFilter:
    """What builds must be like.

    Attributes:
        conditions: field, operator ("=", "!=", "~="), text.
        older_s: only what began so many seconds ago, 0.0 for all.
        keep: of what is meant, so many of the newest stay.
    """

    conditions: tuple[tuple[str, str, str], ...] = ()
    older_s: float = 0.0
    keep: int = 0

    def choose(self, builds: Iterable[Build], now: float) -> list[Build]:
        """Return those of `builds` that are meant and not pinned, in their order: newest first.

        Args:
            now: seconds since the epoch.
        """
        found = [build for build in builds if not build.pinned and self._matches(build, now)]
        return found[self.keep :]

    def _matches(self, build: Build, now: float) -> bool:
        if self.older_s and build.started > now - self.older_s:
            return False
        return all(_holds(_FIELDS[field](build), operator, text) for field, operator, text in self.conditions)


def parse_build_filter(texts: Sequence[str], older: str = "", keep: int = 0) -> BuildFilter:
    """Return the filter that is all of `texts` together.

    Args:
        older: an age such as `30d`, "" for none.

    Raises:
        InputError: an unknown field or operator, a value that cannot be.
    """
    if keep < 0:
        raise InputError(f"--keep is a number of builds, not {keep}")
    age = parse_seconds(older, "--older")
    found: list[tuple[str, str, str]] = []
    for text in texts:
        if len(text) > _MOST_CHARACTERS:
            raise InputError(f"--filter is longer than {_MOST_CHARACTERS} characters")
        for part in filter(None, (part.strip() for part in text.split(","))):
            match = _CONDITION.fullmatch(part)
            field, operator, value = match.groups() if match else ("", "", "")
            operator, value = operator.replace("==", "="), value.strip()
            if field == "until" and operator == "=":
                age = max(age, parse_seconds(value, "--filter until"))
                continue
            found.append(_condition(part, field, operator, value))
    return BuildFilter(tuple(found), age, keep)


def _condition(part: str, field: str, operator: str, value: str) -> tuple[str, str, str]:
    if field not in _FIELDS:
        hint = f"write FIELD=TEXT; fields: until, {', '.join(_FIELDS)}"
        raise InputError(f"--filter: {part[:80]!r} is no condition on a build", hint=hint)
    if field == "status" and operator != "~=" and value not in STATUSES:
        raise InputError(f"--filter: unknown status {value[:80]!r}", hint=f"one of {', '.join(STATUSES)}")
    if operator == "~=":
        try:
            re.compile(value)
        except (re.error, RecursionError, OverflowError) as error:
            raise InputError(f"--filter: {value[:80]!r} is not a regular expression: {error}") from error
    return field, operator, value


def _holds(text: str, operator: str, value: str) -> bool:
    if operator == "~=":
        return re.search(value, text) is not None
    return (text == value) is (operator == "=")
