"""Whether what the image runs can start at all: it is there, may be executed, and its interpreter is there.

In: an `ImageView`. Out: troubles, and the ELF programs that starting it comes to (for `result_programs`). The rules are
those of execve(2) and of a runtime that looks names up in the image's PATH.
"""

from __future__ import annotations

import posixpath
import re
from typing import NamedTuple

from lamina.checks.result_view import Command, ImageView, Place, Trouble, started
from lamina.layer.entry import Entry
from lamina.layer.program import Program

_INTERPRETED = {
    ".py": re.compile(r"(python|pypy)[0-9.]*"),
    ".js": re.compile(r"node|nodejs|bun|deno"),
    ".mjs": re.compile(r"node|nodejs|bun"),
    ".cjs": re.compile(r"node|nodejs|bun"),
    ".rb": re.compile(r"ruby[0-9.]*"),
    ".pl": re.compile(r"perl[0-9.]*"),
    ".php": re.compile(r"php[0-9.]*"),
    ".sh": re.compile(r"sh|bash|ash|dash"),
}
_FIRST_WORD = re.compile(r"\s*(?:exec\s+)?(/[A-Za-z0-9._/+-]+)(?=\s|$)")
_MAX_SCRIPTS = 4  # scripts whose interpreter is a script: Linux goes no deeper


class Started(NamedTuple):
    """An ELF program that starting the image comes to."""

    command: Command
    path: str
    program: Program


