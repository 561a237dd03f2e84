"""`--call`: what `lamina build` shall do instead of building. Imported only when something else is asked for.

In: the option's text, as buildx has it (`check,format=json`). Out: a `Call`, or None for building after all.
"""

from __future__ import annotations

from lamina.csvline import split_csv
from lamina.errors import InputError

_FORMATS = ("text", "json", "sarif")
_NAMES = ("check", "outline", "targets", "convertllb", "subrequests.describe")


class Call:
    """What to do instead of building.

    Attributes:
        name: one of `_NAMES`.
        format: `text`, `json` or `sarif`.
        ignore_status: end with exit code 0 whatever is found.
    """

    __slots__ = ("format", "ignore_status", "name")

    def __init__(self, name: str, format_: str, ignore_status: bool) -> None:
        self.name, self.format, self.ignore_status = name, format_, ignore_status


def parse_call(text: str) -> Call | None:
    """Return what `--call` asks for, None for building.

    Raises:
        InputError: an unknown option or value.
    """
    name, *options = split_csv(text, "--call") or [""]
    name = {"lint": "check", "": "build"}.get(name.removeprefix("frontend."), name.removeprefix("frontend."))
    format_, ignore_status = "text", False
    for option in options:
        key, equals, value = option.partition("=")
        if key == "format" and value in _FORMATS:
            format_ = value
        elif key == "ignorestatus" and (not equals or value in ("true", "false")):
            ignore_status = value != "false"
        else:
            raise InputError(f"--call: {option!r} is not known", hint="known: format=" + "|".join(_FORMATS))
    if name == "build":
        return None
    if name not in _NAMES:
        raise InputError(f"--call: nothing is called {name!r}", hint=f"known: build, {', '.join(_NAMES)}")
    if format_ == "sarif" and name != "check":
        raise InputError(f"--call={name} has no format sarif", hint="text or json")
    return Call(name, format_, ignore_status)
