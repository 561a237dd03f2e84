"""What can stand next on the command line: the answer to a TAB in any shell.

In: the words after `lamina`, the last being the one that is typed ("" for a new one). Out: candidates with a
description, and whether the shell should offer files or directories as well. Verbs and options come from the very
parsers that read them later; image names from the store's index, stages from the Dockerfile. It reads, never writes,
asks no network, and imports little, for it runs at every key press; what it cannot find out it leaves out.

What comes from files is only offered when it consists of harmless characters: shells insert it as it is.
"""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Action, ArgumentParser
    from collections.abc import Iterable, Sequence

    Candidates = list[tuple[str, str]]

FILES, DIRS = ":files", ":dirs"
_GLOBAL = [
    ("--root", "where images and cache lie"),
    ("--help", "explain the command"),
    ("--version", "print the version"),
]
_HARMLESS = re.compile(r"[A-Za-z0-9._/:@+-]+")
_MAX_DOCKERFILE = 1 << 20
_PLATFORMS = "linux/amd64 linux/arm64 linux/arm/v7 linux/386 linux/ppc64le linux/riscv64 linux/s390x"
_WORDS = {
    "OS/ARCH": _PLATFORMS.split(),
    "BOOL": ["true", "false"],
    "MODE": ["default", "host", "none"],
    "host|none": ["host", "none"],
}
_PLACES = {"FILE": FILES, "DIR": DIRS, "PATH": FILES, "HOST:PATH[:ro]": FILES, "CMD": FILES}


def main(words: Sequence[str]) -> int:
    """Print one candidate per line, with a TAB before its description; never fails, as nobody would see it.

    Args:
        words: `--` and the words of the line.
    """
    try:
        found, place = complete(words[1:])
    except (Exception, SystemExit):
        return 0
    print("\n".join(([place] if place else []) + [f"{text}\t{about}" for text, about in found]))
    return 0


def complete(words: Sequence[str]) -> tuple[Candidates, str]:
    """Return the candidates that begin like the last word, and `FILES`, `DIRS` or ""."""
    from lamina.cli.main import VERBS

    before, last = list(words[:-1]), words[-1] if words else ""
    while before and before[0].startswith("-"):
        option = before.pop(0)
        if option == "--root":
            if not before:
                return [], DIRS
            os.environ["LAMINA_ROOT"] = before.pop(0)
        elif option.startswith("--root="):
            os.environ["LAMINA_ROOT"] = option.partition("=")[2]
    if not before or before[0] == "help":
        choices = _GLOBAL if last.startswith("-") else VERBS.items()
        return _like(last, choices), ""
    if before[0] not in VERBS:
        return [], FILES
    return _Line(before[0], before[1:], last).answer()


def _like(last: str, candidates: Iterable[tuple[str, str]]) -> Candidates:
    return [(text, about) for text, about in candidates if text.startswith(last)]


