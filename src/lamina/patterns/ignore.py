"""Which paths the rules of `.dockerignore` leave out.

In: the bytes of an ignore file; paths relative to the context, `/` between parts, no leading one. Out: verdicts.
Reference: Dockerfile reference, "`.dockerignore` file"; Go's `filepath.Match` and moby's patternmatcher where
that is silent.

A rule that matches a directory means everything below it. The last rule that matches decides, whichever it is.
Departures, all where moby's translation to regular expressions slips: `[^x]` and other classes never match `/`,
an escaped letter is that letter, `^` and `|` outside a class stand for themselves, a line feed is a character like any
other; a malformed pattern is refused even where moby never comes to look at it.

Rules without wildcards are looked up, not searched, so a file may have any number of them; those with wildcards are
bounded by `MAX_WILD`.

Invariants: matching is linear in the path for any rules (see `lamina.patterns.globs`); imports nothing but
`re` and `lamina.errors`, because a fully cached build comes through here.

    rules = IgnoreRules(["*.log", "!keep.log"])
    rules.ignored("a.log"), rules.ignored("keep.log")       # (True, False)
"""

from __future__ import annotations

import re
from bisect import bisect_left

from lamina.errors import InputError
from lamina.patterns.globs import MAX_PATTERN, combine, part_expressions, reaches, tokens_of, too_long

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_IGNORE_BYTES = 1 << 20
"""Largest ignore file."""
MAX_WILD = 1 << 16
"""Most that the different rules with wildcards in one file may add up to: their characters, and 16 for each."""

BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"  # noqa: E501
"""Unicode white space, for `str.strip`: what Go takes for blanks, unlike Python without U+001C to U+001F."""

_DOTS = ("", ".", "..")
_MOST_REMEMBERED = 1000
_PLAIN = re.compile(r"[^*?\[\\]+\Z").match


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
            tokens = wild.setdefault(run, {})[pattern] = tokens_of(pattern, f"ignore rule {number}")
            if keep:
                self._exceptions.wild.append(part_expressions(tokens))
        self._exceptions.paths.sort()
        self._wild = [(run, combine(wild[run].items())) for run in sorted(wild, reverse=True)]

    def _look_up(self, pattern: str, run: int, keep: bool, number: int) -> bool:
        """Note a rule without wildcards, or `**/name`, where it will be looked up; False for others."""
        if len(pattern) > MAX_PATTERN:
            raise too_long(pattern, f"ignore rule {number}")
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
        return self._names_below(directory, parts) or any(reaches(rule, parts) for rule in self.wild)

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


def _too_many(number: int) -> InputError:
    return InputError(
        f"ignore rule {number}: the rules with wildcards up to here are more than can be matched fast",
        hint="name directories instead; rules without * ? [ \\ and those like **/name are not limited",
    )
