"""Writes the record of one build while it happens.

In: progress events (as a sink in front of the display's), the steps' names in order, misses with their reasons, and how
it ended. Out: rows of `build` and `step`, and log files. Order: the build's row when it begins, the row of a step that
runs when it begins and when it ends, all others in one transaction at the end. A build that is killed leaves what it
got to; its row says "running" under a lease that nobody holds.

Must not: change what the build does. Only the first row may fail with an error; later ones are dropped silently.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lamina.errors import CancelledError, StorageError
from lamina.history.keeping import Keeping
from lamina.history.logs import LogWriter
from lamina.history.project import new_id, project_hash, project_name, project_place
from lamina.history.repeated import take_repeated
from lamina.layer.tree_remove import remove_tree
from lamina.progress import Event, LogEvent, Sink, VertexEvent, WarningEvent
from lamina.solver.protocol import Outcome
from lamina.state.db import State

_MAX_TEXT = 4000


class Recorder:
    """The record of one build that is under way. A sink: `sink` hands every event on to `outer`.

    Args:
        lease: name of the build's work directory.
        options: of the build, by field name, as `lamina.history.project` reads them.
        record: what else to remember, as JSON values without secrets.
        keep: how much of the records stays.

    Attributes:
        id: names the build to people.
    """

    def __init__(
        self,
        state: State,
        root: Path,
        lease: str,
        options: Mapping[str, Any],
        outer: Sink,
        record: Mapping[str, Any],
        keep: Keeping | None = None,
    ) -> None:
        self._keep = keep or Keeping()
        self.id = new_id()
        self.project, self.name = project_hash(options), project_name(options)
        self._state, self._outer = state, outer
        self._folder = root / "builds" / self.id
        self._root = root / "builds"
        self._logs = LogWriter(self._folder)
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}
        self._events: dict[str, VertexEvent] = {}
        self._keys: dict[str, tuple[str, str]] = {}
        self._reasons: dict[str, str] = {}
        self._warnings: list[str] = []
        self._beside: dict[str, int] = {}
        self._record = {"context": project_place(options), **record}
        row = (self.id, self.project, self.name, lease, time.time(), _json(self._record))
        take_repeated(state, root)
        self._seq = state.execute(
            "INSERT INTO build(id, project, name, lease, started, status, record) VALUES (?, ?, ?, ?, ?, 'running', ?)",
            row,
        ).lastrowid

    def describe(self, options: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Say anew what is built: of a build for a client, that is known only when its frontend has looked."""
        self.project, self.name = project_hash(options), project_name(options)
        with self._lock:
            self._record = {"context": project_place(options), **record}
            row = (self.project, self.name, _json(self._record), self._seq)
        self._try([], ("UPDATE build SET project = ?, name = ?, record = ? WHERE seq = ?", row))

    def beside(self, what: str, size_bytes: int) -> None:
        """Say how much of something lies in the record's folder beside the logs: it counts with them for the cap."""
        self._beside[what] = size_bytes

    def declare(self, steps: Sequence[tuple[str, str]]) -> None:
        """Say what the steps are: digest and name of each, inputs first. They are numbered in this order."""
        with self._lock:
            for digest, _ in steps:
                self._numbers.setdefault(digest, len(self._numbers) + 1)

    def missed(self, digest: str, definition: str, exact: str, reason: Mapping[str, Any] | None) -> None:
        """Note that a step is about to run, its keys, and why."""
        with self._lock:
            self._keys[digest] = (definition, exact)
            if reason is not None:
                self._reasons[digest] = _json(reason)

    def sink(self, event: Event) -> None:
        """Take one event and hand it on."""
        if isinstance(event, LogEvent):
            self._logs.write(self._number(event.vertex), event.data)
        elif isinstance(event, VertexEvent):
            self._vertex(event)
        elif isinstance(event, WarningEvent):
            self._warnings.append(event.short)
        self._outer(event)

    @property
    def warnings(self) -> int:
        """How many warnings there were."""
        return len(self._warnings)

    def counts(self, digests: Iterable[str]) -> tuple[int, int]:
        """Return how many of these steps ran to their end, and how many failed by themselves."""
        with self._lock:
            events = [event for digest in digests if (event := self._events.get(digest)) is not None]
        ended = [event for event in events if event.completed is not None and not event.cached]
        failed = sum(1 for event in ended if event.error and event.error != "cancelled")
        return sum(1 for event in ended if not event.error), failed

    def _number(self, digest: str) -> int:
        with self._lock:
            return self._numbers.setdefault(digest, len(self._numbers) + 1)

    def _vertex(self, event: VertexEvent) -> None:
        number = self._number(event.digest)
        with self._lock:
            known = self._events.get(event.digest)
            if known is not None and known.completed is not None and not known.error:
                return  # it ran, and was found when the solve began anew
            self._events[event.digest] = event
        if event.completed is not None:
            self._logs.finish(number)
        if event.digest in self._keys and (known is None or event.completed is not None):
            self._try([self._row(event.digest, Outcome(_NOBODY))])  # of a killed build this is all there will be

    def finish(self, error: BaseException | None, outcomes: Sequence[Outcome], result: Mapping[str, Any]) -> None:
        """Write the rest: how every step went, how the build ended, what came out."""
        self._logs.close()
        by_digest = {outcome.vertex.digest: outcome for outcome in outcomes}
        nothing = Outcome(_NOBODY)
        rows = [self._row(digest, by_digest.get(digest, nothing)) for digest in self._numbers]
        status = "completed" if error is None else "cancelled" if _is_cancel(error) else "failed"
        text = "" if error is None else _storable(str(error) or type(error).__name__)
        if self._logs.broken:
            self._record["logs"] = f"incomplete: {self._logs.broken}"
        record = _json({**self._record, **result, "warnings": self._warnings})
        counted = [row for row in rows if row[4]]  # those with a key: no live directories, no exports
        self._try(
            rows,
            (
                """UPDATE build SET completed = ?, status = ?, error = ?, steps = ?, cached = ?, log_bytes = ?,
                record = ? WHERE seq = ?""",
                (
                    *(time.time(), status, text, len(counted), sum(row[7] for row in counted)),
                    *(self._logs.size_bytes + sum(self._beside.values()), record, self._seq),
                ),
            ),
        )

    def _row(self, digest: str, outcome: Outcome) -> tuple[Any, ...]:
        event = self._events.get(digest)
        definition, exact = self._keys.get(digest, ("", ""))
        name = event.name if event is not None else outcome.vertex.name
        return (
            self._seq,
            self._numbers[digest],
            digest,
            _storable(name),
            outcome.definition or definition,
            outcome.exact or exact,
            outcome.canon,
            int(event.cached if event is not None and event.completed is not None else outcome.cached),
            outcome.origin,
            event.started if event is not None else None,
            event.completed if event is not None else None,
            _storable(event.error) if event is not None else "",
            self._reasons.get(digest, ""),
        )

    def _try(self, rows: Sequence[tuple[Any, ...]], update: tuple[str, tuple[Any, ...]] | None = None) -> None:
        """Write rows in one transaction; what cannot be recorded does not fail the build."""
        try:
            with self._state.transaction() as connection:
                connection.executemany(f"INSERT OR REPLACE INTO step VALUES ({', '.join('?' * 13)})", rows)
                if update is not None:
                    connection.execute(*update)
                doomed = _over_the_cap(connection, self._keep, self._seq) if update is not None else []
        except StorageError:
            return
        if update is not None:
            for name in doomed:
                if (self._root / name).exists():
                    remove_tree(self._root / name)


