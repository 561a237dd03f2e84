"""A TOML text whose every fault can be pointed at: file, line, excerpt.

The standard library's parser says where a text is no TOML, but not where a value stands that is none of ours. So the
lines of keys are found by a second, simple look at the text; where that is not sure (inline tables, keys of several
lines), the nearest line above that is known is named. Pure. Specification: TOML 1.0.

    document = parse_document(text, "lamina.toml")
    document.root.check_known("registry")
    for host, table in document.root.tables("registry"):
        table.boolean("http")
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lamina.errors import InputError, SourceRange

MAX_BYTES = 1 << 20
Path = tuple[str | int, ...]

Shape = Mapping[str, Any]
"""What may stand in a table: by key a type, several, a list of what its items are, or the shape of a table (of an array
of tables: a list of one shape); "*" is for all other keys, and None for whatever anybody likes."""

_HEADER = re.compile(r"\s*(\[\[?)([^\[\]]+|(?:[^\[\]\"']|\"[^\"]*\"|'[^']*')+)\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*=")
_AT_LINE = re.compile(r"\(at line (\d+), column \d+\)")
_TYPES = {str: "a text", bool: "true or false", int: "a whole number", list: "a list", dict: "a table"}


class Table:
    """One table of a document; its methods check what they return.

    Args:
        values: as the parser gave them.
        path: the keys that lead here.
        document: whose it is.
    """

    def __init__(self, values: Mapping[str, Any], path: Path, document: Document) -> None:
        self.values = values
        self.path = path
        self._document = document

    def check_known(self, *known: str) -> None:
        """Check that nothing else stands here.

        Raises:
            InputError: naming the first other key, its line, and the nearest that is known.
        """
        for key in self.values:
            if key not in known:
                import difflib

                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
                place = f" in {self._name()}" if self.path else ""
                raise self.fault(f"unknown key {key!r}{place}", key, hint=hint)

    def check_shape(self, shape: Shape) -> None:
        """Check the keys and the types of all that stands here, and below.

        Raises:
            InputError: naming the first that does not fit, and its line.
        """
        if "*" not in shape:
            self.check_known(*shape)
        for key, found in self.values.items():
            wanted = shape[key] if key in shape else shape["*"]
            if wanted is None:
                continue
            if isinstance(wanted, Mapping):
                self.table(key).check_shape(wanted)
            elif isinstance(wanted, list) and isinstance(wanted[0], Mapping):
                for one in self.list_of_tables(key):
                    one.check_shape(wanted[0])
            elif not any(_is_a(found, kind) for kind in (wanted if isinstance(wanted, tuple) else (wanted,))):
                raise self.fault(f"{key!r} is not {_named(wanted)}", key)

    def boolean(self, key: str) -> bool:
        """Return a true or false; false when it is not there."""
        found = self._get(key, bool)
        return bool(found)

    def number(self, key: str) -> int:
        """Return a whole number that is not negative; 0 when it is not there."""
        found = int(self._get(key, int) or 0)
        if found < 0:
            raise self.fault(f"{key!r} is negative", key)
        return found

    def table(self, key: str) -> Table:
        """Return the table below this one; an empty one when it is not there."""
        return Table(self._get(key, dict) or {}, (*self.path, key), self._document)

    def text(self, key: str) -> str:
        """Return a text, "" when it is not there."""
        return str(self._get(key, str) or "")

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts that are not empty, () when it is not there."""
        found = self._get(key, list) or []
        for item in found:
            if not isinstance(item, str) or not item.strip():
                raise self.fault(f"{key!r} holds something that is not a text", key)
        return tuple(found)

    def tables(self, key: str) -> Iterator[tuple[str, Table]]:
        """Yield the tables in a table of tables."""
        for name, values in (self._get(key, dict) or {}).items():
            path = (*self.path, key, name)
            if not isinstance(values, dict):
                raise self.fault(f"{key}.{name} is not a table", key, name)
            yield name, Table(values, path, self._document)

    def list_of_tables(self, key: str) -> Iterator[Table]:
        """Yield the tables of an array of tables; a single table counts as one of them."""
        found = self.values.get(key, [])
        for number, values in enumerate([found] if isinstance(found, dict) else self._get(key, list) or []):
            if not isinstance(values, dict):
                raise self.fault(f"{key!r} holds something that is not a table", key)
            yield Table(values, (*self.path, key, number), self._document)

    def fault(self, what: str, *keys: str, hint: str = "") -> InputError:
        """Return the error for what stands at `keys` of this table."""
        return InputError(what, hint=hint, source=self._document.source((*self.path, *keys)))

    def _get(self, key: str, kind: type) -> Any:
        found = self.values.get(key)
        if found is not None and type(found) is not kind:
            raise self.fault(f"{key!r} is not {_TYPES[kind]}", key)
        return found

    def _name(self) -> str:
        words = (f"[{word}]" if isinstance(word, int) else f'"{word}"' if "." in word else word for word in self.path)
        return ".".join(words).replace(".[", "[")


