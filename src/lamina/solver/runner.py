"""The threads around the scheduler: carries out its instructions and feeds the events back.

One thread (the caller's) owns the scheduler and does the short things (probes); exact keys and runs happen on
a pool of `jobs` threads. The first failure cancels everything else; what is running is waited for, so that no
work outlives the call.
"""

from __future__ import annotations

import queue
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial

from lamina.cancel import Cancel
from lamina.errors import CancelledError, Error
from lamina.progress import Event as ProgressEvent
from lamina.progress import Sink, VertexEvent, doing
from lamina.solver.keying import Keying
from lamina.solver.keys import fresh_canon
from lamina.solver.protocol import Cache, Hit, Miss, Outcome, Preparing, Resolved, RunContext, Vertex
from lamina.solver.runs import Shared
from lamina.solver.scheduler import Event, Failed, Finished, Instruction, Key, Missed, Probe, Scheduler

OnResolved = Callable[[Vertex, Resolved], None]
OnMiss = Callable[[Miss], str]


class Runner:
    """One solve over a graph.

    Args:
        vertices: every vertex by digest, in topological order (inputs first).
        cache: where results are looked up and stored.
        sink: takes progress events.
        cancel: stops the solve.
        jobs: how many ops may run at once.
        on_resolved: told of each vertex that is done, in the thread that finished it.
        on_miss: told of each vertex just before it runs; returns why it has to, for its progress events, or raises to
            end the solve before it does.
        settled: vertices that ignore the cache and have run in an earlier solve of the same build, so that they run
            once in it; added to.
        shared: with the other builds of this process.
    """

    def __init__(
        self,
        vertices: Mapping[str, Vertex],
        cache: Cache,
        sink: Sink,
        cancel: Cancel,
        *,
        jobs: int,
        on_resolved: OnResolved | None = None,
        on_miss: OnMiss | None = None,
        settled: MutableMapping[str, Resolved] | None = None,
        shared: Shared | None = None,
    ) -> None:
        self._shared = shared or Shared()
        self._settled: MutableMapping[str, Resolved] = settled if settled is not None else {}
        self._vertices = vertices
        self._cache = cache
        self._sink = sink
        self._cancel = Cancel(cancel)
        self._jobs = jobs
        self._on_resolved = on_resolved
        self._on_miss = on_miss
        self._needed_now: list[str] = []
        self._succeeded = False
        self._keying = Keying(vertices, self._cancel)
        self._exact: dict[str, str] = {}
        self._resolved: Mapping[str, Resolved] = {}
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._run_id = secrets.token_hex(8)
        self._prepared: dict[str, tuple[float, float]] = {}
        self._heard: dict[str, float] = {}

    def solve(self, targets: Iterable[str]) -> Mapping[str, Resolved]:
        """Resolve the targets and return every vertex that was resolved on the way.

        Raises:
            Error: the first failure of an op; CancelledError when cancelled from outside.
        """
        targets = list(targets)
        needed = self._needed_now = self._needed(targets)
        self._prepare([self._vertices[digest] for digest in needed])
        self._keying.define(needed, self._open_instant)
        scheduler = Scheduler(self._vertices, targets)
        self._resolved = scheduler.resolved
        with ThreadPoolExecutor(self._jobs, thread_name_prefix="op") as pool:
            self._drive(scheduler, pool)
        if scheduler.failure is not None:
            raise scheduler.failure.error
        self._succeeded = True
        for digest in needed:
            if digest not in scheduler.resolved and digest not in self._keying.instant:
                self._report(self._vertices[digest], time.time(), time.time(), cached=True)
        return scheduler.resolved

    def outcomes(self) -> list[Outcome]:
        """Return how every vertex of the solve went, inputs first; also after a failure."""
        found = []
        for digest in self._needed_now:
            resolved = self._resolved.get(digest)
            outcome = Outcome(
                self._vertices[digest], self._keying.definition.get(digest, ""), self._exact.get(digest, "")
            )
            if resolved is not None:
                outcome = replace(outcome, canon=resolved.canon, cached=resolved.cached, origin=resolved.origin)
            elif self._succeeded:  # nobody needed to look at it: all that stands on it was found
                outcome = replace(outcome, cached=True)
            found.append(outcome)
        return found

    @property
    def definitions(self) -> Mapping[str, str]:
        """Definition key of every vertex that was needed and has one."""
        return self._keying.definition

    def _prepare(self, needed: Iterable[Vertex]) -> None:
        """Let the ops that depend on the world outside look at it, all at once; the first failure ends the rest."""
        vertices = [vertex for vertex in needed if isinstance(vertex.op, Preparing)]
        if not vertices:
            return
        with ThreadPoolExecutor(self._jobs, thread_name_prefix="prepare") as pool:
            errors = [error for error in pool.map(self._prepare_one, vertices) if error is not None]
        if errors:
            raise next((error for error in errors if not isinstance(error, CancelledError)), errors[0])

    def _prepare_one(self, vertex: Vertex) -> BaseException | None:
        """Prepare one op; return what it raised, having told the others to stop."""
        assert isinstance(vertex.op, Preparing)
        started, clock = time.time(), time.monotonic()
        self._report(vertex, started)
        try:
            self._cancel.check()
            with doing(vertex.digest):
                vertex.op.prepare(RunContext(vertex.digest, self._sink, self._cancel))
        except BaseException as error:  # raised in the caller's thread
            text = "cancelled" if isinstance(error, CancelledError) else str(error) or type(error).__name__
            self._report(vertex, started, time.time(), error=text)
            self._cancel.cancel(error)
            return error
        self._prepared[vertex.digest] = (started, time.monotonic() - clock)
        return None

    def _drive(self, scheduler: Scheduler, pool: ThreadPoolExecutor) -> None:
        """Feed the scheduler until nothing is in flight; after a failure only wait for what runs."""
        in_flight = 0
        pending = scheduler.start()
        while True:
            while pending:
                instruction = pending.pop()
                if isinstance(instruction, Probe):
                    pending += scheduler.handle(self._carry_out(instruction))
                else:
                    pool.submit(self._carry_out_and_tell, instruction)
                    in_flight += 1
                if scheduler.failure is not None:
                    self._cancel.cancel(scheduler.failure.error)
            if in_flight == 0:
                return
            pending += scheduler.handle(self._events.get())
            in_flight -= 1
            if scheduler.failure is not None:
                self._cancel.cancel(scheduler.failure.error)

    def _needed(self, targets: list[str]) -> list[str]:
        """Return the vertices below the targets, inputs first."""
        wanted = set(targets)
        for digest in reversed(list(self._vertices)):
            if digest in wanted:
                wanted.update(below for below, _ in self._vertices[digest].inputs)
        return [digest for digest in self._vertices if digest in wanted]

    def _carry_out(self, instruction: Instruction) -> Event:
        """Do one instruction; whatever it raises becomes the failure of its vertex."""
        vertex = self._vertices[instruction.digest]
        try:
            self._cancel.check()
            if isinstance(instruction, Probe):
                return self._probe(vertex)
            if isinstance(instruction, Key):
                return self._key(vertex)
            return self._run(vertex)
        except BaseException as error:  # it ends the solve and is raised there
            return Failed(vertex.digest, error)

    def _carry_out_and_tell(self, instruction: Instruction) -> None:
        self._events.put(self._carry_out(instruction))

    def _open_instant(self, vertex: Vertex) -> Resolved:
        started = time.time()
        self._report(vertex, started)
        with doing(vertex.digest):
            results = vertex.op.run([], RunContext(vertex.digest, self._sink, self._cancel))
        self._report(vertex, started, time.time())
        return Resolved(tuple(results), "", cached=False)

    def _probe(self, vertex: Vertex) -> Event:
        if (instant := self._keying.instant.get(vertex.digest)) is not None:
            return Finished(vertex.digest, instant)
        if (settled := self._settled.get(vertex.digest)) is not None:
            return Finished(vertex.digest, settled)
        if vertex.digest in self._keying.fresh:
            return Missed(vertex.digest)
        hit = self._cache.lookup(self._keying.definition[vertex.digest])
        return self._hit(vertex, hit) if hit is not None else Missed(vertex.digest)

    def _key(self, vertex: Vertex) -> Event:
        self._exact[vertex.digest] = self._keying.exact(vertex, self._resolved)
        return self._probe_exact(vertex) or Missed(vertex.digest)

    def _probe_exact(self, vertex: Vertex) -> Event | None:
        """Look the exact key up; a hit makes the definition key another name for it."""
        if vertex.ignore_cache:
            return None
        key = self._exact[vertex.digest]
        hit = self._cache.lookup(key)
        if hit is None:
            return None
        self._cache.alias(self._keying.definition[vertex.digest], key)
        return self._hit(vertex, hit)

    def _hit(self, vertex: Vertex, hit: Hit) -> Event:
        now = time.time()
        self._report(vertex, self._heard.get(vertex.digest, now), now, cached=True)
        found = Resolved(hit.results, hit.canon, cached=True, seconds=hit.seconds, origin=hit.origin)
        return self._done(vertex, found)

    def _run(self, vertex: Vertex) -> Event:
        exact = self._exact[vertex.digest]
        with ExitStack() as waiting:
            waiting.enter_context(self._shared.runs.following(exact, vertex.digest, partial(self._hear, vertex)))
            with self._cache.working(exact, self._cancel):
                waiting.close()
                # another build, or an equal vertex of ours, may have done it between the probe and the lock
                return self._probe_exact(vertex) or self._run_locked(vertex)

    def _hear(self, vertex: Vertex, event: ProgressEvent) -> None:
        """Hand on what another build says that runs an equal step."""
        if vertex.digest not in self._heard:
            self._heard[vertex.digest] = time.time()
            self._report(vertex, self._heard[vertex.digest])
        self._sink(event)

    def _run_locked(self, vertex: Vertex) -> Event:
        started, spent = self._prepared.get(vertex.digest, (time.time(), 0.0))
        clock = time.monotonic() - spent
        exact = self._exact[vertex.digest]
        keys = (self._keying.definition[vertex.digest], exact)
        inputs = [self._resolved[below].results[output] for below, output in vertex.inputs]
        parts = self._keying.parts(vertex)
        reason = ""
        if self._on_miss is not None:
            reason = self._on_miss(Miss(vertex, *keys, parts, self._keying.counted(vertex), tuple(inputs)))
        self._report(vertex, started, reason=reason)
        try:
            telling = self._shared.runs.telling(exact, vertex.digest, self._sink)
            # who waits for steps of its own leaves the slot to them
            slots = (
                nullcontext()
                if getattr(vertex.op, "nests", False)
                else self._shared.slots.held(self._cancel.root, self._cancel)
            )
            with slots, telling as sink, doing(vertex.digest):
                results = vertex.op.run(inputs, RunContext(vertex.digest, sink, self._cancel, keys))
        except BaseException as error:
            text = "cancelled" if isinstance(error, CancelledError) else str(error) or type(error).__name__
            self._report(vertex, started, time.time(), error=text, reason=reason)
            if isinstance(error, Error):
                error.vertex = error.vertex or vertex.digest
            raise
        seconds = time.monotonic() - clock
        canon = fresh_canon(exact, self._run_id) if vertex.ignore_cache else exact
        self._cache.save(keys, canon, results, description=vertex.name, parts=parts, seconds=seconds)
        self._report(vertex, started, time.time(), reason=reason)
        resolved = Resolved(tuple(results), canon, cached=False, seconds=seconds)
        if vertex.ignore_cache:
            self._settled[vertex.digest] = resolved
        return self._done(vertex, resolved)

    def _done(self, vertex: Vertex, resolved: Resolved) -> Event:
        if self._on_resolved is not None:
            self._on_resolved(vertex, resolved)
        return Finished(vertex.digest, resolved)

    def _report(
        self,
        vertex: Vertex,
        started: float,
        completed: float | None = None,
        *,
        cached: bool = False,
        error: str = "",
        reason: str = "",
    ) -> None:
        inputs = tuple(below for below, _ in vertex.inputs)
        self._sink(
            VertexEvent(vertex.digest, vertex.name, inputs, started, completed, cached, error, vertex.source, reason)
        )
