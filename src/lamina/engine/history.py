"""What the records of builds answer: `why`, `history`. Reads; `remove` drops records.

Opens the state file only, so that it can be asked beside running builds.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina.cache.changes import Explanation
from lamina.engine.definitions import Kept, kept_definitions
from lamina.engine.history_filter import BuildFilter
from lamina.errors import InputError
from lamina.history.logs import logged, read_log
from lamina.history.recorder import folder_of
from lamina.history.records import Build, History, Step, pick_step
from lamina.history.repeated import take_repeated
from lamina.state.db import FILE, State

if TYPE_CHECKING:
    from lamina.api.pb import otlp_pb2 as pb


@dataclass(frozen=True, slots=True)
class Why:
    """Why the steps of one build were not found in the cache.

    Attributes:
        build: the record that was asked for; one that found another's steps again has nothing to explain.
        steps: those that ran, or one that was asked for.
    """

    build: Build
    steps: tuple[Step, ...]

    @property
    def explanations(self) -> tuple[Explanation, ...]:
        """The explanations, in the order of the steps."""
        return tuple(found for step in self.steps if (found := explanation_of(step)) is not None)

    def to_json(self) -> dict[str, Any]:
        """Return everything as a JSON object."""
        build = {name: value for name, value in self.build.to_json().items() if name != "dockerfile"}
        return {"build": build, "steps": [step.to_json() for step in self.steps]}


def explanation_of(step: Step) -> Explanation | None:
    """Return why a step ran, None when it did not or nobody knows."""
    try:
        return Explanation.from_json(step.reason) if step.reason else None
    except (KeyError, TypeError):
        return None


@contextmanager
def opened(root: Path) -> Iterator[History]:
    """Open the records below `root`.

    Raises:
        InputError: no build was ever made there.
    """
    if not (root / FILE).exists():
        raise InputError("no build has left a record here", where=str(root))
    state = State(root)
    try:
        take_repeated(state, root)
        yield History(state, root)
    finally:
        state.close()


def why(root: Path, build: str = "", step: str = "", *, place: str = "") -> Why:
    """Return why steps of a build ran.

    Args:
        build: beginning of an id, `^N` for the Nth last, "" for the last.
        step: number of a step or a part of its name; "" for all that ran.
        place: with `^N` or "": count the builds of this directory, if there are any.

    Raises:
        InputError: no such build or step.
    """
    with opened(root) as history:
        found = history.find(build, place=place)
        steps = history.steps(found)
        if step:
            return Why(found, (pick_step(steps, step),))
        return Why(found, tuple(one for one in steps if not one.cached and one.definition))


def builds(root: Path, *, limit: int = 1000) -> list[Build]:
    """Return the records, newest first; none where no build was ever made."""
    if not (root / FILE).exists():
        return []
    with opened(root) as history:
        return history.builds(limit=limit)


def show(root: Path, build: str, *, place: str = "") -> tuple[Build, list[Step]]:
    """Return one record and its steps.

    Raises:
        InputError: no such build.
    """
    with opened(root) as history:
        found = history.find(build, place=place)
        return found, history.steps(found)


def logs(root: Path, build: str, step: str = "", *, place: str = "") -> Iterator[tuple[Step, Iterator[bytes]]]:
    """Iterate over the steps of a build that wrote something, or one step, each with its output.

    A build that found another's steps again shows that one's logs.

    Raises:
        InputError: no such build or step.
    """
    with opened(root) as history:
        found = history.find(build, place=place)
        source = history.origin(found) or found
        steps = history.steps(source)
        wanted = [pick_step(steps, step)] if step else steps
        folder = folder_of(root, source.id)
        have = set(logged(folder))
    known = {one.number for one in steps}
    if not step:  # a killed build has rows of what it ran only; other logs are there all the same
        wanted += [Step(n, "", f"step {n}", "", "", "", False, "", None, None, "", {}) for n in sorted(have - known)]
    for one in wanted:
        if one.number in have:
            yield one, read_log(folder, one.number)


def definition(root: Path, build: str, *, place: str = "") -> Kept:
    """Return the graphs that a build solved.

    Raises:
        InputError: no such build, or its record has none.
    """
    with opened(root) as history:
        found = history.find(build, place=place)
        source = history.origin(found) or found
    kept = kept_definitions(folder_of(root, source.id))
    if kept is None or not kept.definitions:
        raise InputError(f"the record of build {found.id} has no definition", hint="it failed before there was one")
    return kept


def trace(root: Path, build: str, *, place: str = "") -> pb.ExportTraceServiceRequest:
    """Return the spans of a build; of one that found another's steps again, that one's.

    Raises:
        InputError: no such build, or its record has none.
    """
    from lamina.engine.traced import kept_trace

    with opened(root) as history:
        found = history.find(build, place=place)
        source = history.origin(found) or found
    kept = kept_trace(folder_of(root, source.id))
    if kept is None:
        hint = "it still runs, was killed, or is older than traces" if found.status != "running" else "it still runs"
        raise InputError(f"the record of build {found.id} has no trace", hint=hint)
    return kept


def kept_blob(root: Path, digest: str) -> bytes | None:
    """Return what a record points at by digest: a trace in BuildKit's form, or what a client heard of an error."""
    if not (root / FILE).exists():
        return None
    from lamina.engine.traced import kept_failure, kept_stubs

    with opened(root) as history:
        build, what = history.pointing_at(digest)
    if not build:
        return None
    return kept_stubs(folder_of(root, build)) if what == "trace" else kept_failure(folder_of(root, build))


def export(root: Path, build: str, *, place: str = "") -> Iterator[dict[str, Any]]:
    """Iterate over a record as JSON objects: the build, its graphs, each step, the logs in pieces.

    Raises:
        InputError: no such build.
    """
    found, steps = show(root, build, place=place)
    yield {"build": found.to_json()}
    source = found.same_as or found.id
    if (kept := kept_definitions(folder_of(root, source))) is not None:
        for one in kept.definitions:
            data = base64.b64encode(one.SerializeToString(deterministic=True)).decode()
            yield {"definition": {"data": data, "changed": kept.changed}}
    for step in steps:
        yield {"step": step.to_json()}
    for step, pieces in logs(root, found.id):
        for piece in pieces:
            yield {"log": {"step": step.number, "data": piece.decode("utf-8", "backslashreplace")}}


def pin(root: Path, build: str, pinned: bool) -> None:
    """Keep a build's record whatever the caps say, or no longer.

    Raises:
        InputError: no such build, or it is still under way.
    """
    with opened(root) as history:
        found = history.find(build)
        if found.status == "running":
            raise InputError(f"the build {build} is still under way", hint="pin its record when it has ended")
        history.pin(found, pinned)


def remove(root: Path, names: Sequence[str], *, meant: BuildFilter | None = None) -> int:
    """Drop records, their graphs and logs; those of running builds stay. Return how many went.

    Args:
        names: builds; none when `meant` says which.
        meant: what to drop, of all records.

    Raises:
        InputError: no such build.
    """
    with opened(root) as history:
        if meant is not None:
            return history.remove(meant.choose(history.builds(limit=10_000_000), time.time()))
        return history.remove([history.find(name) for name in dict.fromkeys(names)])
