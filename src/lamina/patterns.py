"""Which paths a pattern means: the rules of `.dockerignore`, and the globs of COPY.

In: the bytes of an ignore file, or patterns; paths relative to the context, `/` between parts, no leading one. Out:
verdicts, or compiled expressions. Reference: Dockerfile reference, "`.dockerignore` file"; Go's `filepath.Match` and
moby's patternmatcher where that is silent.

A rule that matches a directory means everything below it. The last rule that matches decides, whichever it is.
Departures, all where moby's translation to regular expressions slips: `[^x]` and other classes never match `/`,
an escaped letter is that letter, `^` and `|` outside a class stand for themselves, a line feed is a character like any
other; a malformed pattern is refused even where moby never comes to look at it.

Rules without wildcards are looked up, not searched, so a file may have any number of them; those with wildcards are
bounded by `MAX_WILD`.

Invariants: matching is linear in the path for any rules (groups are atomic where leftmost is as good as any);
imports nothing but `re` and `lamina.errors`, because a fully cached build comes through here.

    rules = IgnoreRules(["*.log", "!keep.log"])
    rules.ignored("a.log"), rules.ignored("keep.log")       # (True, False)
"""

from __future__ import annotations

import re
from bisect import bisect_left

from lamina.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_IGNORE_BYTES = 1 << 20
"""Largest ignore file."""
MAX_PATTERN = 4096
"""Longest pattern, in characters: as long as a path can be."""
MAX_WILD = 1 << 16
"""Most that the different rules with wildcards in one file may add up to: their characters, and 16 for each."""

BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"  # noqa: E501
"""Unicode white space, for `str.strip`: what Go takes for blanks, unlike Python without U+001C to U+001F."""

_ANY = "?"
_STAR = "*"
_DEEP = "**"
_SLASH = "/"
_END = r"(?=/|\Z)"
_DOTS = ("", ".", "..")
_MAX_LOOSE = 2
_MOST_REMEMBERED = 1000
_LITERAL_END = re.compile(r"\*\*(?=[^/])[^\\\]]+\Z")
_PLAIN = re.compile(r"[^*?\[\\]+\Z").match
_WILDCARD = re.compile(r"(?:[^*?\[\\]|\\(?s:.))*+[*?\[]")


def parse_ignore(data: bytes) -> list[str]:
    """Return the patterns of an ignore file, cleaned, in order, `!` in front of exceptions.

    Raises:
        InputError: the file is larger than `MAX_IGNORE_BYTES`.
    """
    return [pattern for _, pattern in parse_ignore_lines(data)]


def parse_ignore_lines(data: bytes) -> list[tuple[int, str]]:
    """Return the same, each pattern with the number of its line, from 1."""
    if len(data) > MAX_IGNORE_BYTES:
        raise InputError(f"the ignore file has {len(data)} bytes, at most {MAX_IGNORE_BYTES} are taken")
    patterns = []
    lines = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").split("\n")
    for number, line in enumerate(lines, 1):
        if line.startswith("#"):
            continue
        pattern = line.strip(BLANKS)
        if not pattern:
            continue
        sign, pattern = ("!", pattern[1:].strip(BLANKS)) if pattern[0] == "!" else ("", pattern)
        if pattern:
            pattern = _clean(pattern)
            if len(pattern) > 1:
                pattern = pattern.removeprefix("/")
        patterns.append((number, sign + pattern))
    return patterns


class IgnoreRules:
    """The rules of one ignore file, compiled.

    Rules of the same kind that follow each other are a run; within it, it does not matter which rule takes a path, so
    only the last run with a rule that does counts.

    Args:
        patterns: as `parse_ignore` returns them.

    Raises:
        InputError: a pattern is malformed, or those with wildcards are too many.
    """

    __slots__ = ("_above", "_exceptions", "_ignores", "_names", "_paths", "_wild", "patterns")

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        self._ignores: list[bool] = []  # by run
        self._paths: dict[str, int] = {}  # the last run that names this path
        self._names: dict[str, int] = {}  # the last run with the rule **/name
        self._above: dict[str, int] = {}  # answers of _look_above
        self._exceptions = _Exceptions()
        wild: dict[int, dict[str, list[str]]] = {}
        weight = 0
        for number, written in enumerate(self.patterns, 1):
            pattern = written.strip(BLANKS)
            if not pattern:
                continue
            pattern = _clean(pattern)
            keep = pattern.startswith("!")
            pattern = pattern[1:] if keep else pattern
            if not pattern:
                raise InputError("the ignore rule '!' names nothing", hint="write !PATH, or remove the line")
            if not self._ignores or self._ignores[-1] is keep:
                self._ignores.append(not keep)
            run = len(self._ignores) - 1
            if self._look_up(pattern, run, keep, number) or pattern in wild.get(run, ()):
                continue
            weight += len(pattern) + 16
            if weight > MAX_WILD:
                raise _too_many(number)
            tokens = wild.setdefault(run, {})[pattern] = _tokens(pattern, f"ignore rule {number}")
            if keep:
                self._exceptions.wild.append(_part_expressions(tokens))
        self._exceptions.paths.sort()
        self._wild = [(run, _combine(wild[run].items())) for run in sorted(wild, reverse=True)]

    def _look_up(self, pattern: str, run: int, keep: bool, number: int) -> bool:
        """Note a rule without wildcards, or `**/name`, where it will be looked up; False for others."""
        if len(pattern) > MAX_PATTERN:
            raise _too_long(pattern, f"ignore rule {number}")
        if _PLAIN(pattern):
            self._paths[pattern] = run
            if keep:
                self._exceptions.paths.append(pattern)
            return True
        name = pattern[3:]
        if pattern.startswith("**/") and _PLAIN(name) and "/" not in name:
            self._names[name] = run
            self._exceptions.anywhere |= keep
            return True
        return False

    def ignored(self, path: str, is_dir: bool = False) -> bool:
        """Tell whether `path` is left out. Directories are judged like files; the flag is for the reader's sake."""
        parent, _, name = path.rpartition("/")
        last = self._above.get(parent, -2)
        if last == -2:
            last = self._look_above(parent)
        found = self._paths.get(path, -1)
        if found > last:  # noqa: PLR1730 - faster than max(), and this runs for every file
            last = found
        found = self._names.get(name, -1)
        if found > last:  # noqa: PLR1730
            last = found
        for run, match in self._wild:
            if run <= last:
                break
            if match(path):
                return self._ignores[run]
        return last >= 0 and self._ignores[last]

    def _look_above(self, directory: str) -> int:
        """Return the last run that takes `directory`, wildcards aside, and remember it."""
        last = max([-1, *[self._names.get(part, -1) for part in directory.split("/")]])
        end = directory.find("/") if self._paths else -1
        while end >= 0:
            last = max(last, self._paths.get(directory[:end], -1))
            end = directory.find("/", end + 1)
        last = max(last, self._paths.get(directory, -1))
        if len(self._above) >= _MOST_REMEMBERED:
            self._above.clear()
        self._above[directory] = last
        return last

    def may_contain_exceptions(self, directory: str) -> bool:
        """Tell whether something below the ignored `directory` may be kept after all; False: skip it unread."""
        return self._exceptions.below(directory)


