"""The one family of errors, and the source ranges they point at.

Every error a user can meet says *what* went wrong, *where*, and *how to mend it* when we know. Rooms
derive their own classes from `Error`; only the command line turns one into text and an exit code.
Pure: no files, no terminal. Imported by the fully cached path, so it imports nothing heavy.

    raise Error("no such stage: 'buidl'", where="Dockerfile:7", hint="did you mean 'build'?")
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


_MAX_LINES = 16
_HEAD_LINES = 8
_MAX_WIDTH = 400


class SourceRange:
    """Lines of a source text, shown as an excerpt under an error or a warning.

    Attributes:
        file: name as the user gave it (`Dockerfile`, `-` for standard input).
        start: first line, counted from 1.
        end: last line, inclusive.
        text: the whole source text, or "" when it is not at hand.
    """

    __slots__ = ("end", "file", "start", "text")

    def __init__(self, file: str, start: int, end: int | None = None, text: str = "") -> None:
        self.file = file
        self.start = start
        self.end = end if end is not None else start
        self.text = text

    def __repr__(self) -> str:
        return f"SourceRange({self.file}:{self.start}-{self.end})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SourceRange) and (self.file, self.start, self.end) == (
            other.file,
            other.start,
            other.end,
        )

    def __hash__(self) -> int:
        return hash((self.file, self.start, self.end))

    def excerpt(self, context: int = 2) -> str:
        """Return the lines with `context` lines around them, marked, in the form BuildKit's users know.

        Of many lines the first and last are shown, of a long line its beginning.
        """
        lines = self.text.removesuffix("\n").split("\n")  # not splitlines: only line feeds are counted as ends
        if not self.text or self.start < 1 or self.start > len(lines):
            return ""
        first, last = max(1, self.start - context), min(len(lines), self.end + context)
        rule = "-" * 20
        shown = [f"{self.file}:{self.start}", rule]
        for number in range(first, last + 1):
            if self.end - self.start >= _MAX_LINES and self.start + _HEAD_LINES <= number < self.end:
                if number == self.start + _HEAD_LINES:
                    shown.append(f"     | >>> ... {self.end - number} more lines")
                continue
            mark = ">>>" if self.start <= number <= self.end else "   "
            line = lines[number - 1]
            cut = f"{line[:_MAX_WIDTH]}..." if len(line) > _MAX_WIDTH else line
            shown.append(f"{number:4d} | {mark} {cut}".rstrip())
        return "\n".join([*shown, rule])


class Error(Exception):
    """What a user is told when something cannot be done.

    Args:
        what: the fact, with expected and got where that applies; no trailing full stop needed.
        where: file:line, reference, digest, path or host it concerns.
        hint: how to mend it, when we know.
        source: lines of the Dockerfile it comes from.
        log: last lines of the failing step's output.
    """

    exit_code = 1
    """Exit code of the command line: 1 a step of the build failed, 2 bad input, 3 storage, 4 network or
    registry, 5 this machine lacks something, 130 cancelled."""

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        hint: str = "",
        source: SourceRange | None = None,
        log: Sequence[str] = (),
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        self.source = source
        self.log = list(log)
        self.vertex = ""
        """Digest of the vertex that failed, once it is known."""

    def __str__(self) -> str:
        where = self.where
        if not where and self.source is not None:
            where = f"{self.source.file}:{self.source.start}"
        return f"{where}: {self.what}" if where else self.what

    def diagnostics(self) -> str:
        """Return the whole message for a person: what, where, log, excerpt, how to mend."""
        parts = [f"error: {self}"]
        if self.log:
            parts.append("\n".join(f"  | {line}" for line in self.log))
        if self.source is not None and (excerpt := self.source.excerpt()):
            parts.append(excerpt)
        if self.hint:
            parts.append(f"hint: {self.hint}")
        return "\n".join(parts)


class InputError(Error):
    """The user's input (option, Dockerfile, context, name) is not right."""

    exit_code = 2


class NotYetError(InputError):
    """A known option or feature whose meaning has not been built yet; it never silently does nothing."""

    def __init__(self, feature: str, *, hint: str = "", source: SourceRange | None = None) -> None:
        super().__init__(f"not yet: {feature}", hint=hint, source=source)


class StorageError(Error):
    """The store or the disk below it failed: full, corrupt, read-only, newer schema."""

    exit_code = 3


class NetworkError(Error):
    """A registry or another server could not be reached, or answered what it must not."""

    exit_code = 4


class MachineError(Error):
    """This machine lacks something a build needs: a runtime, a kernel feature, a right."""

    exit_code = 5


class CancelledError(Error):
    """The build was cancelled: Ctrl-C, a client that left, or another step that failed."""

    exit_code = 130

    def __init__(self, what: str = "cancelled") -> None:
        super().__init__(what)
