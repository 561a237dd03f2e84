"""What a solve would do, without doing it: keys are made and looked up, nothing runs.

A step that would run has a key but no content. What counts it by key is looked up under that; what would read files
that it is yet to make can only be found out by making them ("perhaps"). So can what needs a layer that is not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lamina.cancel import Cancel
from lamina.progress import Sink
from lamina.solver.keying import Keying
from lamina.solver.keys import fresh_canon
from lamina.solver.protocol import Cache, Hit, Miss, Preparing, Resolved, RunContext, UnknowableError, Vertex


@dataclass(frozen=True, slots=True)
class Planned:
    """What would become of one vertex.

    Attributes:
        status: "cached", "run", "perhaps" (its files decide, and are not known yet), "live" (a directory).
        origin: where a cached result is, "" for this store.
        miss: what its keys are made of, when it would run.
    """

    vertex: Vertex
    status: str
    origin: str = ""
    miss: Miss | None = None


class Planner:
    """Plans one solve.

    Args:
        vertices: every vertex by digest, inputs first.
    """

    def __init__(self, vertices: Mapping[str, Vertex], cache: Cache, sink: Sink, cancel: Cancel) -> None:
        self._vertices, self._cache, self._sink, self._cancel = vertices, cache, sink, cancel
        self._keying = Keying(vertices, cancel)
        self._resolved: dict[str, Resolved] = {}
        self._content_known: set[str] = set()

    def plan(self, targets: Iterable[str]) -> list[Planned]:
        """Return what would become of the vertices below the targets, inputs first.

        Raises:
            Error: something outside that keys depend on cannot be looked at.
        """
        wanted = set(targets)
        asked = set(wanted)
        for digest in reversed(list(self._vertices)):
            if digest in wanted:
                wanted.update(below for below, _ in self._vertices[digest].inputs)
        needed = [digest for digest in self._vertices if digest in wanted]
        for digest in needed:
            op = self._vertices[digest].op
            if isinstance(op, Preparing):
                op.prepare(RunContext(digest, self._sink, self._cancel))
        self._keying.define(needed, self._open)
        found = self._look_up(needed, asked)
        return [found.get(digest) or self._decide(digest, asked) for digest in needed]

    def _open(self, vertex: Vertex) -> Resolved:
        results = vertex.op.run([], RunContext(vertex.digest, self._sink, self._cancel))
        return Resolved(tuple(results), "", cached=False)

    def _look_up(self, needed: list[str], asked: set[str]) -> dict[str, Planned]:
        """Probe definition keys from the top; what is found is done, what is not asks for its inputs."""
        found: dict[str, Planned] = {}
        for digest in reversed(needed):
            vertex = self._vertices[digest]
            if (instant := self._keying.instant.get(digest)) is not None:
                self._resolved[digest] = instant
                self._content_known.add(digest)
                found[digest] = Planned(vertex, "live")
            elif digest in asked:
                hit = None if digest in self._keying.fresh else self._cache.lookup(self._keying.definition[digest])
                if hit is not None:
                    found[digest] = self._hit(vertex, hit)
                else:
                    asked.update(below for below, _ in vertex.inputs)
        return found

    def _hit(self, vertex: Vertex, hit: Hit) -> Planned:
        self._resolved[vertex.digest] = Resolved(hit.results, hit.canon, cached=True, seconds=hit.seconds)
        self._content_known.add(vertex.digest)
        return Planned(vertex, "cached", hit.origin)

    def _decide(self, digest: str, asked: set[str]) -> Planned:
        """Decide about a vertex whose inputs are decided; one that nobody asks for counts as found."""
        self._cancel.check()
        vertex = self._vertices[digest]
        if digest not in asked:
            return Planned(vertex, "cached")
        dependencies = self._keying.maps[digest].dependencies
        for number, (below, _) in enumerate(vertex.inputs):
            by_content = dependencies[number].by_content
            if below not in self._resolved or (by_content and below not in self._content_known):
                return Planned(vertex, "perhaps")
        try:
            exact = self._keying.exact(vertex, self._resolved)
        except UnknowableError:
            return Planned(vertex, "perhaps")
        hit = None if vertex.ignore_cache else self._cache.lookup(exact)
        if hit is not None:
            return self._hit(vertex, hit)
        canon = fresh_canon(exact, "plan") if vertex.ignore_cache else exact
        self._resolved[digest] = Resolved((), canon, cached=False)
        results = tuple(self._result(below, output) for below, output in vertex.inputs)
        definition = self._keying.definition[digest]
        parts, counted = self._keying.parts(vertex), self._keying.counted(vertex)
        return Planned(vertex, "run", miss=Miss(vertex, definition, exact, parts, counted, results))

    def _result(self, digest: str, output: int) -> object:
        results = self._resolved[digest].results
        return results[output] if output < len(results) else None
