"""Reads the records of builds: lists, one whole, its steps; and drops them.

A build is named by the beginning of its id, by `^N` (the Nth last; `^1` and "" are the last), or is the last one of a
project.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lamina.errors import InputError
from lamina.history.recorder import folder_of
from lamina.layer.tree_remove import remove_tree
from lamina.state import leases
from lamina.state.db import State

KILLED = "killed"
"""The error of a step that ran when its build's process went."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a build.

    Attributes:
        number: its place among the build's steps, from 1; inputs come first.
        definition, exact, canon: its keys as far as they were made; "" for live directories and exports.
        cached: its result was found; `origin` says where, "" in this store.
        started, completed: seconds since the epoch, None when it did not come to that.
        reason: why it ran, as `lamina.cache.changes.Explanation` in JSON; {} when it did not, or nobody knows.
    """

    number: int
    vertex: str
    name: str
    definition: str
    exact: str
    canon: str
    cached: bool
    origin: str
    started: float | None
    completed: float | None
    error: str
    reason: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """How long it took."""
        if self.started is None or self.completed is None:
            return 0.0
        return max(0.0, self.completed - self.started)

    @property
    def status(self) -> str:
        """How it went: "cached", "ran", "failed", "cancelled", "killed", "running" or "not reached"."""
        if self.error:
            return self.error if self.error in ("cancelled", KILLED) else "failed"
        if self.cached:
            return "cached"
        if self.completed is not None:
            return "ran"
        return "not reached" if self.started is None else "running"

    def to_json(self) -> dict[str, Any]:
        """Return the step as a JSON object."""
        return {
            "number": self.number,
            "name": self.name,
            "digest": self.vertex,
            "status": self.status,
            "from": (self.origin or "local") if self.cached else "",
            "started": self.started,
            "completed": self.completed,
            "seconds": round(self.seconds, 6),
            "error": self.error,
            "keys": {"definition": self.definition, "exact": self.exact, "canonical": self.canon},
            "why": dict(self.reason) or None,
        }


@dataclass(frozen=True, slots=True)
class Build:
    """One build.

    Attributes:
        status: "running", "completed", "failed", "cancelled", or "died" (its process went without a word).
        steps, cached: how many steps have a key, and how many of them were found.
        same_as: id of the build whose steps it found again without looking at them, "" otherwise.
        record: options, result, warnings.
    """

    seq: int
    id: str
    project: str
    name: str
    started: float
    completed: float | None
    status: str
    error: str
    steps: int
    cached: int
    same_as: str
    log_bytes: int
    record: Mapping[str, Any]

    @property
    def pinned(self) -> bool:
        """Whether it stays whatever the caps say."""
        return bool(self.record.get("pinned"))

    @property
    def seconds(self) -> float:
        """How long it took, 0 while it runs."""
        return max(0.0, self.completed - self.started) if self.completed is not None else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the build as a JSON object, without its steps."""
        return {
            "id": self.id,
            "name": self.name,
            "project": self.project,
            "status": self.status,
            "error": self.error,
            "started": self.started,
            "completed": self.completed,
            "seconds": round(self.seconds, 6),
            "steps": self.steps,
            "cached": self.cached,
            "same_as": self.same_as or None,
            "log_bytes": self.log_bytes,
            **self.record,
        }


_BUILD = """SELECT seq, id, project, name, started, completed, status, error, steps, cached, same_as, log_bytes, record,
    lease FROM build"""


