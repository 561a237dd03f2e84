"""The commands of a RUN, as far as rules need them: which programs are called with which words.

In: shell text. Out: `Command`s in order. Not a shell: no expansion, no functions; what is inside `$( )` and backquotes
counts as commands of their own, here-documents inside the text are passed over as text. Linear in the text. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lamina.dockerfile.instructions import ExecForm, Run, ShellForm

_TOKEN = re.compile(
    r"""
      (?P<blank>[ \t\r]+|\\\n)
    | (?P<comment>(?<![^\s;&|(])\#[^\n]*)
    | (?P<operator>&&|\|\||;;|\|&|[;&|\n()`]|\$\()
    | (?P<single>'[^']*'?)
    | (?P<double>"(?:[^"\\]|\\.)*"?)
    | (?P<escaped>\\.?)
    | (?P<plain>[^\s;&|()`'"\\$]+|\$)
    """,
    re.VERBOSE | re.DOTALL,
)
_KEYWORDS = frozenset(
    {"if", "then", "else", "elif", "fi", "do", "done", "while", "until", "!", "{", "}", "time", "exec", "command"}
)
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
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
        return next((word for word in self.words[1:] if not word.startswith("-")), "")

    def has(self, *options: str) -> bool:
        """Tell whether one of these words is among the arguments; `--option=value` counts as `--option`."""
        return any(word in options or word.partition("=")[0] in options for word in self.words[1:])


def commands_of(run: Run) -> tuple[Command, ...]:
    """Return the commands of a RUN instruction."""
    if isinstance(run.command, ExecForm):
        found = _command(list(run.command.args), "")
        if found and found.program in ("sh", "bash", "ash") and len(found.words) == 3 and found.words[1] == "-c":
            return tuple(commands(found.words[2]))
        return (found,) if found else ()
    return tuple(commands(text_of(run.command)))


def text_of(command: ShellForm) -> str:
    """Return the text that the shell gets: the line, or the here-document that stands for it."""
    return command.script.content if command.script is not None else command.text


def commands(text: str) -> Iterator[Command]:
    """Yield the simple commands of a shell text."""
    words: list[str] = []
    word: list[str] | None = None
    operator = ""
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind in ("blank", "comment", "operator"):
            if word is not None:
                words.append("".join(word))
                word = None
            if kind == "operator":
                if found := _command(words, operator):
                    yield found
                words, operator = [], match[0]
        else:
            word = [] if word is None else word
            word.append(_unquoted(kind or "", match[0]))
    if word is not None:
        words.append("".join(word))
    if found := _command(words, operator):
        yield found


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
