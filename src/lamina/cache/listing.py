"""Lists of what content keys were made of, kept so that a miss can name the files.

In: rows of a `Listing` op. Out: bytes for the state file, and rows again. Written only for a step that runs; found by
the content digest that the rows stand behind. Kept while a record counts it and the room lasts: losing a list costs
the names in an explanation, nothing else.

Format: zlib over UTF-8 (surrogateescape); five fields for each row, all joined by NUL.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from lamina.state.db import State

MAX_ROWS = 1_000_000
"""Rows of one list; what is beyond is not compared."""
MAX_BYTES = 64 << 20
"""Bytes of all lists in the state file; the ones used longest ago go first."""
_MAX_PLAIN = 512 << 20


class Row(NamedTuple):
    """One path that counted: see `lamina.layer.recipe_listing.Row`."""

    path: str
    kind: str
    mode: str
    what: str
    more: str


def encode(rows: Iterable[tuple[str, ...]]) -> bytes:
    """Return rows as bytes."""
    fields = [field for row in islice(rows, MAX_ROWS) for field in row]
    return zlib.compress("\0".join(fields).encode("utf-8", "surrogateescape"), 1)


def decode(data: bytes) -> tuple[Row, ...]:
    """Return the rows of `encode`.

    Raises:
        ValueError: other bytes than it gave.
    """
    engine = zlib.decompressobj()
    try:
        plain = engine.decompress(data, _MAX_PLAIN)
    except zlib.error as error:
        raise ValueError(f"a broken list of files: {error}") from error
    if not plain:
        return ()
    fields = plain.decode("utf-8", "surrogateescape").split("\0")
    if len(fields) % 5 or engine.unconsumed_tail:
        raise ValueError("a broken list of files")
    return tuple(Row(*fields[at : at + 5]) for at in range(0, len(fields), 5))


def keep_listing(state: State, digest: str, rows: Iterable[tuple[str, ...]]) -> None:
    """Write the list behind a content digest down, unless it is there."""
    now = time.time()
    if state.execute("UPDATE listing SET used = ? WHERE digest = ?", (now, digest)).rowcount:
        return
    data = encode(rows)
    with state.transaction() as connection:
        connection.execute("INSERT OR REPLACE INTO listing VALUES (?, ?, ?, ?)", (digest, len(data), now, data))
        total = connection.execute("SELECT total(size) FROM listing").fetchone()[0]
        while total > MAX_BYTES:
            oldest, size = connection.execute("SELECT digest, size FROM listing ORDER BY used LIMIT 1").fetchone()
            connection.execute("DELETE FROM listing WHERE digest = ?", (oldest,))
            total -= size


def find_data(state: State, digest: str) -> bytes | None:
    """Return the list behind a content digest as it is kept, None when it is not (any more)."""
    found = state.execute("SELECT data FROM listing WHERE digest = ?", (digest,)).fetchone()
    return found[0] if found is not None else None


def find_listing(state: State, digest: str) -> tuple[Row, ...] | None:
    """Return the rows behind a content digest, None when they are not kept (any more)."""
    data = find_data(state, digest)
    if data is None:
        return None
    try:
        return decode(data)
    except ValueError:
        return None


def drop_unused(state: State) -> int:
    """Drop the lists that no record counts any more; return how many."""
    with state.transaction() as connection:
        return connection.execute(
            """DELETE FROM listing WHERE digest NOT IN (
                SELECT json_extract(item.value, '$[1]') FROM
                (SELECT parts FROM node UNION ALL SELECT parts FROM pruned) AS kept,
                json_each(kept.parts, '$.inputs') AS item)"""
        ).rowcount