class History:
    """The records below one root. Reads; `remove` drops."""

    def __init__(self, state: State, root: Path) -> None:
        self._state, self._root = state, root
        self._live: set[str] | None = None

    def builds(self, *, place: str = "", limit: int = 1000) -> list[Build]:
        """Return builds, newest first; of one place (a directory, a URL) when it is given."""
        where: str = ""
        values: tuple[str, ...] = ()
        if place:
            where = " WHERE project IN (SELECT project FROM build WHERE json_extract(record, '$.context') = ?)"
            values = (place,)
        rows = self._state.execute(f"{_BUILD}{where} ORDER BY seq DESC LIMIT ?", (*values, limit)).fetchall()
        return [self._build(row) for row in rows]

    def past(self, project: str, name: str, before: str, limit: int = 10) -> list[Build]:
        """Return earlier builds to compare one with: of its project, else of one with the same name; newest first.

        Args:
            before: id of the build at hand.
        """
        for column, value in (("project", project), ("name", name)):
            rows = self._state.execute(
                f"{_BUILD} WHERE {column} = ? AND same_as = '' AND id <> ? ORDER BY seq DESC LIMIT ?",
                (value, before, limit),
            ).fetchall()
            if rows:
                return [self._build(row) for row in rows]
        return []

    def find(self, text: str = "", *, place: str = "") -> Build:
        """Return the build that `text` names.

        Args:
            text: beginning of an id, `^N`, "last" or "".
            place: "" and `^N` count the builds of this directory when it has any.

        Raises:
            InputError: there is none, or more than one.
        """
        counted = re.fullmatch(r"\^(\d{1,6})|last|", text)
        if counted is not None:
            number = int(counted[1] or 1)
            found = self.builds(place=place, limit=number) if place else []
            found = found or self.builds(limit=number)
            if number < 1 or len(found) < number:
                raise InputError("there is no such build" if found else "no build has left a record here", where=text)
            return found[number - 1]
        if not re.fullmatch(r"[0-9a-f]{1,10}", text):
            raise InputError(f"not a build: {text!r}", hint="`lamina history ls` shows them; ^1 is the last one")
        rows = self._state.execute(f"{_BUILD} WHERE id >= ? AND id < ? LIMIT 2", (text, text + "g")).fetchall()
        if len(rows) != 1:
            what = "more than one build begins" if rows else "no build begins"
            raise InputError(f"{what} with {text!r}", hint="`lamina history ls` shows them")
        return self._build(rows[0])

    def pointing_at(self, digest: str) -> tuple[str, str]:
        """Return the id of a build whose record names a file of this digest, and what that is; "" for none."""
        for what in ("trace", "failure"):
            found = self._state.execute(
                "SELECT id FROM build WHERE json_extract(record, ?) = ? LIMIT 1", (f"$.{what}.digest", digest)
            ).fetchone()
            if found is not None:
                return found[0], what
        return "", ""

    def origin(self, build: Build) -> Build | None:
        """Return the build that looked at the steps: itself, or the one it is the same as (None: not kept)."""
        if not build.same_as:
            return build
        row = self._state.execute(f"{_BUILD} WHERE id = ?", (build.same_as,)).fetchone()
        return self._build(row) if row is not None else None

    def steps(self, build: Build) -> list[Step]:
        """Return the steps of a build; of one that found another's again, those, all cached."""
        rows = self._state.execute(
            """SELECT number, vertex, name, definition, exact, canon, cached, origin, started, completed, error, reason
            FROM step WHERE build = ? ORDER BY number""",
            (build.seq,),
        ).fetchall()
        if rows or not build.same_as:
            steps = [_step(row) for row in rows]
            return [_killed(step) for step in steps] if build.status == "died" else steps
        source = self.origin(build)
        if source is None:
            return []
        return [
            Step(s.number, s.vertex, s.name, s.definition, s.exact, s.canon, True, "", None, None, "", {})
            for s in self.steps(source)
            if s.definition
        ]

    def remove(self, builds: Iterable[Build]) -> int:
        """Drop records and logs; those of running builds stay. Return how many went."""
        count = 0
        for build in builds:
            if build.status == "running":
                continue
            self._state.execute("DELETE FROM build WHERE seq = ?", (build.seq,))
            folder = folder_of(self._root, build.id)
            if folder.exists():
                remove_tree(folder)
            count += 1
        return count

    def pin(self, build: Build, pinned: bool) -> None:
        """Keep a record whatever the caps say, or no longer; explicit removal takes it in any case."""
        text = "UPDATE build SET record = json_set(record, '$.pinned', json(?)) WHERE seq = ?"
        self._state.execute(text, ("true" if pinned else "false", build.seq))

    def _build(self, row: Sequence[Any]) -> Build:
        died = row[6] == "running" and row[13] not in self._leases()
        return Build(*(*row[:6], "died" if died else row[6], *row[7:12], json.loads(row[12])))

    def _leases(self) -> set[str]:
        if self._live is None:
            self._live = {path.name for path, _ in leases.live(self._root / "work")}
        return self._live


def _step(row: Sequence[Any]) -> Step:
    return Step(*(*row[:6], bool(row[6]), *row[7:11], json.loads(row[11]) if row[11] else {}))


def _killed(step: Step) -> Step:
    return replace(step, error=KILLED) if step.status == "running" else step


def pick_step(steps: Sequence[Step], text: str) -> Step:
    """Return the step that `text` names: its number, else the only one with this in its name.

    Raises:
        InputError: none, or several.
    """
    if text.isdigit():
        found = [step for step in steps if step.number == int(text)]
    else:
        found = [step for step in steps if step.name == text] or [step for step in steps if text in step.name]
    if len(found) != 1:
        names = ", ".join(f"{step.number} {step.name[:40]}" for step in (found or steps)[:8])
        what = f"{len(found)} steps have {text!r} in their names" if found else f"no step has {text!r} in its name"
        raise InputError(what, hint=f"name one of: {names}")
    return found[0]
