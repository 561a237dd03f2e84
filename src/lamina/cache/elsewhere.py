"""What caches from elsewhere know of a step, for explaining why none of them has it.

In: the `--cache-from` sources of a build. Out: the facts of a record of the same step, and the files behind what it
counted. A list of files is fetched when it is asked for, once; whatever goes wrong costs the names, nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from lamina.cache.document import CacheList, CacheRecord
from lamina.cache.facts import Facts, facts_of
from lamina.cache.listing import Row, decode
from lamina.cache.travel import CacheSource
from lamina.errors import CancelledError, Error
from lamina.oci.digest import sha256_digest


class Elsewhere:
    """The sources of one build. Thread-safe."""

    def __init__(self, sources: Sequence[CacheSource]) -> None:
        self._sources = sources
        self._rows: dict[str, tuple[Row, ...] | None] = {}
        self._guard = threading.Lock()

    def like(self, description: str, parts: Mapping[str, Any]) -> tuple[Facts, str] | None:
        """Return the facts of the record that is most like a step of that description, and where it was found.

        Args:
            parts: what the step's key was made of; a record that differs in its inputs alone is preferred.
        """
        own = _without_inputs(parts)
        best: tuple[bool, float, CacheRecord, str] | None = None
        for source in self._sources:
            for record in _records(source):
                if record.description == description:
                    rank = (_without_inputs(record.parts) == own, record.used)
                    if best is None or rank > best[:2]:
                        best = (*rank, record, source.spec.shown())
        if best is None:
            return None
        record, where = best[2:]
        return facts_of(record.description, record.parts, canon=record.canon, seconds=record.seconds), where

    def rows(self, content: str) -> tuple[Row, ...] | None:
        """Return the files behind a content digest, None when no source tells."""
        with self._guard:
            if content not in self._rows:
                self._rows[content] = self._fetch(content)
            return self._rows[content]

    def _fetch(self, content: str) -> tuple[Row, ...] | None:
        for source in self._sources:
            try:
                one = next((one for one in source.document().lists if one.content == content), None)
                if one is not None:
                    return decode(_read(source, one))
            except CancelledError:
                raise
            except (Error, ValueError):
                continue
        return None


class _Memory:
    """A sink for one blob; takes no more than was promised."""

    def __init__(self, most: int) -> None:
        self._most, self._data = most, bytearray()

    @property
    def offset(self) -> int:
        return len(self._data)

    def write(self, data: bytes, /) -> None:
        if len(self._data) + len(data) > self._most:
            raise ValueError("a blob of more bytes than its descriptor says")
        self._data += data

    def restart(self) -> None:
        self._data.clear()

    def taken(self) -> bytes:
        return bytes(self._data)


def _read(source: CacheSource, one: CacheList) -> bytes:
    sink = _Memory(one.blob.size)
    source.fetch(one.blob, sink)
    data = sink.taken()
    if sha256_digest(data) != one.blob.digest:
        raise ValueError("a blob that is not what its digest says")
    return data


def _records(source: CacheSource) -> Sequence[CacheRecord]:
    try:
        return source.document().records
    except CancelledError:
        raise
    except Error:  # the solver has told of it
        return ()


def _without_inputs(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parts.items() if name not in ("inputs", "content")}
