"""Globs as regular expressions: the tokens of a pattern, and expressions that are linear in the path.

In: one pattern, as text. Out: compiled expressions, for COPY (`glob_regex`) and for `lamina.patterns.ignore`. `*` and
`?` stay within a part, `**` crosses parts. Must not know what a match means.

Invariants: matching is linear in the path (groups are atomic where leftmost is as good as any).
"""

from __future__ import annotations

import re

from lamina.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_PATTERN = 4096
"""Longest pattern, in characters: as long as a path can be."""

_ANY = "?"
_STAR = "*"
_DEEP = "**"
_SLASH = "/"
_END = r"(?=/|\Z)"
_MAX_LOOSE = 2
_LITERAL_END = re.compile(r"\*\*(?=[^/])[^\\\]]+\Z")
_WILDCARD = re.compile(r"(?:[^*?\[\\]|\\(?s:.))*+[*?\[]")


def has_glob(text: str) -> bool:
    """Tell whether `text` has a wildcard that is not escaped."""
    return bool(_WILDCARD.match(text))


def glob_regex(pattern: str) -> re.Pattern[str]:
    """Return an expression for `fullmatch` that takes the paths which the glob `pattern` means.

    `*` and `?` stay within a part, `[a-z]` and `[^x]` are classes, a backslash escapes.

    Raises:
        InputError: the pattern is malformed.
    """
    tokens = [_STAR if token == _DEEP else token for token in tokens_of(pattern, "glob", deep=False)]
    return re.compile(_parts(tokens), re.DOTALL)


def tokens_of(pattern: str, what: str, *, deep: bool = True) -> list[str]:
    """Return the pattern in pieces: `*`, `?`, `**`, `/`, or an expression for one character.

    A `**` takes the slash behind it along. With `deep` False there is no `**`, only `*` twice.
    """
    if len(pattern) > MAX_PATTERN:
        raise too_long(pattern, what)
    tokens: list[str] = []
    position, end = 0, len(pattern)
    while position < end:
        ch = pattern[position]
        position += 1
        if ch == "*" and deep and pattern.startswith("*", position):
            position += 2 if pattern.startswith("/", position + 1) else 1
            tokens.append(_DEEP)
        elif ch in "*?/":
            tokens.append(ch)
        elif ch == "[":
            expression, position = _class(pattern, position, what, strict=deep)
            tokens.append(expression)
        elif ch == "\\":
            if position == end:
                raise _bad(pattern, what, "it ends in a lone backslash")
            escaped = pattern[position]
            tokens.append(_SLASH if escaped == "/" else _one(escaped))
            position += 1
        else:
            tokens.append(_one(ch))
    return tokens


def _one(ch: str) -> str:
    """Return the expression for exactly `ch`, never one of the markers among tokens."""
    return re.escape(ch)


def _class(pattern: str, position: int, what: str, *, strict: bool) -> tuple[str, int]:
    """Return the expression for the class whose `[` stands before `position`, and where it ends.

    A range that runs backwards takes nothing in a glob; in an ignore rule (`strict`) it is an error, as in moby.
    """
    negated = pattern.startswith("^", position)
    position += negated
    ranges: list[str] = []
    while True:
        if ranges and pattern.startswith("]", position):
            break
        low, position = _class_character(pattern, position, what)
        high = low
        if pattern.startswith("-", position):
            high, position = _class_character(pattern, position + 1, what)
        if low > high and strict:
            raise _bad(pattern, what, f"the range {low}-{high} runs backwards")
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
    inside = "".join(ranges)
    if negated:
        return f"[^/{inside}]", position + 1
    return f"(?!/)[{inside}]" if inside else "(?!)", position + 1


def _class_character(pattern: str, position: int, what: str) -> tuple[str, int]:
    """Return the character at `position` inside a class, unescaped, and where the next one stands."""
    ch = pattern[position : position + 1]
    if ch == "\\":
        position += 1
        ch = pattern[position : position + 1]
    elif ch in ("-", "]"):
        raise _bad(pattern, what, f"{ch!r} has no place there in a class")
    if not ch or position + 1 >= len(pattern):
        raise _bad(pattern, what, "'[' is not closed")
    return ch, position + 1


