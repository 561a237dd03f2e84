"""The cache in the state file: nodes, their keys, their results.

A node is one piece of work that was done. Keys (definition and exact) are aliases that lead to it; its results
are layers. A record is written in one transaction, after the layers it points to exist. A lookup stamps what
it returns as used in the same transaction, so that pruning, which compares stamps with live leases under the
same lock, never takes it away.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from lamina.cancel import Cancel
from lamina.snapshot.rows import LayerRef
from lamina.solver.protocol import Hit
from lamina.state.db import State
from lamina.state.locks import Locks

_FIND = """SELECT node.id, node.canon, node.seconds, result.output, result.layer FROM key
    JOIN node ON node.id = key.node LEFT JOIN result ON result.node = node.id WHERE key.key = ?
    ORDER BY result.output"""


class Records:
    """Implements `lamina.solver.protocol.Cache` over the state file; results are `LayerRef`s."""

    def __init__(self, state: State, locks: Locks) -> None:
        self._state = state
        self._locks = locks

    def lookup(self, key: str) -> Hit | None:
        """Return the result stored under `key`, stamped as used, or None when there is none (any more)."""
        rows = self._state.execute(_FIND, (key,)).fetchall()
        if not rows or rows[0][3] is None:
            return None
        now = time.time()
        with self._state.transaction() as connection:
            # pruned between the read above and this lock?
            rows = connection.execute(_FIND, (key,)).fetchall()
            if not rows or rows[0][3] is None:
                return None
            node = rows[0][0]
            connection.execute("UPDATE node SET used = ?, uses = uses + 1 WHERE id = ?", (now, node))
            for row in rows:
                if row[4] is not None:
                    stamp_chain(connection, row[4], now)
        return Hit(tuple(LayerRef(row[4]) for row in rows), rows[0][1], rows[0][2])

    def alias(self, key: str, existing: str) -> None:
        """Make `key` lead to the node that `existing` leads to."""
        if key == existing:
            return
        self._state.execute("INSERT OR REPLACE INTO key SELECT ?, node FROM key WHERE key = ?", (key, existing))

    def save(
        self,
        keys: Sequence[str],
        canon: str,
        results: Sequence[LayerRef],
        *,
        description: str,
        parts: Mapping[str, Any],
        seconds: float,
    ) -> None:
        """Store one piece of work under all `keys`."""
        now = time.time()
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        with self._state.transaction() as connection:
            node = connection.execute(
                "INSERT INTO node(canon, description, parts, seconds, created, used) VALUES (?, ?, ?, ?, ?, ?)",
                (canon, description, text, seconds, now, now),
            ).lastrowid
            connection.executemany(
                "INSERT INTO result VALUES (?, ?, ?)", [(node, i, r.layer) for i, r in enumerate(results)]
            )
            connection.execute("DELETE FROM pruned WHERE canon = ?", (canon,))
            for key in dict.fromkeys([*keys, canon]):
                connection.execute("INSERT OR REPLACE INTO key VALUES (?, ?)", (key, node))

    def forget(self, layer: int) -> None:
        """Take back every result that stands on a layer which cannot be had."""
        with self._state.transaction() as connection:
            connection.execute(
                """WITH RECURSIVE above(id) AS (
                    SELECT ? UNION SELECT layer.id FROM layer JOIN above ON layer.parent = above.id)
                DELETE FROM result WHERE node IN (SELECT node FROM result WHERE layer IN (SELECT id FROM above))""",
                (layer,),
            )

    def working(self, key: str, cancel: Cancel) -> AbstractContextManager[bool]:
        """Hold the right to compute `key` among all processes on this store."""
        return self._locks.hold(f"key:{key}", cancel)


def stamp_chain(connection: Any, layer: int, now: float) -> None:
    """Mark a layer and everything below it as used."""
    connection.execute(
        """WITH RECURSIVE chain(id, parent) AS (
            SELECT id, parent FROM layer WHERE id = ?
            UNION ALL SELECT layer.id, layer.parent FROM layer JOIN chain ON layer.id = chain.parent)
        UPDATE layer SET used = ? WHERE id IN (SELECT id FROM chain)""",
        (layer, now),
    )
