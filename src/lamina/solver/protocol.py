"""What the solver asks of an op and of a cache.

Life of a vertex: its *definition key* is computed from the definitions below it; if the cache knows it, the
vertex is done and nothing below is looked at. Otherwise its inputs are resolved, and the *exact key* is made
of what they really are: their canonical keys, or the digests of just the content the op reads where that
decides. If the cache knows that one, its result is taken (and the definition key becomes an alias of it);
otherwise the op runs, once, under a lock that other processes wait for.

    class Echo:                       # the smallest op
        def cache_map(self): return CacheMap(digest="sha256:…", parts={"text": "hi"})
        def content_key(self, number, result, cancel): raise AssertionError
        def run(self, inputs, context): return ["hi"]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from lamina.cancel import Cancel
from lamina.errors import Error, SourceRange
from lamina.progress import Sink

Result = Any
"""What a vertex yields for one output; the solver never looks inside."""


class UnknowableError(Error):
    """What a key depends on cannot be known without doing the work."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """How one input counts in the key.

    Attributes:
        selector: what of the input matters, as text that goes into both keys.
        by_content: whether the exact key may take the digest of the content read instead of the input's identity.
    """

    selector: str = ""
    by_content: bool = False


@dataclass(frozen=True, slots=True)
class CacheMap:
    """An op's statement of what its result depends on.

    Attributes:
        digest: everything about the op itself; None when it has no identity of its own (a live directory): then
            only the content that dependents read from it counts, and the op is run at once and never cached.
        dependencies: one for each input, in order.
        parts: what the digest was made of, kept with the record so that a miss can be explained.
    """

    digest: str | None
    dependencies: tuple[Dependency, ...] = ()
    parts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunContext:
    """What an op gets while it runs.

    Attributes:
        vertex: digest of its vertex, for progress events.
        sink: where progress events go.
        cancel: checked in loops, closes what blocks.
        keys: the keys its result will be stored under.
    """

    vertex: str
    sink: Sink
    cancel: Cancel
    keys: tuple[str, ...] = ()


class Op(Protocol):
    """What one vertex does. Implementations are called from several threads, one call per method and build."""

    def cache_map(self) -> CacheMap:
        """Return what the result depends on. Cheap and pure."""

    def content_key(self, number: int, result: Result, cancel: Cancel) -> str:
        """Return the digest of what the op reads from input `number`; asked only where `by_content`."""

    def run(self, inputs: Sequence[Result], context: RunContext) -> list[Result]:
        """Do the work and return one result for each output."""


@runtime_checkable
class Preparing(Protocol):
    """An op that must look outside (ask a server) before it can say what its result depends on."""

    def prepare(self, context: RunContext) -> None:
        """Look, so that `cache_map` is cheap. Called once, in parallel with others, before any key is made."""


@runtime_checkable
class Listing(Protocol):
    """An op that can tell what a content key of it was made of."""

    def listing(self, number: int, result: Result, cancel: Cancel) -> Iterable[tuple[str, ...]]:
        """Iterate over a row for everything that `content_key` digests of this input. Asked only on a miss."""


@dataclass(frozen=True, slots=True)
class Vertex:
    """A node of the graph.

    Attributes:
        digest: sha256 of its op's bytes; equal work has equal digests.
        inputs: digest and output number of each input.
        ignore_cache: run it even if the cache knows it.
    """

    digest: str
    name: str
    op: Op
    inputs: tuple[tuple[str, int], ...] = ()
    ignore_cache: bool = False
    source: SourceRange | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A stored result: one value for each output, and the key that dependents build on.

    Attributes:
        origin: where it comes from, "" for this store.
    """

    results: tuple[Result, ...]
    canon: str
    seconds: float = 0.0
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Counted:
    """What one input added to the exact key of a vertex.

    Attributes:
        kind: "key" for an identity, "content" for a digest of what is read.
        value: the identity or digest.
        name: name of the vertex below.
    """

    kind: str
    value: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Miss:
    """A vertex that is about to run, and all that its keys were made of.

    Attributes:
        definition, exact: its keys; neither led to a result that may be used.
        parts: the op's `CacheMap.parts` and its inputs, as they will be kept with the record.
        inputs: what each input added to the exact key.
        results: what the inputs are, for `Listing.listing`.
    """

    vertex: Vertex
    definition: str
    exact: str
    parts: Mapping[str, Any]
    inputs: tuple[Counted, ...]
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one vertex went in a solve: its keys as far as they were made, and its result's key when there is one."""

    vertex: Vertex
    definition: str = ""
    exact: str = ""
    canon: str = ""
    cached: bool = False
    origin: str = ""


class Cache(Protocol):
    """Where results of earlier work are found. Thread-safe."""

    def lookup(self, key: str) -> Hit | None:
        """Return the usable result stored under `key`, stamped as used, or None."""

    def alias(self, key: str, existing: str) -> None:
        """Make `key` another name for the node that `existing` leads to."""

    def save(
        self,
        keys: Sequence[str],
        canon: str,
        results: Sequence[Result],
        *,
        description: str,
        parts: Mapping[str, Any],
        seconds: float,
    ) -> None:
        """Store a result under `keys`, replacing what they led to. Its content is on disk before this is called."""

    def working(self, key: str, cancel: Cancel) -> AbstractContextManager[bool]:
        """Hold the right to compute `key` among all processes; yields True when it had to be waited for."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A vertex that is done: its results, the key its dependents' exact keys build on, and how it came."""

    results: tuple[Result, ...]
    canon: str
    cached: bool
    seconds: float = 0.0
    origin: str = ""
