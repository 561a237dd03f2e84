"""JSON whose values know their lines, for files that people write. Pure.

In: text. Out: nested `Value`s. Nesting goes to 32; a name that comes twice in one object is refused, since nobody
can tell which was meant.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

from lamina.errors import InputError

_MAX_DEPTH = 32
_BLANK = re.compile(r"[ \t\r\n]*")
_SCALAR = re.compile(r"[-+.0-9A-Za-z]+")


@dataclass(frozen=True, slots=True)
class Value:
    """A value and the line it begins in; members of objects (by name) and of lists are `Value`s again."""

    value: Any
    line: int


def parse_json(text: str, name: str) -> Value:
    """Return what a text holds.

    Args:
        name: how messages call the file.

    Raises:
        InputError: it is not JSON; says the line.
    """
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg}", where=f"{name}:{error.lineno}") from error
    except (RecursionError, ValueError) as error:
        raise InputError("not JSON that can be read: nested too deeply, or too large a number", where=name) from error
    return _Reader(text, name).value(0)


class _Reader:
    """Walks through a text that is known to be JSON."""

    def __init__(self, text: str, name: str) -> None:
        self._text, self._name, self._at = text, name, 0
        self._line, self._counted = 1, 0

    def value(self, depth: int) -> Value:
        """Return the value that comes next."""
        char = self._skip()
        line = self._here()
        if depth > _MAX_DEPTH:
            raise InputError("nested too deeply", where=f"{self._name}:{line}")
        if char == "{":
            return Value(self._object(depth), line)
        if char == "[":
            return Value(self._list(depth), line)
        if char == '"':
            return Value(self._string(), line)
        found = _SCALAR.match(self._text, self._at)
        assert found is not None
        self._at = found.end()
        return Value(json.loads(found.group()), line)

    def _object(self, depth: int) -> dict[str, Value]:
        members: dict[str, Value] = {}
        self._at += 1
        while (char := self._skip()) != "}":
            if char == ",":
                self._at += 1
                self._skip()
            line, name = self._here(), self._string()
            if name in members:
                raise InputError(f"{name[:80]!r} is there twice", where=f"{self._name}:{line}")
            self._skip()
            self._at += 1  # the colon
            members[name] = self.value(depth + 1)
        self._at += 1
        return members

    def _list(self, depth: int) -> list[Value]:
        items = []
        self._at += 1
        while (char := self._skip()) != "]":
            if char == ",":
                self._at += 1
            items.append(self.value(depth + 1))
        self._at += 1
        return items

    def _string(self) -> str:
        text, self._at = scanstring(self._text, self._at + 1, True)
        return str(text)

    def _skip(self) -> str:
        found = _BLANK.match(self._text, self._at)
        assert found is not None
        self._at = found.end()
        return self._text[self._at : self._at + 1]

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line
