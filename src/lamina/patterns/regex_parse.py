r"""Regular expressions as Go writes them (RE2's syntax), taken apart into a tree. Pure.

In: a pattern of a stranger's. Out: nested `Node`s, for `regex.compile_pattern`. Nothing that needs going back is known
(no backreferences, no look-around), counted repetition goes to 1,000, nesting to 100.

Reference: https://github.com/google/re2/wiki/Syntax. Left out: scripts (`\p{Greek}`), `\C`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace

from lamina.errors import InputError

MAX_PATTERN = 1024
"""Most characters of a pattern."""
_MAX_REPEAT = 1000
_MAX_DEPTH = 100
_LAST = 0x10FFFF
Ranges = tuple[tuple[int, int], ...]

_PERL: dict[str, Ranges] = {
    "d": ((48, 57),),
    "s": ((9, 10), (12, 13), (32, 32)),
    "w": ((48, 57), (65, 90), (95, 95), (97, 122)),
}
_POSIX: dict[str, Ranges] = {
    "alnum": ((48, 57), (65, 90), (97, 122)), "alpha": ((65, 90), (97, 122)), "ascii": ((0, 127),),
    "blank": ((9, 9), (32, 32)), "cntrl": ((0, 31), (127, 127)), "digit": _PERL["d"], "graph": ((33, 126),),
    "lower": ((97, 122),), "print": ((32, 126),), "punct": ((33, 47), (58, 64), (91, 96), (123, 126)),
    "space": ((9, 13), (32, 32)), "upper": ((65, 90),), "word": _PERL["w"],
    "xdigit": ((48, 57), (65, 70), (97, 102)),
}  # fmt: skip
_CONTROL = {"a": 7, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_OCTAL, _HEX = "01234567", "0123456789abcdefABCDEF"


@dataclass(frozen=True, slots=True)
class CharSet:
    """Which characters match: those of `ranges` or of a category of Unicode, or all others; in any case with `fold`."""

    ranges: Ranges = ()
    categories: tuple[tuple[str, bool], ...] = ()
    negated: bool = False
    fold: bool = False

    def matches(self, char: str) -> bool:
        """Tell whether a character is one of them."""
        forms = {char, char.lower(), char.upper()} if self.fold else {char}
        return any(self._has(form) for form in forms if len(form) == 1) != self.negated

    def _has(self, char: str) -> bool:
        code = ord(char)
        if any(low <= code <= high for low, high in self.ranges):
            return True
        kind = unicodedata.category(char) if self.categories else ""
        return any(kind.startswith(name) != negated for name, negated in self.categories)


@dataclass(frozen=True, slots=True)
class Node:
    """A part of a pattern.

    Attributes:
        kind: "char" (`chars`), "cat", "or" (`parts`), "repeat" (`low` to `high`, -1 for no end; `greedy`), "group"
            (`low` is its number), "at" (`where`: `^`, `$` for the text's ends, `m^`, `m$` for the line's, `b`, `B`).
    """

    kind: str
    parts: tuple[Node, ...] = ()
    chars: CharSet = CharSet()
    low: int = 0
    high: int = 0
    greedy: bool = True
    where: str = ""


@dataclass(frozen=True, slots=True)
class _Flags:
    fold: bool = False
    lines: bool = False
    dot_all: bool = False
    lazy: bool = False


class Parser:
    """Takes one pattern apart.

    Attributes:
        names: of the groups, "" where they have none; the first stands for the whole.
    """

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN:
            raise InputError(f"the regular expression has {len(pattern)} characters; at most {MAX_PATTERN} are taken")
        self._text, self._at, self._depth = pattern, 0, 0
        self._flags = _Flags()
        self.names: list[str] = [""]

    def parse(self) -> Node:
        """Return the tree.

        Raises:
            InputError: it is no regular expression of RE2's.
        """
        found = self._alternatives()
        if self._at < len(self._text):
            raise self._error("')' without '('")
        return found

    def _error(self, what: str) -> InputError:
        return InputError(f"bad regular expression {self._text[:200]!r}: {what}", hint="the syntax is that of Go (RE2)")

    def _peek(self, text: str) -> bool:
        return self._text.startswith(text, self._at)

    def _take(self, text: str) -> bool:
        found = self._peek(text)
        self._at += len(text) if found else 0
        return found

    def _next(self) -> str:
        if self._at >= len(self._text):
            raise self._error("it ends too early")
        self._at += 1
        return self._text[self._at - 1]

    def _alternatives(self) -> Node:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._error("nested too deeply")
        found = [self._sequence()]
        while self._take("|"):
            found.append(self._sequence())
        self._depth -= 1
        return found[0] if len(found) == 1 else Node("or", tuple(found))

    def _sequence(self) -> Node:
        parts: list[Node] = []
        while self._at < len(self._text) and not self._peek("|") and not self._peek(")"):
            if self._take("\\Q"):
                literal, _, _ = self._text[self._at :].partition("\\E")
                self._at = min(len(self._text), self._at + len(literal) + 2)
                parts += map(self._char, literal)
                if literal:
                    parts.append(self._repeated(parts.pop()))
                continue
            atom = self._atom()
            if atom is not None:
                parts.append(self._repeated(atom))
        return parts[0] if len(parts) == 1 else Node("cat", tuple(parts))

    def _char(self, char: str) -> Node:
        return Node("char", chars=CharSet(((ord(char), ord(char)),), fold=self._flags.fold))

    def _atom(self) -> Node | None:
        char = self._next()
        if char == "(":
            return self._group()
        if char == "[":
            return Node("char", chars=self._class())
        if char == ".":
            return Node("char", chars=CharSet(() if self._flags.dot_all else ((10, 10),), negated=True))
        if char in "^$":
            return Node("at", where=f"m{char}" if self._flags.lines else char)
        if char in "*+?":
            raise self._error(f"nothing before {char!r} that could be repeated")
        if char == "\\":
            return self._escape()
        return self._char(char)

    def _escape(self) -> Node:
        char = self._next()
        if char in "Az":
            return Node("at", where="^" if char == "A" else "$")
        if char in "bB":
            return Node("at", where=char)
        found = self._class_escape(char)
        if found is not None:
            return Node("char", chars=replace(found, fold=self._flags.fold))
        return self._char(chr(self._code(char)))

    def _class_escape(self, char: str) -> CharSet | None:
        r"""Return what `\d`, `\pL` and their like stand for, None for another escape."""
        if char.lower() in _PERL:
            return CharSet(_PERL[char.lower()], negated=char.isupper())
        if char not in "pP":
            return None
        name = self._next()
        if name == "{":
            end = self._text.find("}", self._at)
            name, self._at = self._text[self._at : end], end + 1
            if end < 0:
                raise self._error("'\\p{' without '}'")
        negated = (char == "P") != name.startswith("^")
        name = name.removeprefix("^")
        if not (len(name) in (1, 2) and name[0] in "LMNPSZC"):
            raise self._error(f"unknown class of characters {name[:40]!r}")
        return CharSet(categories=((name, negated),))

    def _code(self, char: str) -> int:
        """Return the character that an escape stands for."""
        if char in _CONTROL:
            return _CONTROL[char]
        if char == "x":
            digits = self._next()
            if digits == "{":
                end = self._text.find("}", self._at)
                digits, self._at = self._text[self._at : max(end, 0)], end + 1
            else:
                digits += self._next()
            code = int(digits, 16) if digits and len(digits) <= 6 and all(c in _HEX for c in digits) else -1
            if not 0 <= code <= _LAST:
                raise self._error("'\\x' without the number of a character")
            return code
        if char in _OCTAL:
            digits = char
            while len(digits) < 3 and self._text[self._at : self._at + 1] in tuple(_OCTAL):
                digits += self._next()
            if char != "0" and len(digits) == 1:
                raise self._error(f"a backreference ('\\{char}')")
            return int(digits, 8)
        if char.isalnum() or ord(char) > 127:
            raise self._error(f"unknown escape '\\{char}'")
        return ord(char)

    def _group(self) -> Node | None:
        before = self._flags
        if not self._take("?"):
            number = self._named("")
        elif self._take("P<") or (not self._peek("<=") and not self._peek("<!") and self._take("<")):
            name, found, _ = self._text[self._at :].partition(">")
            if not found or not name.replace("_", "a").isalnum() or not name.isascii() or name in self.names:
                raise self._error("a group with a bad name")
            self._at += len(name) + 1
            number = self._named(name)
        else:
            number = 0
            if self._read_flags():
                return None  # they hold until the group around them ends
        inside = self._alternatives()
        self._flags = before
        if not self._take(")"):
            raise self._error("'(' without ')'")
        return Node("group", (inside,), low=number) if number else inside

    def _named(self, name: str) -> int:
        self.names.append(name)
        return len(self.names) - 1

    def _read_flags(self) -> bool:
        """Read flags up to `:` or `)`; return whether it was the latter."""
        on, flags = True, self._flags
        while True:
            char = self._next()
            if char in ":)":
                self._flags = flags
                return char == ")"
            if char == "-" and on:
                on = False
                continue
            field = {"i": "fold", "m": "lines", "s": "dot_all", "U": "lazy"}.get(char)
            if field is None:
                raise self._error(f"'(?{char}' is not known")
            flags = replace(flags, **{field: on})

    def _class(self) -> CharSet:
        negated = self._take("^")
        ranges: list[tuple[int, int]] = []
        categories: list[tuple[str, bool]] = []
        first = True
        while first or not self._take("]"):
            first = False
            if self._peek("[:"):
                ranges += self._posix()
                continue
            char = self._next()
            if char == "\\":
                escape = self._next()
                found = self._class_escape(escape)
                if found is not None:
                    ranges += _complement(found.ranges) if found.negated else found.ranges
                    categories += found.categories
                    continue
                low = self._code(escape)
            else:
                low = ord(char)
            high = low
            if self._peek("-") and not self._peek("-]"):
                self._next()
                char = self._next()
                high = self._code(self._next()) if char == "\\" else ord(char)
            if high < low:
                raise self._error("a range of characters that runs backwards")
            ranges.append((low, high))
        return CharSet(tuple(ranges), tuple(categories), negated, self._flags.fold)

    def _posix(self) -> Ranges:
        name, found, _ = self._text[self._at + 2 :].partition(":]")
        ranges = _POSIX.get(name.removeprefix("^"))
        if not found or ranges is None:
            raise self._error(f"unknown class of characters '[:{name[:40]}:]'")
        self._at += len(name) + 4
        return _complement(ranges) if name.startswith("^") else ranges

    def _repeated(self, atom: Node) -> Node:
        low, high = self._count()
        if low < 0:
            return atom
        greedy = self._take("?") == self._flags.lazy
        again = self._at
        if self._count()[0] >= 0:
            raise self._error(f"repetition of a repetition at {self._text[again:][:10]!r}")
        return Node("repeat", (atom,), low=low, high=high, greedy=greedy)

    def _count(self) -> tuple[int, int]:
        """Read how often; (-1, -1) where nothing is said. A `{` that is no count is a character."""
        for char, counts in (("*", (0, -1)), ("+", (1, -1)), ("?", (0, 1))):
            if self._take(char):
                return counts
        if not self._peek("{"):
            return -1, -1
        inside, closed, _ = self._text[self._at + 1 :].partition("}")
        first, comma, second = inside.partition(",")
        is_number: Callable[[str], bool] = lambda text: text.isascii() and text.isdigit()  # noqa: E731
        if not closed or not is_number(first) or not (second == "" or is_number(second)):
            return -1, -1
        self._at += len(inside) + 2
        if len(first) > 4 or len(second) > 4:
            raise self._error(f"repetition more than {_MAX_REPEAT} times")
        low = int(first)
        high = int(second) if second else -1 if comma else low
        if low > _MAX_REPEAT or high > _MAX_REPEAT or 0 <= high < low:
            raise self._error(f"a repetition must be of 0 to {_MAX_REPEAT} times")
        return low, high


def _complement(ranges: Ranges) -> Ranges:
    found, at = [], 0
    for low, high in sorted(ranges):
        if low > at:
            found.append((at, low - 1))
        at = max(at, high + 1)
    return (*found, (at, _LAST)) if at <= _LAST else tuple(found)
