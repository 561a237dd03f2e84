"""The commands of a RUN, as far as rules need them: which programs are called with which words.

In: shell text. Out: `Command`s in order. Not a shell: no expansion, no functions; what is inside `$( )` and backquotes
counts as commands of their own, redirections and the text of here-documents are passed over. Linear in the text. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lamina.dockerfile.instructions import ExecForm, Run, ShellForm

_TOKEN = re.compile(
    r"""
      (?P<blank>[ \t\r]+|\\\r?\n)
    | (?P<comment>(?<![^\s;&|(])\#[^\n]*)
    | (?P<heredoc><<-?[ \t]*(?:'[A-Za-z_][^'\n]*'|"[A-Za-z_][^"\n]*"|\\?[A-Za-z_][A-Za-z0-9_.-]*))
    | (?P<joined>[<>]&[0-9-]+)
    | (?P<redirect><<<|<<|&>>?|>>|>\||[<>]&?)
    | (?P<operator>&&|\|\||;;|\|&|[;&|\n()`]|\$\((?!\())
    | (?P<arithmetic>\$\(\([^()\n]*\)\))
    | (?P<single>'[^']*'?)
    | (?P<double>"(?:[^"\\]|\\.)*"?)
    | (?P<escaped>\\.?)
    | (?P<plain>[^ \t\r\n;&|()<>`'"\\$]+|\$)
    """,
    re.VERBOSE | re.DOTALL,
)
_KEYWORDS = frozenset(
    {"if", "then", "else", "elif", "fi", "do", "done", "while", "until", "!", "{", "}", "time", "exec", "command"}
)
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_SHELLS = frozenset({"sh", "bash", "ash", "dash", "zsh", "ksh"})
_SHEBANG = re.compile(r"#![ \t]*(?:\S*/env[ \t]+(?:-S[ \t]+)?)?(?:\S*/)?([^\s/]+)")
_TAKE_A_COMMAND = frozenset({"sudo", "env", "nice", "nohup"})


@dataclass(frozen=True, slots=True)
class Command:
    """One simple command.

    Attributes:
        words: program and arguments, quotes removed, variables as written; never empty.
        operator: what stands before it: `&&`, `|`, a line feed..., "" for the first.
        sudo: it is run by sudo.
    """

    words: tuple[str, ...]
    operator: str = ""
    sudo: bool = False

    @property
    def program(self) -> str:
        """The program's name, without its directory."""
        return self.words[0].rpartition("/")[2]

    def verb(self) -> str:
        """Return the first argument that is no option: `install` of `apt-get -y install x`."""
        return next(iter(self.arguments()), "")

    def arguments(self) -> list[str]:
        """Return the words after the program that are no options."""
        return [word for word in self.words[1:] if not word.startswith("-")]

    def has(self, *options: str) -> bool:
        """Tell whether one of these words is among the arguments; `--option=value` counts as `--option`."""
        return any(word in options or word.partition("=")[0] in options for word in self.words[1:])


def commands_of(run: Run) -> tuple[Command, ...]:
    """Return the commands of a RUN instruction."""
    if isinstance(run.command, ExecForm):
        found = _command(list(run.command.args), "")
        if found and found.program in _SHELLS and len(found.words) == 3 and found.words[1] == "-c":
            return tuple(commands(found.words[2]))
        return (found,) if found else ()
    script = run.command.script
    if script is not None:
        interpreter = _SHEBANG.match(script.content)
        return () if interpreter and interpreter[1] not in _SHELLS else tuple(commands(script.content))
    found_ = tuple(commands(run.command.text))
    if len(found_) == len(run.command.heredocs) == 1 and found_[0].program in _SHELLS and not found_[0].verb():
        return tuple(commands(run.command.heredocs[0].content))
    return found_


def text_of(command: ShellForm) -> str:
    """Return the text that the shell gets: the line, or the here-document that stands for it."""
    return command.script.content if command.script is not None else command.text


def commands(text: str) -> Iterator[Command]:
    """Yield the simple commands of a shell text."""
    reader = _Reader()
    position = 0
    while match := _TOKEN.match(text, position):
        position = match.end()
        kind, token = match.lastgroup or "", match[0]
        if kind == "operator":
            if found := reader.take(token):
                yield found
            if token == "\n":
                position = reader.after_bodies(text, position)
        elif kind in ("blank", "comment"):
            reader.end_word()
        elif kind in ("redirect", "joined", "heredoc"):
            reader.redirect(kind, token)
        else:
            reader.pieces.append(_unquoted(kind, token))
    if found := reader.take(""):
        yield found


class _Reader:
    """The command that is being read.

    Attributes:
        pieces: what was read of the current word; none between words.
    """

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._words: list[str] = []
        self._operator = ""
        self._to_file = False
        self._bodies: list[tuple[str, bool]] = []

    def end_word(self) -> None:
        """A word ends here; the one after `>` is no argument."""
        if self.pieces:
            if not self._to_file:
                self._words.append("".join(self.pieces))
            self.pieces, self._to_file = [], False

    def redirect(self, kind: str, token: str) -> None:
        """Pass over a redirection with the number before it; note what follows it."""
        if len(self.pieces) == 1 and self.pieces[0].isdigit():
            self.pieces = []
        self.end_word()
        self._to_file = kind == "redirect"
        if kind == "heredoc":
            name = token.lstrip("<")
            self._bodies.append((name.lstrip("-").strip(" \t'\"\\"), name.startswith("-")))

    def take(self, operator: str) -> Command | None:
        """Return the command that ends at an operator, and begin another."""
        self.end_word()
        found = _command(self._words, self._operator)
        self._words, self._operator, self._to_file = [], operator, False
        return found

    def after_bodies(self, text: str, position: int) -> int:
        """Return where the here-documents end that were announced in the line before `position`."""
        for name, tabs in self._bodies:
            while position < len(text):
                end = text.find("\n", position)
                end = len(text) if end < 0 else end
                line = text[position:end].removesuffix("\r")
                position = end + 1
                if (line.lstrip("\t") if tabs else line) == name:
                    break
        self._bodies = []
        return min(position, len(text))


def _unquoted(kind: str, text: str) -> str:
    if kind == "single":
        return text.strip("'")
    if kind == "double":
        return text[1:].removesuffix('"').replace('\\"', '"')
    return text[1:] if kind == "escaped" else text


def _command(words: list[str], operator: str) -> Command | None:
    """Return the command of some words: without keywords, assignments and what only starts another."""
    start, sudo = 0, False
    while start < len(words):
        word = words[start]
        if word.rpartition("/")[2] in _TAKE_A_COMMAND:
            sudo = sudo or word.rpartition("/")[2] == "sudo"
            start += 1
            while start < len(words) and words[start].startswith("-"):
                start += 1
        elif word in _KEYWORDS or _ASSIGNMENT.match(word):
            start += 1
        else:
            return Command(tuple(words[start:]), operator, sudo)
    return None