class Starts:
    """Follows each command of an image to the programs it is made of. `troubles` and `programs` are filled by `run`."""

    def __init__(self, image: ImageView) -> None:
        self._image = image
        self.troubles: list[Trouble] = []
        self.programs: list[Started] = []

    def run(self) -> None:
        """Follow every command of the image."""
        for command in self._image.commands():
            self._command(command)
            if not command.by_shell and (behind := started(command.words)):
                self._command(Command(command.about, behind, False))

    def _command(self, command: Command) -> None:
        image, name = self._image, command.words[0]
        if not image.has_program(name):
            self._missing(command, *image.find(name))
            return
        path, place = image.find(name)
        if not place.is_file or image.from_outside(path):
            return
        if not self._executable(command, path, place):
            return
        self._follow(command, path, place)
        if command.by_shell:
            self._first_word(command)
        else:
            self._argument(command)

    def _missing(self, command: Command, path: str, place: Place) -> None:
        """Say that the first word is no program."""
        image, about, name = self._image, command.about, command.words[0]
        if command.by_shell:
            form = f"{about} CMD" if about == "HEALTHCHECK" else about
            self._add(
                "ShellMissing",
                f"{about} is written in shell form but the image has no {name}: write it as a JSON array, "
                f'{form} ["program", "argument"], or add a shell',
                about,
            )
        elif place.dangling:
            what = f"a link to {place.dangling}, which is not in the image: copy what it points to as well"
            if place.dangling == "itself":
                what = "a link that leads back to itself: let it point to the program"
            self._add("ProgramMissing", f"{about} runs {path}, {what}", about)
        elif place.entry is not None and place.entry.kind == "d":
            inside = [child for child in image.tree.children(place.path) if child == posixpath.basename(name)]
            hint = f"name the program in it, {path}/{inside[0]}" if inside else "name the program in it"
            self._add("ProgramMissing", f"{about} runs {path}, which is a directory: {hint}", about)
        elif "/" in name:
            self._add("ProgramMissing", f"{about} runs {path}, which is not in the image{self._similar(path)}", about)
        elif " " in name:
            words = ", ".join(f'"{word}"' for word in name.split())
            self._add(
                "ProgramMissing", f"{about} runs a program named {name!r}: give each word a string, [{words}]", about
            )
        else:
            self._add("ProgramMissing", self._not_in_path(about, name), about)

    def _not_in_path(self, about: str, name: str) -> str:
        image = self._image
        here = image.absolute(name)
        if image.place(here).is_file:
            return f"{about} runs {name!r}, which is not in PATH: write ./{name} or {here}, where it lies"
        folders = ":".join(image.search_path)
        return f"{about} runs {name!r}, which is in no directory of PATH ({folders}): install it or write its full path"

    def _similar(self, path: str) -> str:
        import difflib

        folder, _, name = path.rpartition("/")
        children = self._image.tree.children(self._image.place(folder or "/").path)
        close = difflib.get_close_matches(name, children[:500], n=1)
        if close:
            return f": did you mean {folder}/{close[0]}?"
        return ": check where COPY or the build puts it (COPY --from wants the path in the other stage)"

    def _executable(self, command: Command, path: str, place: Place) -> bool:
        """Say when the kernel would refuse a file."""
        assert place.entry is not None
        if may_execute(place.entry, self._image.user_id):
            return True
        mode, about = f"{place.entry.mode:o}", command.about
        if place.entry.mode & 0o111:
            user = self._image.config.get("User")
            text = f"{about} runs {path}, which user {user} may not execute (mode {mode}, owner {place.entry.uid})"
        else:
            text = f"{about} runs {path}, which is not executable (mode {mode})"
        self._add("ProgramNotExecutable", f"{text}: COPY --chmod=755, or RUN chmod 755 {path}", about)
        return False

    def _follow(self, command: Command, path: str, place: Place) -> None:
        """Go from a script to its interpreter, until there is a program."""
        for _ in range(_MAX_SCRIPTS):
            program = self._image.tree.program(place.path, deep=True)
            if program is None:
                return
            if not program.is_script:
                self._program(command, path, place, program)
                return
            found = self._interpreter(command.about, path, program)
            if found is None:
                return
            path, place = found

    def _program(self, command: Command, path: str, place: Place, program: Program) -> None:
        if program.elf is not None:
            self.programs.append(Started(command, place.path, program))
        elif program.damaged:
            self._add(
                "ProgramMissing", f"{command.about} runs {path}, {program.damaged}: build it again", command.about
            )
        elif place.entry is not None and (not place.entry.size or _is_text(program.head)):
            what = "a text without a first line such as #!/bin/sh: put that line there"
            if not place.entry.size:
                what = "an empty file: look at the step that makes it"
            text = f"{command.about} runs {path}, {what} (the kernel would say 'exec format error')"
            self._add("ScriptInterpreterMissing", text, command.about)

    def _interpreter(self, about: str, path: str, script: Program) -> tuple[str, Place] | None:
        """Return what runs a script, saying so when it is not there."""
        name, argument = script.shebang
        if "\r" in name + argument:
            self._add(
                "ScriptLineEnds",
                f"{about} runs {path}, whose first line ends in CR LF, so that {name.rstrip()!r} and a carriage "
                "return are looked for: save it with LF line ends (.gitattributes: *.sh text eol=lf)",
                about,
            )
            return None
        image = self._image
        place = image.place(image.absolute(name)) if name else Place("", None)
        if not place.is_file:
            if not image.from_outside(name):
                text = f"{about} runs {path}, a script for {name or 'no interpreter'}, which is not in the image"
                self._add("ScriptInterpreterMissing", f"{text}: {_remedy(name)}", about)
            return None
        wanted = _env_program(argument) if posixpath.basename(name) == "env" else ""
        if not wanted:
            return name, place
        if not image.has_program(wanted):
            text = f"{about} runs {path}, a script for {wanted!r} (by {name}), which is in no directory of PATH"
            self._add("ScriptInterpreterMissing", f"{text}: {_remedy(wanted)}", about)
            return None
        found, place = image.find(wanted)
        return (found, place) if place.is_file else None

    def _argument(self, command: Command) -> None:
        """Say when `python app.py` has no app.py."""
        words = command.words
        if len(words) < 2:
            return
        pattern = _INTERPRETED.get(posixpath.splitext(words[1])[1])
        name = words[1]
        if posixpath.basename(words[0]) == "java" and words[1] == "-jar" and len(words) > 2:
            name = words[2]
        elif pattern is None or not pattern.fullmatch(posixpath.basename(words[0])):
            return
        path = self._image.absolute(name)
        if "://" in name or self._image.from_outside(path) or self._image.place(path).entry is not None:
            return
        what = f"{command.about} runs {posixpath.basename(words[0])} on {path}, which is not in the image"
        self._add("ProgramMissing", what + self._similar(path), command.about)

    def _first_word(self, command: Command) -> None:
        """Say when the shell's command begins with a path that leads nowhere."""
        match = _FIRST_WORD.match(command.words[-1])
        if match is None:
            return
        path = match[1]
        place = self._image.place(path)
        if self._image.from_outside(path):
            return
        if place.is_file:
            if self._executable(command, path, place):
                self._follow(command, path, place)
        else:
            self._missing(Command(command.about, (path,), False), path, place)

    def _add(self, rule: str, message: str, about: str) -> None:
        self.troubles.append(Trouble(rule, message, about))


def may_execute(entry: Entry, uid: int | None) -> bool:
    """Tell whether a user may execute a file; in doubt (groups are not known) yes."""
    if uid is None or uid == 0:
        return bool(entry.mode & 0o111)
    if uid == entry.uid:
        return bool(entry.mode & 0o100)
    return bool(entry.mode & 0o011)


def _env_program(argument: str) -> str:
    """Return the program that `#!/usr/bin/env ...` runs, "" when that cannot be told."""
    words = argument.split()
    if words[:1] == ["-S"]:
        words = words[1:]
    while words and "=" in words[0]:
        words.pop(0)
    return words[0] if words and not words[0].startswith("-") else ""


def _remedy(interpreter: str) -> str:
    name = posixpath.basename(interpreter)
    if name == "bash":
        return "install bash, or write the script for /bin/sh"
    return f"install {name}, or change the script's first line" if name else "name it in the script's first line"


def _is_text(head: bytes) -> bool:
    return bool(head) and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head[:64])
