"""The text of a CDI file, JSON or YAML, as plain values for `cdi.parse_spec`.

In: a file's bytes (at most `MAX_BYTES`). Out: dicts, lists, `str` and, from JSON, numbers and booleans; YAML's unquoted
scalars come as `cdi.Plain`, since only their field knows whether they are a number or a text. Pure.
The text may be anybody's: work and memory are linear in its length, and what could make them not so (YAML's aliases,
deep nesting) is refused, as are duplicate keys, of which each reader would take another. PyYAML is imported only for a
YAML file.
"""

from __future__ import annotations

import json
from typing import Any

from lamina.errors import InputError
from lamina.executor.cdi import Plain

MAX_BYTES = 4 << 20
_MAX_DEPTH = 32


def read_json(data: bytes) -> object:
    """Return the value of a JSON text.

    Raises:
        InputError: it is none, or has a key twice.
    """
    try:
        return json.loads(data, object_pairs_hook=_pairs, parse_constant=_no_constant)
    except RecursionError:
        raise InputError("the JSON is nested too deeply") from None
    except ValueError as error:
        raise InputError(f"this is no JSON: {error}") from None


def read_yaml(data: bytes) -> object:
    """Return the value of a YAML text of one document.

    Raises:
        InputError: it is none; aliases, tags or several documents; a key twice, or one that is no text.
    """
    import yaml

    # The declared types of the events do not know which of them are which.
    loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    builder = _Builder()
    try:
        for event in yaml.parse(data, Loader=loader):
            builder.take(type(event).__name__, event)
    except yaml.YAMLError as error:
        raise InputError(f"this is no YAML: {' '.join(str(error).split())[:200]}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"this is no YAML: {type(error).__name__}") from None
    return builder.result()


class _Builder:
    """Puts values together from YAML's events, without recursion."""

    def __init__(self) -> None:
        self._root: list[object] = []
        self._open: list[list[object] | dict[str, object]] = []
        self._keys: list[str | None] = []  # of each open mapping the key that waits for its value
        self._documents = 0

    def take(self, kind: str, event: Any) -> None:
        """Take one event."""
        if kind == "AliasEvent":
            self._refuse(event, "aliases (*name) are not taken here: write the value out")
        if kind == "DocumentStartEvent":
            self._documents += 1
            if self._documents > 1:
                self._refuse(event, "one document is expected, not several")
        elif kind == "ScalarEvent":
            plain = event.implicit[0] and not event.style  # None, or "" from libyaml
            self._add(event, Plain(event.value) if plain else str(event.value))
        elif kind in ("SequenceStartEvent", "MappingStartEvent"):
            value: list[object] | dict[str, object] = [] if kind == "SequenceStartEvent" else {}
            self._add(event, value)
            self._open.append(value)
            self._keys.append(None)
            if len(self._open) > _MAX_DEPTH:
                self._refuse(event, "the YAML is nested too deeply")
        elif kind in ("SequenceEndEvent", "MappingEndEvent"):
            self._open.pop()
            self._keys.pop()

    def result(self) -> object:
        """Return the document's value, None when there is none."""
        return self._root[0] if self._root else None

    def _add(self, event: Any, value: object) -> None:
        if event.tag not in (None, "!"):
            self._refuse(event, "tags (!name) are not taken here")
        if not self._open:
            self._root.append(value)
            return
        top = self._open[-1]
        if isinstance(top, list):
            top.append(value)
            return
        key = self._keys[-1]
        if key is None:
            if not isinstance(value, str):
                self._refuse(event, "a key must be a text")
            if value in top:
                self._refuse(event, f"key {value[:80]!r} is there twice")
            self._keys[-1] = str(value)
            return
        top[key] = value
        self._keys[-1] = None

    def _refuse(self, event: Any, what: str) -> None:
        raise InputError(f"line {event.start_mark.line + 1}: {what}")


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise InputError(f"key {name[:80]!r} is there twice")
            seen.add(name)
    return found


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is no JSON value")