class Document:
    """A parsed text with the means to find its lines again."""

    def __init__(self, values: Mapping[str, Any], text: str, name: str) -> None:
        self.root = Table(values, (), self)
        self._text, self._name = text, name
        self._lines: dict[Path, int] | None = None

    def source(self, path: Path) -> SourceRange:
        """Return the line where `path` stands, or what leads to it."""
        if self._lines is None:
            self._lines = dict(_find_lines(self._text.split("\n")))
        for end in range(len(path), 0, -1):
            if path[:end] in self._lines:
                return SourceRange(self._name, self._lines[path[:end]], text=self._text)
        return SourceRange(self._name, 1, text=self._text)


def parse_document(text: str, name: str) -> Document:
    """Return a parsed text.

    Args:
        name: how errors call the file.

    Raises:
        InputError: it is not TOML, or too large.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"the configuration is larger than {MAX_BYTES >> 10} KiB", where=name)
    try:
        return Document(tomllib.loads(text), text, name)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = _AT_LINE.search(str(error))
        line = int(found[1]) if found else max(1, text.count("\n") + 1 if "end of document" in str(error) else 1)
        what = _AT_LINE.sub("", str(error)).strip().removesuffix("(at end of document)").strip()
        source = SourceRange(name, line, text=text.replace("\r\n", "\n"))
        raise InputError(f"not TOML: {what or 'nested too deeply'}", source=source) from error


def _is_a(found: object, kind: Any) -> bool:
    if isinstance(kind, list):
        return isinstance(found, list) and all(type(item) is kind[0] for item in found)
    return type(found) is kind


def _named(wanted: Any) -> str:
    if isinstance(wanted, tuple):
        return " or ".join(map(_named, wanted))
    return "a list of texts" if isinstance(wanted, list) else _TYPES[wanted]


def _find_lines(lines: Iterable[str]) -> Iterator[tuple[Path, int]]:
    """Yield (path, line) of headers and keys, and of what leads to them; the first of equal paths is yielded last."""
    found: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    quotes = ""  # the end of a text of several lines that we are in
    for number, line in enumerate(lines, 1):
        if quotes:
            quotes = "" if quotes in line else quotes
            continue
        if line.lstrip().startswith("#"):
            continue
        header, key = _HEADER.fullmatch(line), _KEY.match(line)
        if header:
            table = _words(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = (*table, counts[table])
            else:
                # A table below an array's belongs to the last entry.
                for end in range(len(table) - 1, 0, -1):
                    if table[:end] in counts:
                        table = (*table[:end], counts[table[:end]], *table[end:])
                        break
        words = (*table, *_words(key[1])) if key else table
        if header or key:
            for end in range(1, len(words) + 1):
                found.setdefault(words[:end], number)
        quotes = next((mark for mark in ('"""', "'''") if line.count(mark) % 2), "")
    yield from found.items()


def _words(key: str) -> Path:
    """Return the parts of a dotted key."""
    try:
        values: Any = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    words: list[str | int] = []
    while isinstance(values, dict):
        (word, values), *_ = values.items()
        words.append(word)
    return tuple(words)
