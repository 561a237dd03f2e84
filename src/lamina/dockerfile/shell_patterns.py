"""Patterns of `${name#pattern}`, `${name%pattern}` and `${name/pattern/text}`: `*`, `?` and backslash, no brackets.

In: value and pattern, both text. Out: the value, trimmed or replaced. `*` and `?` stand for any characters but a line
feed. Reference: Dockerfile reference, "Environment replacement"; POSIX shell, 2.13 without bracket expressions.

Invariant: time is linear in the value. A backtracking regular expression is not, so patterns with wildcards run as a
bit-parallel automaton: bit `i` of the state says that the first `i` items of the pattern have matched.
"""

from __future__ import annotations

from lamina.errors import InputError

MAX_PATTERN = 1024
"""Longest pattern with wildcards, in items."""

_ANY = "?"
_STAR = "*"
_Item = tuple[bool, str]  # (is a wildcard, character)


def trim_prefix(value: str, pattern: str, *, longest: bool) -> str:
    """Return `value` without the shortest or longest beginning that `pattern` matches.

    Raises:
        InputError: the pattern has a bad escape or is too long.
    """
    items = _parse(pattern)
    if (literal := _literal(items)) is not None:
        return value.removeprefix(literal)
    end = _Automaton(items).match(value, 0, longest=longest)
    return value if end is None else value[end:]


def trim_suffix(value: str, pattern: str, *, longest: bool) -> str:
    """Return `value` without the shortest or longest end that `pattern` matches; raises as `trim_prefix`."""
    items = _parse(pattern)
    if (literal := _literal(items)) is not None:
        return value.removesuffix(literal)
    end = _Automaton(items[::-1]).match(value[::-1], 0, longest=longest)
    return value if end is None else value[: len(value) - end]


def replace(value: str, pattern: str, replacement: str, *, every: bool, limit: int) -> str:
    """Return `value` with the first match of `pattern`, or every one, replaced; a match is as long as can be.

    An empty match right after another match is not replaced. `limit` bounds the characters that may come out.

    Raises:
        InputError: bad escape, pattern too long, or more characters than `limit`.
    """
    items = _parse(pattern)
    if (literal := _literal(items)) is not None:
        times = value.count(literal) if every else 1
        if len(value) + times * (len(replacement) - len(literal)) > limit:
            raise _too_much(limit)
        return value.replace(literal, replacement, times)
    automaton = _Automaton(items)
    starts = _starts(items, value)
    out: list[str] = []
    size = position = copied = 0
    while (start := starts.find(1, position)) >= 0:
        end = automaton.match(value, start, longest=True) or start
        if end > copied or start == 0:
            out += (value[copied:start], replacement)
            size += start - copied + len(replacement)
            if size > limit:
                raise _too_much(limit)
            copied = end
        position = max(end, start + 1)
        if not every:
            break
    out.append(value[copied:])
    return "".join(out)


def _parse(pattern: str) -> list[_Item]:
    """Return the items of `pattern`; neighbouring stars become one."""
    items: list[_Item] = []
    characters = iter(pattern)
    for ch in characters:
        if ch == _STAR:
            if not items or items[-1] != (True, _STAR):
                items.append((True, _STAR))
        elif ch == _ANY:
            items.append((True, _ANY))
        elif ch == "\\":
            escaped = next(characters, "")
            if escaped not in ("*", "?", "\\", "}", "/"):
                raise InputError(
                    f"bad escape \\{escaped} in a pattern",
                    hint=r"in a pattern a backslash stands before one of * ? \ } /",
                )
            items.append((False, escaped))
        else:
            items.append((False, ch))
    if len(items) > MAX_PATTERN and _literal(items) is None:
        raise InputError(
            f"a pattern with wildcards in a variable has {len(items)} characters, at most {MAX_PATTERN} are taken",
            hint="shorten it, or do this with sed in a RUN",
        )
    return items


def _literal(items: list[_Item]) -> str | None:
    """Return the text that `items` stand for when there is no wildcard among them."""
    return None if any(wild for wild, _ in items) else "".join(ch for _, ch in items)


def _too_much(limit: int) -> InputError:
    """Return the error for a replacement that grows too long."""
    return InputError(
        f"a replacement in a variable gives more than {limit} characters",
        hint="a variable is no place for so much text: write a file",
    )


class _Automaton:
    """A pattern as bit masks."""

    def __init__(self, items: list[_Item]) -> None:
        self.accept = 1 << len(items)
        self.stars = 0
        self.anys = 0
        literals: dict[str, int] = {}
        for number, (wild, ch) in enumerate(items):
            if not wild:
                literals[ch] = literals.get(ch, 0) | 1 << number
            elif ch == _STAR:
                self.stars |= 1 << number
            else:
                self.anys |= 1 << number
        self.literals = literals
        self.start = 1 | (1 & self.stars) << 1

    def step(self, state: int, ch: str) -> int:
        """Return the state after `ch`."""
        moves = self.literals.get(ch, 0)
        if ch == "\n":
            state = (state & moves) << 1
        else:
            state = (state & (moves | self.anys)) << 1 | (state & self.stars)
        return state | (state & self.stars) << 1

    def match(self, value: str, start: int, *, longest: bool) -> int | None:
        """Return the end of the shortest or longest match that begins at `start`, or None."""
        state, found = self.start, None
        for position in range(start, len(value) + 1):
            if state & self.accept:
                found = position
                if not longest:
                    return found
            if not state or position == len(value):
                break
            state = self.step(state, value[position])
        return found


def _starts(items: list[_Item], value: str) -> bytearray:
    """Return a table with 1 wherever a match begins: one run of the reversed pattern over the reversed value."""
    automaton = _Automaton(items[::-1])
    table = bytearray(len(value) + 1)
    state = automaton.start
    for position in range(len(value), -1, -1):
        if state & automaton.accept:
            table[position] = 1
        if position:
            state = automaton.step(state, value[position - 1]) | automaton.start
    return table
