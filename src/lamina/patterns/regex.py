"""Regular expressions of strangers, matched in linear time. Pure.

In: patterns with Go's meaning (RE2): leftmost match, of several the one that the pattern prefers; texts. Out: groups,
texts with groups put in. Python's own engine goes back and tries again, which for `(a+)+$` takes for ever; this one
visits each pair of an instruction and a position once (RE2's "bit state"), so that a match costs at most the product
of their numbers, and each of both has a bound. `Budget` bounds what several matches cost together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from lamina.errors import InputError
from lamina.patterns.regex_parse import CharSet, Node, Parser

MAX_INSTRUCTIONS = 2000
"""Longest program that a pattern may become; `{1000}` of something long does not fit."""
MAX_TEXT = 8192
"""Most characters of a text that is matched."""
_CHAR, _SPLIT, _JUMP, _SAVE, _AT, _DONE = range(6)
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
Instruction = tuple[int, object, int]


class Budget:
    """How many steps matching may still take; raises `InputError` when there are none left."""

    def __init__(self, steps: int = 20_000_000) -> None:
        self._left = steps

    def spend(self, steps: int) -> None:
        """Take steps away."""
        self._left -= steps
        if self._left < 0:
            raise InputError("the regular expressions take too long to be matched", hint="write simpler or fewer ones")


@dataclass(frozen=True, slots=True)
class Match:
    """Where a pattern matched: `spans[n]` is the part of group `n` (None: it took no part); 0 is the whole."""

    text: str
    spans: tuple[tuple[int, int] | None, ...]
    names: tuple[str, ...]

    def group(self, name: str) -> str:
        """Return what a group matched, by number or name; "" where there is no such group."""
        number = -1
        if name.isdigit():
            number = int(name) if name == "0" or not name.startswith("0") else -1
        elif name:
            found = (n for n, other in enumerate(self.names) if other == name and self.spans[n] is not None)
            number = next(found, -1)
        span = self.spans[number] if 0 <= number < len(self.spans) else None
        return self.text[span[0] : span[1]] if span is not None else ""

    def expand(self, template: str) -> str:
        """Return a template with `$1`, `${1}`, `${name}` replaced by groups and `$$` by a dollar, as Go does it."""
        found, at = [], 0
        while (dollar := template.find("$", at)) >= 0:
            found.append(template[at:dollar])
            name, at = _reference(template, dollar)
            found.append("$" if name is None else self.group(name))
        return "".join([*found, template[at:]])


def _reference(template: str, dollar: int) -> tuple[str | None, int]:
    """Return the name after a dollar, and where it ends; None for a dollar that stands for itself."""
    start = dollar + 1
    if template.startswith("$", start):
        return None, start + 1
    braced = template.startswith("{", start)
    start += braced
    end = start
    while end < len(template) and template[end] in _NAME:
        end += 1
    if end == start or (braced and not template.startswith("}", end)):
        return None, dollar + 1
    return template[start:end], end + braced


class Regex:
    """A compiled pattern."""

    def __init__(self, program: list[Instruction], names: tuple[str, ...]) -> None:
        self._program, self._names = program, names

    def search(self, text: str, budget: Budget, start: int = 0) -> Match | None:
        """Return the leftmost match at or after `start`, None when there is none.

        Raises:
            InputError: the text is too long, or the budget is spent.
        """
        if len(text) > MAX_TEXT:
            raise InputError(f"{len(text)} characters are too many to be matched; at most {MAX_TEXT} are taken")
        size = len(self._program) * (len(text) + 1)
        budget.spend(len(text) + 1 + size // 64)  # to clear the table takes time, too
        visited = bytearray(size)
        for first in range(start, len(text) + 1):
            found = self._run(text, first, visited, budget)
            if found is not None:
                return Match(text, found, self._names)
        return None

    def replace_all(self, text: str, template: str, budget: Budget) -> str:
        """Return the text with every match replaced by what the template becomes."""
        out, at, last = [], 0, 0
        while at <= len(text):
            found = self.search(text, budget, at)
            if found is None:
                break
            span = found.spans[0]
            assert span is not None
            out.append(text[last : span[0]])
            if span[1] > last or span[0] == 0:
                out.append(found.expand(template))
            last, at = span[1], max(at + 1, span[1])
        return "".join([*out, text[last:]])

    def _run(
        self, text: str, first: int, visited: bytearray, budget: Budget
    ) -> tuple[tuple[int, int] | None, ...] | None:
        """Return the spans of the preferred match that begins at `first`."""
        program, width = self._program, len(text) + 1
        saved: list[int] = [-1] * (2 * len(self._names))
        saved[0] = first
        stack: list[tuple[int, int, int]] = [(0, first, -2)]
        steps = 0
        while stack:
            pc, at, old = stack.pop()
            if old != -2:  # going back over a group: what it had before
                saved[pc] = old
                continue
            while True:
                steps += 1
                seen = pc * width + at
                if visited[seen]:
                    break
                visited[seen] = 1
                op, what, other = program[pc]
                if op == _CHAR:
                    if at >= len(text) or not what(text[at]):  # type: ignore[operator]
                        break
                    pc, at = pc + 1, at + 1
                elif op == _SPLIT:
                    stack.append((other, at, -2))
                    pc = what  # type: ignore[assignment]
                elif op == _JUMP:
                    pc = other
                elif op == _SAVE:
                    stack.append((other, 0, saved[other]))
                    saved[other] = at
                    pc += 1
                elif op == _AT:
                    if not _holds(what, text, at):
                        break
                    pc += 1
                else:
                    saved[1] = at
                    budget.spend(steps)
                    pairs = zip(saved[::2], saved[1::2], strict=True)
                    return tuple((low, high) if low >= 0 and high >= 0 else None for low, high in pairs)
        budget.spend(steps)
        return None


def _holds(where: object, text: str, at: int) -> bool:
    if where == "^":
        return at == 0
    if where == "$":
        return at == len(text)
    if where == "m^":
        return at == 0 or text[at - 1] == "\n"
    if where == "m$":
        return at == len(text) or text[at] == "\n"
    before = at > 0 and text[at - 1] in _NAME
    after = at < len(text) and text[at] in _NAME
    return (before != after) == (where == "b")


@lru_cache(maxsize=1024)
def compile_pattern(pattern: str) -> Regex:
    """Return a pattern ready to match.

    Raises:
        InputError: it is not one, or it is too large.
    """
    parser = Parser(pattern)
    tree = parser.parse()
    return _assembled(tree, tuple(parser.names))


@lru_cache(maxsize=1024)
def compile_wildcard(pattern: str) -> Regex:
    """Return a pattern for whole texts in which `*` stands for anything (but the end of a line), and is a group.

    Raises:
        InputError: it holds `**`, or is too large.
    """
    if "**" in pattern:
        raise InputError(f"bad wildcard {pattern[:200]!r}: '**'", hint="one '*' stands for anything, '/' included")
    parts, groups = [Node("at", where="^")], 0
    anything = Node("repeat", (Node("char", chars=CharSet(((10, 10),), negated=True)),), low=0, high=-1)
    for char in pattern:
        if char == "*":
            groups += 1
            parts.append(Node("group", (anything,), low=groups))
        else:
            parts.append(Node("char", chars=CharSet(((ord(char), ord(char)),))))
    return _assembled(Node("cat", (*parts, Node("at", where="$"))), ("",) * (groups + 1))


def _assembled(tree: Node, names: tuple[str, ...]) -> Regex:
    program: list[Instruction] = []
    _emit(tree, program)
    program.append((_DONE, None, 0))
    return Regex(program, names)


def _emit(node: Node, program: list[Instruction]) -> None:
    if len(program) > MAX_INSTRUCTIONS:
        raise InputError("the pattern is too large", hint="make it shorter, or repeat less often")
    kind = node.kind
    if kind == "char":
        program.append((_CHAR, _matcher(node.chars), 0))
    elif kind == "cat":
        for part in node.parts:
            _emit(part, program)
    elif kind == "at":
        program.append((_AT, node.where, 0))
    elif kind == "group":
        program.append((_SAVE, None, 2 * node.low))
        _emit(node.parts[0], program)
        program.append((_SAVE, None, 2 * node.low + 1))
    elif kind == "or":
        _emit_or(node, program)
    else:
        _emit_repeat(node, program)


def _emit_or(node: Node, program: list[Instruction]) -> None:
    ends = []
    for part in node.parts[:-1]:
        split = len(program)
        program.append((_SPLIT, split + 1, 0))
        _emit(part, program)
        ends.append(len(program))
        program.append((_JUMP, None, 0))
        program[split] = (_SPLIT, split + 1, len(program))
    _emit(node.parts[-1], program)
    for end in ends:
        program[end] = (_JUMP, None, len(program))


def _emit_repeat(node: Node, program: list[Instruction]) -> None:
    body = node.parts[0]
    for _ in range(node.low - (node.high < 0)):
        before = len(program)
        _emit(body, program)
        if len(program) == before:
            break  # nothing, however often
    splits = []
    for _ in range(node.low == 0 if node.high < 0 else node.high - node.low):
        splits.append((len(program), len(program) + 1))
        program.append((_SPLIT, None, 0))
        if node.high >= 0:
            _emit(body, program)
    if node.high < 0:  # a turn, and then perhaps another: an empty turn ends the loop
        again = len(program)
        _emit(body, program)
        splits.append((len(program), again))
        program.append((_SPLIT, None, 0))
    for split, inside in splits:
        after = len(program)
        program[split] = (_SPLIT, inside, after) if node.greedy else (_SPLIT, after, inside)


def _matcher(chars: CharSet) -> Callable[[str], bool]:
    """Return what tells whether a character matches; one and the same set is asked many times."""
    if not chars.fold and not chars.negated and len(chars.ranges) == 1 and not chars.categories:
        low, high = chars.ranges[0]
        if low == high:
            return chr(low).__eq__
    known: dict[str, bool] = {}

    def matches(char: str) -> bool:
        if char not in known:
            known[char] = chars.matches(char)
        return known[char]

    return matches