class _Line:
    """One verb's line: what was said before, and what is being typed."""

    def __init__(self, verb: str, before: list[str], last: str) -> None:
        import argparse
        from importlib import import_module

        self._verb, self._last = verb, last
        self._parser = argparse.ArgumentParser(prog="lamina", allow_abbrev=False)
        import_module(f"lamina.cli.verbs.{verb.replace('-', '_')}").add_arguments(self._parser)
        self._hidden = argparse.SUPPRESS
        self._positionals: list[str] = []
        self._values: dict[str, str] = {}  # of options, by their longest name
        self._pending: Action | None = None  # the option whose value is being typed
        self._is_command = False  # the rest is a command's own
        self._only_positionals = False
        self._read(before)

    def answer(self) -> tuple[Candidates, str]:
        if self._is_command:
            return [], FILES
        if self._pending is not None:
            return self._value(self._pending, self._last, "")
        name, equals, value = self._last.partition("=")
        if self._last.startswith("--") and equals and not self._only_positionals:
            action = _options(self._parser).get(name)
            return self._value(action, value, name + "=") if action is not None else ([], "")
        if self._last.startswith("-") and not self._only_positionals:
            return _like(self._last, self._option_names()), ""
        action = self._positional()
        return self._value(action, self._last, "") if action is not None else ([], "")

    def _read(self, before: list[str]) -> None:
        """Walk over what was said, as the parser will."""
        words = iter(before)
        for word in words:
            if word == "--":
                self._only_positionals = True
            elif self._only_positionals or not word.startswith("-") or word == "-":
                self._take_positional(word)
                if self._is_command:
                    return
            else:
                action = self._option_that_wants(word)
                if action is not None:
                    value = next(words, None)
                    if value is None:
                        self._pending = action
                        return
                    self._values[action.option_strings[-1]] = value

    def _take_positional(self, word: str) -> None:
        action = self._positional()
        choices = getattr(action, "choices", None)
        if isinstance(choices, dict) and word in choices:  # a verb below the verb
            self._parser, self._positionals = choices[word], []
            return
        self._positionals.append(word)
        following = self._positional()
        self._is_command = following is not None and following.nargs == "..."

    def _option_that_wants(self, word: str) -> Action | None:
        """Return the option of `word` that takes its value from the next word."""
        options = _options(self._parser)
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            action = options.get(name)
            if action is not None and equals:
                self._values[action.option_strings[-1]] = value
            return action if action is not None and not equals and action.nargs is None else None
        for at, letter in enumerate(word[1:], 1):  # -it, -fFILE
            action = options.get(f"-{letter}")
            if action is not None and action.nargs is None:
                self._values[action.option_strings[-1]] = word[at + 1 :]
                return None if word[at + 1 :] else action
        return None

    def _positional(self) -> Action | None:
        """Return what the next positional word means."""
        actions = [action for action in self._parser._actions if not action.option_strings]
        count = len(self._positionals)
        for number, action in enumerate(actions):
            if number == count or action.nargs in ("+", "*", "..."):
                return action
        return None

    def _option_names(self) -> Candidates:
        shown = [action for action in self._parser._actions if action.option_strings and action.help != self._hidden]
        return [(name, _one_line(action.help)) for action in shown for name in action.option_strings]

    def _value(self, action: Action, last: str, prefix: str) -> tuple[Candidates, str]:
        """Return values for an option or a positional word; `prefix` stands before them on the line."""
        metavar = str(action.metavar or "")
        if action.choices is not None:
            words = [str(choice) for choice in action.choices if choice != ""]
        elif metavar == "IMAGE" or (metavar == "NAME" and (not action.option_strings or action.dest == "tag")):
            words = image_names()
        elif metavar == "STAGE":
            words = stage_names(*self._dockerfile())
        else:
            words = _WORDS.get(metavar, [])
        if words:
            return _like(prefix + last, ((prefix + word, "") for word in words)), ""
        is_context = metavar == "PATH" and not action.option_strings
        return [], DIRS if is_context else _PLACES.get(metavar, "")

    def _dockerfile(self) -> tuple[str, str]:
        """Return the context's directory and the Dockerfile's name, "" for the usual."""
        return self._positionals[0] if self._positionals else ".", self._values.get("--file", "")


def _options(parser: ArgumentParser) -> dict[str, Action]:
    return {name: action for action in parser._actions for name in action.option_strings}


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def image_names() -> list[str]:
    """Return the names of the images in the store, short ones where docker has short ones."""
    from lamina.cli.environment import state_root
    from lamina.errors import InputError
    from lamina.oci.reference import Reference
    from lamina.store.store import Store

    root = os.path.join(state_root(), "oci")
    if not os.path.isfile(os.path.join(root, "index.json")):
        return []
    from pathlib import Path

    names = set()
    for image in Store(Path(root), create=False).images():
        try:
            names.add(Reference.parse(image.name).familiar())
        except InputError:  # without a name, or with none of ours
            continue
    return sorted(name for name in names if _HARMLESS.fullmatch(name))


def stage_names(context: str, name: str) -> list[str]:
    """Return the names of a Dockerfile's stages, in its order; [] where it cannot be read (as it may be half typed)."""
    from lamina.dockerfile.parser import parse
    from lamina.errors import Error

    for path in [name] if name else [os.path.join(context, "Dockerfile"), os.path.join(context, "dockerfile")]:
        try:
            with open(path, "rb") as file:
                stages = parse(file.read(_MAX_DOCKERFILE)).stages
        except (OSError, Error):
            continue
        return [stage.name for stage in stages if stage.name and _HARMLESS.fullmatch(stage.name)]
    return []
