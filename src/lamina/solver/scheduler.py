"""The scheduler: which vertex is looked up, keyed or run next. Events in, instructions out; no I/O, no locks.

States of a vertex, in order (a hit or a run ends in DONE):

    IDLE -> PROBING -> WAITING -> KEYING -> RUNNING -> DONE
             (definition  (inputs)  (exact key,  (op)
              key)                   second probe)

Invariants, checked by `check()`:
* a vertex leaves IDLE only when somebody needs it, so unneeded vertices never run;
* a vertex is WAITING while an input is not DONE, and KEYING or RUNNING only when all are;
* after a failure nothing new is started.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from lamina.solver.protocol import Resolved, Vertex


class Status(Enum):
    """Where a vertex stands."""

    IDLE = "idle"
    PROBING = "probing"
    WAITING = "waiting"
    KEYING = "keying"
    RUNNING = "running"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Probe:
    """Instruction: look the definition key up."""

    digest: str


@dataclass(frozen=True, slots=True)
class Key:
    """Instruction: all inputs are there; make the exact key and look it up."""

    digest: str


@dataclass(frozen=True, slots=True)
class Run:
    """Instruction: run the op."""

    digest: str


Instruction = Probe | Key | Run


@dataclass(frozen=True, slots=True)
class Missed:
    """Event: the last probe of this vertex (by definition or exact key) found nothing."""

    digest: str


@dataclass(frozen=True, slots=True)
class Finished:
    """Event: the vertex has a result, from the cache or by running."""

    digest: str
    resolved: Resolved


@dataclass(frozen=True, slots=True)
class Failed:
    """Event: probing, keying or running this vertex failed; the whole solve fails."""

    digest: str
    error: BaseException


Event = Missed | Finished | Failed


@dataclass(slots=True)
class _State:
    status: Status = Status.IDLE
    missing: int = 0
    waiters: list[str] = field(default_factory=list)


class Scheduler:
    """Decides for one solve. Not thread-safe: one thread feeds it.

    Args:
        vertices: every vertex by digest; inputs must be among them.
        targets: the vertices whose results are asked for.
    """

    def __init__(self, vertices: Mapping[str, Vertex], targets: Iterable[str]) -> None:
        self._vertices = vertices
        self._targets = list(dict.fromkeys(targets))
        self._states = {digest: _State() for digest in vertices}
        self.resolved: dict[str, Resolved] = {}
        self.failure: Failed | None = None

    def start(self) -> list[Instruction]:
        """Return the first instructions: the targets are needed."""
        out: list[Instruction] = []
        for digest in self._targets:
            out += self._need(digest)
        return out

    def handle(self, event: Event) -> list[Instruction]:
        """Take one event in and return what to do now."""
        if isinstance(event, Failed):
            self.failure = self.failure or event
            return []
        if isinstance(event, Finished):
            return self._finish(event)
        if self.failure is not None:
            return []
        state = self._states[event.digest]
        if state.status is Status.PROBING:
            return self._descend(event.digest)
        assert state.status is Status.KEYING, state.status
        state.status = Status.RUNNING
        return [Run(event.digest)]

    def is_done(self) -> bool:
        """Tell whether every target has a result."""
        return all(target in self.resolved for target in self._targets)

    def status(self, digest: str) -> Status:
        """Return where a vertex stands."""
        return self._states[digest].status

    def check(self) -> None:
        """Raise AssertionError when an invariant of the module does not hold."""
        for digest, state in self._states.items():
            open_inputs = {i for i, _ in self._vertices[digest].inputs if i not in self.resolved}
            if state.status is Status.WAITING:
                assert state.missing == len(open_inputs) > 0, (digest, state, open_inputs)
            if state.status in (Status.KEYING, Status.RUNNING):
                assert not open_inputs, (digest, state, open_inputs)
            assert (state.status is Status.DONE) == (digest in self.resolved), (digest, state)

    def _need(self, digest: str) -> list[Instruction]:
        state = self._states[digest]
        if state.status is not Status.IDLE:
            return []
        state.status = Status.PROBING
        return [Probe(digest)]

    def _descend(self, digest: str) -> list[Instruction]:
        """The definition key missed: need the inputs, or go on at once when they are all there."""
        state = self._states[digest]
        open_inputs = [i for i in dict.fromkeys(i for i, _ in self._vertices[digest].inputs) if i not in self.resolved]
        if not open_inputs:
            state.status = Status.KEYING
            return [Key(digest)]
        state.status, state.missing = Status.WAITING, len(open_inputs)
        out: list[Instruction] = []
        for needed in open_inputs:
            self._states[needed].waiters.append(digest)
            out += self._need(needed)
        return out

    def _finish(self, event: Finished) -> list[Instruction]:
        state = self._states[event.digest]
        if state.status is Status.DONE:
            return []
        state.status = Status.DONE
        self.resolved[event.digest] = event.resolved
        out: list[Instruction] = []
        for waiter in state.waiters:
            waiting = self._states[waiter]
            waiting.missing -= 1
            if waiting.missing == 0:
                waiting.status = Status.KEYING
                if self.failure is None:
                    out.append(Key(waiter))
        state.waiters.clear()
        return out
