"""Words of a Dockerfile: quotes, the escape character and variables, resolved as BuildKit does.

In: a text and a mapping of variables. Out: an `Expansion`: the text as one word, the same split at blanks, and which
names were used and which were missing. Nothing is executed, no environment is read.

Reference: Dockerfile reference, "Environment replacement"; behaviour follows BuildKit's shell lexer, with two
departures where that loses text: a `$` in the replacement of `${v//p/r}` is an ordinary character here, and in split
mode what stands before `${v:-w}` is kept.

Invariants: time is linear in the text plus what comes out; what comes out is bounded by `MAX_EXPANDED` a call and
`MAX_TOTAL` an object; a word inside `${v:-...}` is evaluated even when it is not used, so its `${w:?}` still fails.

    words = Words()
    words.word("${base:-debian}:$tag", {"tag": "12"}).text     # debian:12
    words.word('"$a b" c', {"a": "x"}).words                   # ("x b", "c")
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from lamina.dockerfile import shell_patterns
from lamina.dockerfile.blanks import BLANK_RUN
from lamina.errors import InputError, SourceRange

MAX_EXPANDED = 1 << 20
"""Longest expanded word, in characters."""
MAX_DOCUMENT = 1 << 24
"""Longest expanded here-document, in characters."""
MAX_TOTAL = 1 << 27
"""Most characters that one `Words` gives out; a build needs a few thousand."""
MAX_DEPTH = 64
"""Deepest nesting of `${a:-${b:-...}}`."""

_SPECIAL_NAMES = "@*#?-$!0"
_ASCII_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DOLLAR = "close it, or write \\$ for a dollar sign"
_HEREDOC_GAP = re.compile(r"<(?:<[\t\r ]*)?")


@dataclass(frozen=True, slots=True)
class Expansion:
    """What a text became.

    Attributes:
        text: the whole as one word, blanks kept.
        words: the whole split at blanks that are not quoted; empty words are dropped.
        used: names of variables that were read and are set.
        missing: names that were read and are not set.
    """

    text: str
    words: tuple[str, ...]
    used: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()


class Words:
    """Expands words. One object serves one conversion: it counts what it gave out against `MAX_TOTAL`.

    Args:
        escape: the file's escape character (`Dockerfile.escape`).
    """

    def __init__(self, escape: str = "\\") -> None:
        self._escape = escape
        self._total = 0

    def word(self, text: str, env: Mapping[str, str], source: SourceRange | None = None) -> Expansion:
        """Resolve quotes, escapes and variables of `text`.

        Raises:
            InputError: open quote or brace, unknown modifier, bad pattern, `${v:?}` without a value, too much output.
        """
        if not _needs_work(text, self._escape):
            return Expansion(text, tuple(_split([(text, True)])))
        return self._run(_Walk(text, env, self._escape), source)

    def document(self, text: str, env: Mapping[str, str], source: SourceRange | None = None) -> Expansion:
        """Resolve variables and backslashes in a here-document; quotes are ordinary characters. Raises as `word`."""
        if "$" not in text and "\\" not in text:
            return Expansion(text, ())
        return self._run(_Walk(text, env, "\\", quotes=False, limit=MAX_DOCUMENT), source)

    def _run(self, walk: _Walk, source: SourceRange | None) -> Expansion:
        """Let `walk` do its work, with the source of the text on any error."""
        try:
            expansion = walk.expand()
            self._total += len(expansion.text)
            if self._total > MAX_TOTAL:
                raise InputError(
                    f"the variables of this Dockerfile expand to more than {MAX_TOTAL >> 20} Mi characters",
                    hint="a variable that contains itself twice doubles each time it is set",
                )
        except InputError as error:
            error.source = error.source or source
            raise
        return expansion


def raw_words(text: str, *, keep_escapes: bool, keep_quotes: bool = True) -> tuple[str, ...]:
    """Split `text` at blanks that are not quoted, leaving variables alone; for finding here-documents.

    `<<` and the blanks after it stay with the word that follows.

    Raises:
        InputError: an open quote or brace.
    """
    walk = _Walk(text, {}, "\\", keep_quotes=keep_quotes, keep_escapes=keep_escapes, keep_unset=True)
    return walk.expand().words


def _needs_work(text: str, escape: str) -> bool:
    """Tell whether anything in `text` can change or keep it from being split plainly."""
    return any(ch in text for ch in ("$", "'", '"', "<", escape))


def _split(chunks: list[tuple[str, bool]]) -> list[str]:
    """Return the words of `chunks`; only those marked True are split at their blanks."""
    words: list[str] = []
    current: list[str] = []
    for text, splittable in chunks:
        first, *rest = BLANK_RUN.split(text) if splittable else (text,)
        current.append(first)
        for part in rest:
            words.append("".join(current))
            current = [part]
    words.append("".join(current))
    return [word for word in words if word]


@lru_cache(maxsize=32)
def _plain_run(special: str) -> re.Pattern[str]:
    """Return a pattern for a run of characters that are not in `special`."""
    return re.compile(f"[^{re.escape(special)}]+")


@dataclass(slots=True)
class _Walk:
    """One pass over one text. `position` only grows."""

    text: str
    env: Mapping[str, str]
    escape: str
    quotes: bool = True
    keep_quotes: bool = False
    keep_escapes: bool = False
    keep_unset: bool = False
    limit: int = MAX_EXPANDED
    position: int = 0
    depth: int = 0
    size: int = 0
    used: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)

    def expand(self) -> Expansion:
        """Walk the whole text."""
        chunks = self.until("", keep_escapes=self.keep_escapes)
        text = "".join(chunk for chunk, _ in chunks)
        return Expansion(text, tuple(_split(chunks)), frozenset(self.used), frozenset(self.missing))

    def until(self, stop: str, *, keep_escapes: bool) -> list[tuple[str, bool]]:
        """Return pieces up to and without `stop` ("": the end), each with whether its blanks split words."""
        outer, self.keep_escapes = self.keep_escapes, keep_escapes
        plain = _plain_run("$<" + self.escape + stop + ("'\"" if self.quotes else ""))
        chunks: list[tuple[str, bool]] = []
        while self.position < len(self.text):
            if run := plain.match(self.text, self.position):
                self.position = run.end()
                chunks.append((self.count(run[0]), True))
                continue
            ch = self.text[self.position]
            if ch == stop:
                self.position += 1
                self.keep_escapes = outer
                return chunks
            chunks.append(self.special(ch))
        if stop:
            raise _open_variable(stop, self.text)
        self.keep_escapes = outer
        return chunks

    def special(self, ch: str) -> tuple[str, bool]:
        """Return what the special character at `position` and its company become."""
        if ch == "$":
            return self.variable(), True
        if ch == "'" and self.quotes:
            return self.count(self.single_quoted()), False
        if ch == '"' and self.quotes:
            return self.double_quoted(), False
        if ch == "<":
            run = _HEREDOC_GAP.match(self.text, self.position)
            assert run is not None
            self.position = run.end()
            return self.count(run[0]), False
        escaped = self.text[self.position + 1 : self.position + 2]
        self.position += 2
        return self.count((ch if self.keep_escapes else "") + escaped), False

    def count(self, piece: str) -> str:
        """Return `piece` after adding it to what came out so far."""
        self.size += len(piece)
        if self.size > self.limit:
            raise InputError(
                f"this expands to more than {self.limit} characters",
                hint="a variable that contains itself twice doubles each time it is set",
            )
        return piece

    def single_quoted(self) -> str:
        """Return a single-quoted part: everything stands for itself."""
        end = self.text.find("'", self.position + 1)
        if end < 0:
            raise InputError(f"a single quote is not closed in {_shorten(self.text)}", hint="close it, or write \\'")
        inner = self.text[self.position + 1 : end]
        self.position = end + 1
        return f"'{inner}'" if self.keep_quotes else inner

    def double_quoted(self) -> str:
        """Return a double-quoted part: variables are expanded; `"`, `$` and the escape character can be escaped."""
        mark = '"' if self.keep_quotes else ""
        plain = _plain_run('"$' + self.escape)
        out = [mark]
        self.position += 1
        while self.position < len(self.text):
            if run := plain.match(self.text, self.position):
                self.position = run.end()
                out.append(self.count(run[0]))
                continue
            ch = self.text[self.position]
            if ch == "$":
                out.append(self.variable())
                continue
            self.position += 1
            if ch == '"':
                return "".join([*out, mark])
            out.append(self.count(self.escape_in_quotes(ch)))
        raise InputError(f"a double quote is not closed in {_shorten(self.text)}", hint='close it, or write \\"')

    def escape_in_quotes(self, ch: str) -> str:
        """Return what the escape character `ch`, just read inside double quotes, and the next one stand for."""
        following = self.text[self.position : self.position + 1]
        kept = ch if self.keep_escapes else ""
        if not following:
            return kept
        if following in ('"', "$", self.escape):
            self.position += 1
            return kept + following
        return kept + ch

    def variable(self) -> str:
        """Return the value of the variable that begins with the `$` at `position`."""
        self.position += 1
        if self.text[self.position : self.position + 1] != "{":
            name = self.name()
            if not name:
                return self.count("$")
            value = self.lookup(name)
            return self.count(value if value is not None else f"${name}" if self.keep_unset else "")
        self.position += 1
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise InputError(
                f"variables are nested more than {MAX_DEPTH} deep", hint="put an inner one into an ARG of its own"
            )
        value = self.braced()
        self.depth -= 1
        return self.count(value)

    def braced(self) -> str:
        """Return the value of `${...}`, read from behind the brace."""
        following = self.text[self.position : self.position + 1]
        if following in ("", "{", "}", ":"):
            what = "'}' is missing" if not following else "a name is missing"
            raise InputError(f"bad substitution in {_shorten(self.text)}: {what} after '${{'", hint=_DOLLAR)
        name = self.name()
        operator = self.take()
        if operator == "}":
            value = self.lookup(name)
            return value if value is not None else f"${{{name}}}" if self.keep_unset else ""
        if operator == "/":
            return self.replaced(name)
        if operator == ":":
            operator += self.take()
        if operator in (":-", "-", ":+", "+", ":?", "?"):
            return self.conditional(name, operator)
        if operator in ("#", "%"):
            return self.trimmed(name, operator)
        if not operator or operator == ":":
            raise _open_variable("}", self.text)
        raise InputError(
            f"unsupported modifier ({operator}) in substitution in {_shorten(self.text)}",
            hint="supported are :- - :+ + :? ? # ## % %% / and //",
        )

    def take(self) -> str:
        """Return the character at `position` and pass it; "" at the end."""
        ch = self.text[self.position : self.position + 1]
        self.position += 1
        return ch

    def inner(self, stop: str, *, keep_escapes: bool) -> str:
        """Return the expanded text up to `stop`, inside a variable."""
        return "".join(chunk for chunk, _ in self.until(stop, keep_escapes=keep_escapes))

    def conditional(self, name: str, operator: str) -> str:
        """Return the value of `${name:-word}` and its kin."""
        word = self.inner("}", keep_escapes=False)
        value = self.lookup(name)
        if value is None and self.keep_unset:
            return f"${{{name}{operator}{word}}}"
        usable = value is not None and (value != "" or ":" not in operator)
        if operator.endswith("-"):
            return value if usable and value is not None else word
        if operator.endswith("+"):
            return word if usable else ""
        if usable and value is not None:
            return value
        state = "not set" if value is None else "empty"
        demand = "it must be set" if value is None else "it must not be empty"
        raise InputError(
            f"{name}: {word or demand}",
            hint=f"the variable {name} is {state}: give it a value with ARG, ENV or --build-arg",
        )

    def trimmed(self, name: str, operator: str) -> str:
        """Return the value of `${name#pattern}`, `##`, `%`, `%%`."""
        pattern = self.inner("}", keep_escapes=True)
        value = self.lookup(name)
        if value is None and self.keep_unset:
            return f"${{{name}{operator}{pattern}}}"
        longest = pattern.startswith(operator)
        trim = shell_patterns.trim_prefix if operator == "#" else shell_patterns.trim_suffix
        return trim(value or "", pattern[1:] if longest else pattern, longest=longest)

    def replaced(self, name: str) -> str:
        """Return the value of `${name/pattern/text}` and `${name//pattern/text}`."""
        every = self.text[self.position : self.position + 1] == "/"
        self.position += every
        pattern = self.inner("/", keep_escapes=True)
        replacement = self.inner("}", keep_escapes=True)
        value = self.lookup(name)
        if value is None and self.keep_unset:
            return f"${{{name}/{pattern}/{replacement}}}"
        return shell_patterns.replace(value or "", pattern, replacement, every=every, limit=self.limit)

    def name(self) -> str:
        """Return the name at `position`: letters, digits, `_`; or digits alone; or one special character; or ""."""
        if run := _ASCII_NAME.match(self.text, self.position):
            end = run.end()
            if end == len(self.text) or self.text[end].isascii():
                self.position = end
                return run[0]
        start = end = self.position
        first = self.text[start : start + 1]
        if first.isdecimal():
            while self.text[end : end + 1].isdecimal():
                end += 1
        elif first and first in _SPECIAL_NAMES:
            end += 1
        else:
            while (ch := self.text[end : end + 1]) and (ch.isalpha() or ch.isdecimal() or ch == "_"):
                end += 1
        self.position = end
        return self.text[start:end]

    def lookup(self, name: str) -> str | None:
        """Return the value of `name`, and note that it was asked for."""
        value = self.env.get(name)
        (self.missing if value is None else self.used).add(name)
        return value


def _open_variable(missing: str, text: str) -> InputError:
    """Return the error for a variable whose end is missing."""
    hint = "write ${NAME/PATTERN/REPLACEMENT}" if missing == "/" else _DOLLAR
    return InputError(f"a variable is not closed: {missing!r} is missing in {_shorten(text)}", hint=hint)


def _shorten(text: str, limit: int = 60) -> str:
    """Return `text` quoted, its middle left out when it is long."""
    return repr(text if len(text) <= limit else f"{text[: limit // 2]}...{text[-limit // 2 :]}")