def too_long(pattern: str, what: str) -> InputError:
    """Return the error for a pattern that is longer than `MAX_PATTERN`."""
    return InputError(f"{what}: the pattern has {len(pattern)} characters, at most {MAX_PATTERN} are taken")


def _bad(pattern: str, what: str, why: str) -> InputError:
    """Return the error for a malformed pattern."""
    return InputError(
        f"{what}: bad pattern {pattern[:80]!r}: {why}", hint="put a backslash before a character that stands for itself"
    )


def _parts(tokens: list[str]) -> str:
    """Return the expression for tokens without `**`; nothing in it can run longer than linear in the path."""
    out: list[str] = []
    part: list[str] = []
    for token in [*tokens, ""]:
        if token in ("", _SLASH):
            out += (_part(part), token)
            part = []
        else:
            part.append(token)
    return "".join(out)


def _part(tokens: list[str]) -> str:
    """Return the expression for one part of a path.

    What stands between two stars is taken at the leftmost place, for good: any later place leaves less room.
    """
    pieces: list[str] = [""]
    for token in tokens:
        if token == _STAR:
            pieces.append("")
        else:
            pieces[-1] += "[^/]" if token == _ANY else token
    first, *rest = pieces
    if not rest:
        return first
    middle = "".join(f"(?>[^/]*?{piece})" for piece in rest[:-1] if piece)
    return f"{first}{middle}[^/]*{rest[-1]}"


def _expression(pattern: str, tokens: list[str]) -> tuple[bool, str]:
    """Return whether the rule may begin at any part, and its expression, which ends only where a part does."""
    if _LITERAL_END.match(pattern) and not _wild(tokens[1:]):
        return False, f".*{_parts(tokens[1:])}{_END}"
    first, *rest = _sections(tokens)
    if not rest:
        return False, _parts(first) + _END
    last = rest.pop()
    loose = int(bool(first) and first[-1] != _SLASH)
    out = [_parts(first)]
    for section in rest:
        if section[-1] == _SLASH:
            out.append(f"(?>(?:.*?/)??{_parts(section)})")
        else:
            loose += 1
            out.append(f"(?:.*/)?{_parts(section)}")
    if loose > _MAX_LOOSE:
        raise _bad(pattern, "ignore rule", "too many '**' inside names")
    if not last:
        return False, "".join(out) + ".*"
    if not first and not rest:
        return True, _parts(last) + _END
    return False, "".join(out) + f"(?:.*/)?{_parts(last)}{_END}"


def _sections(tokens: list[str]) -> list[list[str]]:
    """Return what stands between the `**`; several in a row are one."""
    sections: list[list[str]] = [[]]
    for token in tokens:
        if token != _DEEP:
            sections[-1].append(token)
        elif len(sections) == 1 or sections[-1]:
            sections.append([])
    return sections


def _wild(tokens: list[str]) -> bool:
    """Tell whether anything in `tokens` is more than a literal character."""
    return any(token in (_STAR, _ANY, _DEEP) or token.startswith(("[", "(")) for token in tokens)


def combine(rules: Iterable[tuple[str, list[str]]]) -> Callable[[str], object]:
    """Return a matcher that tells whether any of `rules` takes a path or a directory above it."""
    anywhere: list[str] = []
    anchored: list[str] = []
    for pattern, tokens in rules:
        floating, expression = _expression(pattern, tokens)
        (anywhere if floating else anchored).append(expression)
    if anywhere:
        anchored.append(f"(?:.*/)?(?:{'|'.join(anywhere)})")
    return re.compile("|".join(anchored), re.DOTALL).match


def part_expressions(tokens: list[str]) -> list[re.Pattern[str] | None]:
    """Return one expression for each part of an exception, and None from where on any depth fits."""
    found: list[re.Pattern[str] | None] = []
    part: list[str] = []
    for token in [*tokens, _SLASH]:
        if token == _DEEP:
            return [*found, None]
        if token != _SLASH:
            part.append(token)
            continue
        found.append(re.compile(_part(part), re.DOTALL))
        part = []
    return found


def reaches(rule: list[re.Pattern[str] | None], parts: list[str]) -> bool:
    """Tell whether `rule` may take something below the directory that `parts` name."""
    for expression, part in zip(rule, parts, strict=False):
        if expression is None:
            return True
        if not expression.fullmatch(part):
            return False
    return True
