"""From the bytes of a Dockerfile to its logical lines: directives, comments, continued lines, here-documents.

In: text or bytes. Out: `LogicalLine` values, one an instruction, and the `Directives` met at the top. Whether a line
may announce here-documents is the parser's to know: it asks for them with `Scanner.read_heredocs`.

Reference: Dockerfile reference, "Format" and "Parser directives". Departures: none known; BuildKit's cap of 64 KiB a
line is not kept, the whole file is capped instead (`MAX_BYTES`).

Invariants: every physical line is looked at once; line numbers count from 1 and only line feeds end lines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lamina.dockerfile.blanks import BLANKS
from lamina.dockerfile.instructions import Directive, Heredoc
from lamina.errors import InputError, SourceRange

MAX_BYTES = 1 << 24
"""Largest Dockerfile."""

_DIRECTIVE = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=[\t\n\f\r ]*(.+)\Z")
_KNOWN_DIRECTIVES = ("syntax", "escape", "check")


@dataclass(frozen=True, slots=True)
class LogicalLine:
    """One instruction's text.

    Attributes:
        text: physical lines joined, comments and empty lines inside dropped; leading blanks of the first dropped.
        start: first physical line.
        comments: comment lines above.
    """

    text: str
    start: int
    comments: tuple[str, ...]


class Scanner:
    """Reads logical lines one by one.

    Attributes:
        text: the whole source, printable, for excerpts.
        escape: the escape character in force.
        directives: those met so far.
        line_number: the physical line read last.
        empty_continuations: lines that are empty inside a continued line.
    """

    def __init__(self, data: str | bytes, filename: str, escape: str = "\\") -> None:
        self.filename = filename
        text = _decode(data, filename)
        self.text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").replace("\0", "\ufffd")
        self._lines: Sequence[str] = text.split("\n")
        if self._lines[-1] == "":
            self._lines = self._lines[:-1]
        self.line_number = 0
        self.directives: dict[str, Directive] = {}
        self._directives_done = self._shebang = False
        self.empty_continuations: list[SourceRange] = []
        self.set_escape(escape)

    def set_escape(self, escape: str) -> None:
        """Make `escape` the escape character; a line that ends in exactly one of it is continued."""
        self.escape = escape
        mark = re.escape(escape)
        self._continued = re.compile(f"(?:(?<=[^{mark}])|^){mark}[ \t]*\\Z")

    def source(self, start: int, end: int | None = None) -> SourceRange:
        """Return the range from line `start` to `end`, by default to the line read last."""
        return SourceRange(self.filename, start, max(start, self.line_number if end is None else end), self.text)

    def next_line(self) -> LogicalLine | None:
        """Return the next logical line that is not empty; None at the end.

        Raises:
            InputError: a directive is wrong, or the line holds what no text file holds.
        """
        comments: list[str] = []
        while (line := self._read()) is not None:
            line = line.lstrip(BLANKS)
            if self._take_directive(line):
                continue
            if line.startswith("#"):
                comment = line[1:].strip(BLANKS)
                if comment:
                    comments.append(_printable(comment))
                else:
                    comments.clear()
                continue
            if line:
                start = self.line_number
                return LogicalLine(self._checked(self._join(line), start), start, tuple(comments))
        return None

    def read_heredocs(self, announced: Sequence[Heredoc], start: int) -> tuple[Heredoc, ...]:
        """Return the announced here-documents with the content that follows the line read last.

        Raises:
            InputError: the file ends before the closing word.
        """
        return tuple(replace(doc, content=self._read_heredoc(doc, start)) for doc in announced)

    def _read(self) -> str | None:
        """Return the next physical line without its end; None when there is none."""
        if self.line_number >= len(self._lines):
            return None
        self.line_number += 1
        return self._lines[self.line_number - 1].rstrip("\r")

    def _join(self, line: str) -> str:
        """Return `line` and those that continue it."""
        parts: list[str] = []
        empty_at = 0
        more = self._continued.search(line)
        parts.append(line[: more.start()] if more else line)
        while more:
            following = self._read()
            if following is None:
                break
            stripped = following.lstrip(BLANKS)
            if not stripped:
                empty_at = empty_at or self.line_number
            elif not stripped.startswith("#"):
                more = self._continued.search(following)
                parts.append(following[: more.start()] if more else following)
        if empty_at:
            self.empty_continuations.append(self.source(empty_at, empty_at))
        return "".join(parts)

    def _read_heredoc(self, doc: Heredoc, start: int) -> str:
        """Return the lines up to the one that closes `doc`."""
        begin = self.line_number
        for number in range(begin, len(self._lines)):
            line = self._lines[number].rstrip("\r")
            if (line.lstrip("\t") if doc.strip_tabs else line) == doc.name:
                self.line_number = number + 1
                return "".join(f"{content}\n" for content in self._lines[begin:number])
        name = _printable(doc.name)
        raise InputError(
            f"here-document <<{name} is not closed",
            where=f"{self.filename}:{start}",
            source=self.source(start, begin),
            hint=f"end it with a line that holds {name!r} and nothing else"
            + ("" if doc.strip_tabs else ", not even blanks before it (<<- allows tabs)"),
        )

    def _take_directive(self, line: str) -> bool:
        """Note the directive that `line` is; False when it is none or directives are over.

        Behind a `#!` line there are still directives, but `escape` is none: as in BuildKit.
        """
        if self._directives_done:
            return False
        if self.line_number == 1 and line.startswith("#!"):
            self._shebang = True
            return False
        match = _DIRECTIVE.match(line[1:].strip(BLANKS)) if line.startswith("#") else None
        name = match[1].lower() if match else ""
        if match is None or name not in _KNOWN_DIRECTIVES:
            self._directives_done = True
            return False
        if name == "escape" and self._shebang:
            return False
        source = self.source(self.line_number)
        where = f"{self.filename}:{self.line_number}"
        if name in self.directives:
            raise InputError(
                f"the directive {name!r} is given twice", where=where, source=source, hint="remove one of them"
            )
        if name == "escape":
            if match[2] not in ("\\", "`"):
                raise InputError(
                    f"the escape character is {_printable(match[2])!r}, it must be a backslash or a backtick",
                    where=where,
                    source=source,
                    hint=r"write # escape=\ or # escape=`",
                )
            self.set_escape(match[2])
        self.directives[name] = Directive(_printable(match[2]), source)
        return True

    def _checked(self, text: str, start: int) -> str:
        """Return `text`, which must be what a person can have typed."""
        if text.isascii() and "\0" not in text:
            return text
        what = hint = ""
        if "\0" in text:
            what, hint = "a NUL byte stands in this line", "if the file was saved as UTF-16, save it as UTF-8"
        elif any("\udc80" <= ch <= "\udcff" for ch in text):
            what, hint = "this line is not UTF-8", "save the file as UTF-8"
        if what:
            raise InputError(what, where=f"{self.filename}:{start}", source=self.source(start), hint=hint)
        return text


def _decode(data: str | bytes, filename: str) -> str:
    """Return the text of `data`; bytes that are not UTF-8 become lone surrogates."""
    if len(data) > MAX_BYTES:
        raise InputError(
            f"the Dockerfile has {len(data)} bytes, at most {MAX_BYTES} are taken",
            where=filename,
            hint="put large files into the build context and COPY them",
        )
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogatepass")
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


def _printable(text: str) -> str:
    """Return `text` with U+FFFD for bytes that are not UTF-8."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