class _Exceptions:
    """What exceptions may bring back; `paths` is sorted before the first question."""

    __slots__ = ("anywhere", "paths", "wild")

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.wild: list[list[re.Pattern[str] | None]] = []
        self.anywhere = False

    def below(self, directory: str) -> bool:
        """Tell whether an exception may take something below `directory`."""
        if self.anywhere or not directory:
            return self.anywhere or bool(self.paths or self.wild)
        parts = directory.split("/")
        return self._names_below(directory, parts) or any(_reaches(rule, parts) for rule in self.wild)

    def _names_below(self, directory: str, parts: list[str]) -> bool:
        """Tell whether a path among the exceptions is the directory, above it or below it."""
        paths = self.paths
        at = bisect_left(paths, directory + "/")
        if at < len(paths) and paths[at].startswith(directory + "/"):
            return True
        above = ""
        for part in parts:
            above = f"{above}/{part}" if above else part
            at = bisect_left(paths, above)
            if at < len(paths) and paths[at] == above:
                return True
        return False


def has_glob(text: str) -> bool:
    """Tell whether `text` has a wildcard that is not escaped."""
    return bool(_WILDCARD.match(text))


def glob_regex(pattern: str) -> re.Pattern[str]:
    """Return an expression for `fullmatch` that takes the paths which the glob `pattern` means.

    `*` and `?` stay within a part, `[a-z]` and `[^x]` are classes, a backslash escapes.

    Raises:
        InputError: the pattern is malformed.
    """
    tokens = [_STAR if token == _DEEP else token for token in _tokens(pattern, "glob", deep=False)]
    return re.compile(_parts(tokens), re.DOTALL)


def _clean(path: str) -> str:
    """Return the shortest form of `path`: no empty, `.` or inner `..` parts, no trailing slash."""
    if "/" not in path and path not in _DOTS:
        return path
    rooted = path.startswith("/")
    parts: list[str] = []
    for part in path.split("/"):
        if part in ("", "."):
            continue
        if part != "..":
            parts.append(part)
        elif parts and parts[-1] != "..":
            parts.pop()
        elif not rooted:
            parts.append(part)
    return ("/" if rooted else "") + "/".join(parts) or "."


def _tokens(pattern: str, what: str, *, deep: bool = True) -> list[str]:
    """Return the pattern in pieces: `*`, `?`, `**`, `/`, or an expression for one character.

    A `**` takes the slash behind it along. With `deep` False there is no `**`, only `*` twice.
    """
    if len(pattern) > MAX_PATTERN:
        raise _too_long(pattern, what)
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


def _too_long(pattern: str, what: str) -> InputError:
    return InputError(f"{what}: the pattern has {len(pattern)} characters, at most {MAX_PATTERN} are taken")


def _too_many(number: int) -> InputError:
    return InputError(
        f"ignore rule {number}: the rules with wildcards up to here are more than can be matched fast",
        hint="name directories instead; rules without * ? [ \\ and those like **/name are not limited",
    )


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


def _combine(rules: Iterable[tuple[str, list[str]]]) -> Callable[[str], object]:
    """Return a matcher that tells whether any of `rules` takes a path or a directory above it."""
    anywhere: list[str] = []
    anchored: list[str] = []
    for pattern, tokens in rules:
        floating, expression = _expression(pattern, tokens)
        (anywhere if floating else anchored).append(expression)
    if anywhere:
        anchored.append(f"(?:.*/)?(?:{'|'.join(anywhere)})")
    return re.compile("|".join(anchored), re.DOTALL).match


def _part_expressions(tokens: list[str]) -> list[re.Pattern[str] | None]:
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


def _reaches(rule: list[re.Pattern[str] | None], parts: list[str]) -> bool:
    """Tell whether `rule` may take something below the directory that `parts` name."""
    for expression, part in zip(rule, parts, strict=False):
        if expression is None:
            return True
        if not expression.fullmatch(part):
            return False
    return True
