"""The keys of one solve: definition keys of all vertices up front, exact keys once the inputs are there.

Vertices without identity (live directories, see `CacheMap.digest`) are resolved here, before anything is looked
up: they are cheap to open, and what dependents read from them decides the definition keys above.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lamina.cancel import Cancel
from lamina.solver.keys import VERSION, contribution, make_key
from lamina.solver.protocol import CacheMap, Counted, Resolved, Result, Vertex


class Keying:
    """Makes keys for the vertices of one graph. Thread-safe after `define()`.

    Attributes:
        definition: definition key of every vertex that has an identity.
        instant: vertices without identity, already resolved.
        fresh: vertices that must not be looked up by definition, because they or something below ignore the cache.
    """

    def __init__(self, vertices: Mapping[str, Vertex], cancel: Cancel) -> None:
        self._vertices = vertices
        self._cancel = cancel
        self._content: dict[tuple[str, int], str] = {}
        self._counted: dict[str, tuple[Counted, ...]] = {}
        self._lock = threading.Lock()
        self.maps: dict[str, CacheMap] = {}
        self.definition: dict[str, str] = {}
        self.instant: dict[str, Resolved] = {}
        self.fresh: set[str] = set()

    def define(self, needed: Iterable[str], open_instant: Callable[[Vertex], Resolved]) -> None:
        """Make the definition keys of `needed` (inputs first), opening live inputs with `open_instant`."""
        for digest in needed:
            vertex = self._vertices[digest]
            cache_map = self.maps[digest] = vertex.op.cache_map()
            if vertex.ignore_cache or any(below in self.fresh for below, _ in vertex.inputs):
                self.fresh.add(digest)
            if cache_map.digest is None:
                self.instant[digest] = open_instant(vertex)
            else:
                self.definition[digest] = make_key(cache_map.digest, self._definition_parts(vertex, cache_map))

    def _definition_parts(self, vertex: Vertex, cache_map: CacheMap) -> list[tuple[str, str, str, str]]:
        parts = []
        for number, (below, output) in enumerate(vertex.inputs):
            selector = cache_map.dependencies[number].selector
            if below in self.instant:
                value = self._content_of(vertex, number, self.instant[below].results[output])
                parts.append(contribution("content", value, output, selector))
            else:
                parts.append(contribution("key", self.definition[below], output, selector))
        return parts

    def exact(self, vertex: Vertex, resolved: Mapping[str, Resolved]) -> str:
        """Return the exact key of a vertex whose inputs are all in `resolved`. May read and hash files."""
        cache_map = self.maps[vertex.digest]
        assert cache_map.digest is not None
        parts, counted = [], []
        for number, (below, output) in enumerate(vertex.inputs):
            dependency, found = cache_map.dependencies[number], resolved[below]
            if dependency.by_content or below in self.instant:
                kind, value = "content", self._content_of(vertex, number, found.results[output])
            else:
                kind, value = "key", found.canon
            parts.append(contribution(kind, value, output, dependency.selector))
            counted.append(Counted(kind, value, self._vertices[below].name))
        self._counted[vertex.digest] = tuple(counted)
        return make_key(cache_map.digest, parts)

    def counted(self, vertex: Vertex) -> tuple[Counted, ...]:
        """Return what each input added to the exact key; () before `exact`."""
        return self._counted.get(vertex.digest, ())

    def parts(self, vertex: Vertex) -> dict[str, Any]:
        """Return what the vertex's exact key was made of, as plain values to be kept with its record."""
        inputs = [[item.kind, item.value, item.name] for item in self.counted(vertex)]
        return {**self.maps[vertex.digest].parts, "keys": VERSION, "inputs": inputs}

    def _content_of(self, vertex: Vertex, number: int, result: Result) -> str:
        """Return the digest of what `vertex` reads from its input `number`, asking the op once."""
        with self._lock:
            known = self._content.get((vertex.digest, number))
        if known is None:
            known = vertex.op.content_key(number, result, self._cancel)
            with self._lock:
                self._content[(vertex.digest, number)] = known
        return known
