"""Brings the records of cached builds into the state file.

Such a build only appends a line to `<root>/builds/repeated` (see `note_repeated`). Whoever opens the records next takes
the file aside by a rename, makes rows of its lines and removes it. An id that is there already is passed over, so that
a file that was left behind by a crash is taken again without harm. Lines that make no sense are dropped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from lamina.errors import StorageError
from lamina.history.project import REPEATED, new_id
from lamina.state.db import State

MAX_REPEATED = 1000
"""Records of cached builds that are kept; each is a small row."""


def take_repeated(state: State, root: Path) -> None:
    """Make rows of the lines that cached builds left. What cannot be read or written now is left for the next time."""
    folder = root / "builds"
    try:
        os.rename(folder / REPEATED, folder / f"{REPEATED}.{new_id()}")
    except OSError:
        pass  # nothing new, most of the time
    for path in sorted(folder.glob(f"{REPEATED}.*")):
        try:
            _insert(state, [row for line in path.read_bytes().splitlines() if (row := _row(line)) is not None])
            path.unlink(missing_ok=True)
        except (OSError, StorageError):
            return


def _insert(state: State, rows: list[tuple[Any, ...]]) -> None:
    with state.transaction() as connection:
        connection.executemany(
            """INSERT OR IGNORE INTO build(id, project, name, started, completed, steps, cached, same_as, status)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'completed')""",
            rows,
        )
        connection.execute(
            """DELETE FROM build WHERE seq IN (SELECT seq FROM build WHERE same_as <> ''
            ORDER BY seq DESC LIMIT -1 OFFSET ?)""",
            (MAX_REPEATED,),
        )


def _row(line: bytes) -> tuple[Any, ...] | None:
    kinds = (str, str, str, float, float, int, int, str)
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, list) or len(row) != len(kinds):
        return None
    return tuple(row) if all(isinstance(value, kind) for value, kind in zip(row, kinds, strict=True)) else None
