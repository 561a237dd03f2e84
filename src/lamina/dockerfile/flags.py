"""Flags of an instruction (`COPY --from=x --link`): which are known, which kind of value each has.

In: the flag words of a `statements.Statement`. Out: `Flags`, values unexpanded. Reference: Dockerfile reference, the
options of each instruction. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lamina.dockerfile.suggest import did_you_mean
from lamina.errors import InputError

TEXT = "text"
SWITCH = "switch"
LIST = "list"


class Flags:
    """The flags that were given, checked against those an instruction has."""

    def __init__(self, keyword: str, words: Sequence[str], known: Mapping[str, str]) -> None:
        """Read `words`, each `--name[=value]`, against `known`: name to TEXT, SWITCH or LIST.

        Raises:
            InputError: unknown flag, missing or surplus value, a flag given twice.
        """
        self._values: dict[str, list[str]] = {}
        for word in words:
            name, equals, value = word[2:].partition("=")
            kind = known.get(name)
            if kind is None:
                raise InputError(f"{keyword} has no flag --{name}", hint=_advice(keyword, name, known))
            if name in self._values and kind != LIST:
                raise InputError(f"the flag --{name} is given twice", hint="remove one of them")
            if kind == SWITCH:
                value = _switch(name, equals, value)
            elif not equals:
                raise InputError(f"the flag --{name} needs a value", hint=f"write --{name}=VALUE, without blanks")
            self._values.setdefault(name, []).append(value)

    def text(self, name: str) -> str:
        """Return the value of `name`, "" when it was not given."""
        return self._values.get(name, [""])[0]

    def texts(self, name: str) -> tuple[str, ...]:
        """Return every value of `name`, in order."""
        return tuple(self._values.get(name, ()))

    def switch(self, name: str) -> bool | None:
        """Return whether `name` is on; None when it was not given."""
        return self._values[name][0] == "true" if name in self._values else None


def _switch(name: str, equals: str, value: str) -> str:
    """Return `true` or `false` for the value of a switch."""
    if not equals:
        return "true"
    if value.lower() not in ("true", "false"):
        raise InputError(f"the flag --{name} is true or false, got {value!r}", hint=f"write --{name} or --{name}=false")
    return value.lower()


def _advice(keyword: str, name: str, known: Mapping[str, str]) -> str:
    """Return what to write instead of the unknown flag `name`."""
    if keyword == "ADD" and name in ("from", "parents"):
        return f"COPY has --{name}"
    if not known:
        return f"{keyword} takes no flags: remove it, or write -- before words that begin with two dashes"
    return did_you_mean(f"--{name}", [f"--{flag}" for flag in known], otherwise="known flags: --" + ", --".join(known))