class _Nobody:
    """Stands for the vertex of an outcome that is not known."""

    digest = name = ""


_NOBODY: Any = _Nobody()


def _storable(text: str) -> str:
    """Return text as the state file can hold it: not too long, and valid Unicode."""
    return text[:_MAX_TEXT].encode("utf-8", "replace").decode()


def _is_cancel(error: BaseException) -> bool:
    return isinstance(error, (CancelledError, KeyboardInterrupt))


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _over_the_cap(connection: Any, keep: Keeping, own: int | None) -> list[str]:
    """Drop the oldest records over the caps, but for `own` and pinned ones, and return their ids; in a transaction."""
    doomed = [
        row[0]
        for row in connection.execute(
            "SELECT seq FROM build WHERE same_as = '' ORDER BY seq DESC LIMIT -1 OFFSET ?", (max(1, keep.builds),)
        )
    ]
    if keep.age_s:
        old = "SELECT seq FROM build WHERE started < ? AND seq <> ? AND status <> 'running'"
        doomed += [row[0] for row in connection.execute(old, (time.time() - keep.age_s, own))]
    total = connection.execute("SELECT total(log_bytes) FROM build").fetchone()[0]
    if total > keep.log_bytes:
        newest = connection.execute("SELECT max(seq) FROM build").fetchone()[0]
        for seq, size in connection.execute("SELECT seq, log_bytes FROM build ORDER BY seq").fetchall():
            if total <= keep.log_bytes or seq == newest:
                break
            if _is_pinned(connection, seq):
                continue
            total -= size
            doomed.append(seq)
    ids = []
    for seq in dict.fromkeys(doomed):
        if _is_pinned(connection, seq):
            continue
        ids += [row[0] for row in connection.execute("SELECT id FROM build WHERE seq = ?", (seq,))]
        connection.execute("DELETE FROM build WHERE seq = ?", (seq,))
    return ids


def _is_pinned(connection: Any, seq: int) -> bool:
    text = "SELECT json_extract(record, '$.pinned') FROM build WHERE seq = ?"
    return bool(connection.execute(text, (seq,)).fetchone()[0])


def folder_of(root: Path, build: str) -> Path:
    """Return where a build's logs lie."""
    return root / "builds" / os.path.basename(build)
