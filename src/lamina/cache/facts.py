"""What the key of a piece of work was made of, as the store remembers it; and what was dropped from it by which rule.

A fact sheet comes from a record's `parts` (see `lamina.solver.keying.Keying.parts`), also after the record was pruned:
`note_pruned` moves it aside first.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lamina.solver.protocol import Counted
from lamina.state.db import State

MAX_PRUNED = 10_000
"""Records whose going is remembered."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What one key was made of.

    Attributes:
        name: the vertex.
        parts: what the op said of itself (`CacheMap.parts`), by name.
        inputs: what each input added to the key.
        canon: the key that dependents count, "" when it is not known.
        seconds: how long the work took, 0 when it is not known.
    """

    name: str
    parts: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[Counted, ...] = ()
    canon: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Pruned:
    """That a record was dropped: by which rule, and when (seconds since the epoch)."""

    rule: str
    at: float


def facts_of(name: str, parts: Mapping[str, Any], *, canon: str = "", seconds: float = 0.0) -> Facts:
    """Return the fact sheet of a record's parts; what is malformed is left out."""
    plain = {key: value for key, value in parts.items() if key not in ("inputs", "content")}
    found = parts.get("inputs")
    inputs = []
    for item in found if isinstance(found, list) else ():
        if isinstance(item, list) and len(item) == 3 and all(isinstance(word, str) for word in item):
            inputs.append(Counted(*item))
    return Facts(name, plain, tuple(inputs), canon, seconds)


def find_facts(state: State, *keys: str) -> Facts | None:
    """Return what the record behind the first known one of these keys was made of, dropped records included."""
    for key in keys:
        if not key:
            continue
        row = state.execute(
            """SELECT node.description, node.parts, node.canon, node.seconds FROM key
            JOIN node ON node.id = key.node WHERE key.key = ?""",
            (key,),
        ).fetchone()
        if row is None:
            row = state.execute("SELECT description, parts, canon, 0.0 FROM pruned WHERE canon = ?", (key,)).fetchone()
        if row is not None:
            return facts_of(row[0], json.loads(row[1]), canon=row[2], seconds=row[3])
    return None


def find_like(state: State, description: str) -> Facts | None:
    """Return the latest record of this description, whoever's it is."""
    row = state.execute(
        "SELECT description, parts, canon, seconds FROM node WHERE description = ? ORDER BY used DESC, id DESC LIMIT 1",
        (description,),
    ).fetchone()
    return facts_of(row[0], json.loads(row[1]), canon=row[2], seconds=row[3]) if row is not None else None


def find_pruned(state: State, *keys: str) -> Pruned | None:
    """Return by which rule the record behind one of these keys was dropped, None when it was not."""
    for key in filter(None, keys):
        row = state.execute("SELECT rule, at FROM pruned WHERE canon = ?", (key,)).fetchone()
        if row is not None:
            return Pruned(row[0], row[1])
    return None


def note_pruned(connection: Any, rule: str, where: str, values: Sequence[Any]) -> None:
    """Remember the records that are about to be dropped. Called in the transaction that drops them.

    Args:
        rule: what the user is told, such as "`lamina prune --all`".
        where: SQL condition on `node`, and its `values`.
    """
    now = time.time()
    connection.execute(
        f"INSERT OR REPLACE INTO pruned SELECT canon, description, parts, ?, ? FROM node WHERE {where}",
        (rule, now, *values),
    )
    connection.execute(
        "DELETE FROM pruned WHERE canon IN (SELECT canon FROM pruned ORDER BY at DESC LIMIT -1 OFFSET ?)", (MAX_PRUNED,)
    )
