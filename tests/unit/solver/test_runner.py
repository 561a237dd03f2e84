"""The solver on toy vertices that count their calls."""

import threading
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.cancel import Cancel
from lamina.errors import CancelledError, Error
from lamina.progress import VertexEvent
from lamina.solver.planner import Planner
from lamina.solver.protocol import CacheMap, Dependency, Hit, Vertex
from lamina.solver.runner import Runner


class MemoryCache:
    """A cache in a dict, with the locks the protocol asks for."""

    def __init__(self):
        self.records = {}
        self.locks = {}
        self.guard = threading.Lock()

    def lookup(self, key):
        return self.records.get(key)

    def alias(self, key, existing):
        self.records[key] = self.records[existing]

    def save(self, keys, canon, results, *, description, parts, seconds):
        for key in (*keys, canon):
            self.records[key] = Hit(tuple(results), canon, seconds)

    @contextmanager
    def working(self, key, cancel):
        with self.guard:
            lock = self.locks.setdefault(key, threading.Lock())
        with lock:
            yield False


class Toy:
    """An op that joins its inputs; `content` makes its inputs count by what they are."""

    def __init__(self, name, *, content=False, live=None, inputs=0, work=None, calls=None):
        self.name, self.content, self.live, self.work = name, content, live, work
        self.inputs = inputs
        self.calls = calls if calls is not None else []

    def cache_map(self):
        digest = None if self.live is not None else f"op:{self.name}"
        return CacheMap(digest, tuple(Dependency(by_content=self.content) for _ in range(self.inputs)))

    def content_key(self, number, result, cancel):
        return f"content:{result}"

    def run(self, inputs, context):
        if self.live is not None:
            return [self.live]
        self.calls.append(self.name)
        if self.work is not None:
            return [self.work(inputs, context)]
        return [f"{self.name}({','.join(inputs)})"]


def graph(*vertices):
    return {v.digest: v for v in vertices}


def vertex(op, *inputs, ignore_cache=False):
    op.inputs = len(inputs)
    return Vertex(op.name, op.name, op, tuple((i, 0) for i in inputs), ignore_cache)


def solve(vertices, cache, target, *, jobs=4, sink=lambda e: None, cancel=None):
    return Runner(vertices, cache, sink, cancel or Cancel(), jobs=jobs).solve([target])[target].results[0]


def test_an_unneeded_vertex_never_runs():
    calls = []
    vertices = graph(vertex(Toy("a", calls=calls)), vertex(Toy("b", calls=calls)), vertex(Toy("c", calls=calls), "a"))

    result = solve(vertices, MemoryCache(), "c")

    assert result == "c(a())"
    assert calls == ["a", "c"]


def test_a_second_solve_looks_at_nothing_below_the_hit():
    cache, calls = MemoryCache(), []
    vertices = graph(vertex(Toy("a", calls=calls)), vertex(Toy("b", calls=calls), "a"))
    solve(vertices, cache, "b")
    del cache.records[next(k for k, h in cache.records.items() if h.results == ("a()",))]

    again = solve(vertices, cache, "b")

    assert again == "b(a())"
    assert calls == ["a", "b"]


def test_independent_vertices_run_at_once():
    """Both wait for each other; run one after the other they would never end."""
    barrier = threading.Barrier(2, timeout=20)
    meet = lambda inputs, context: str(barrier.wait() >= 0)  # noqa: E731
    vertices = graph(vertex(Toy("a", work=meet)), vertex(Toy("b", work=meet)), vertex(Toy("c"), "a", "b"))

    assert solve(vertices, MemoryCache(), "c") == "c(True,True)"


def test_equal_content_makes_a_dependent_hit_although_its_definition_changed():
    cache, calls = MemoryCache(), []
    same = lambda inputs, context: "same"  # noqa: E731
    first = graph(vertex(Toy("a1", work=same)), vertex(Toy("copy", content=True, calls=calls), "a1"))
    second = graph(vertex(Toy("a2", work=same)), vertex(Toy("copy", content=True, calls=calls), "a2"))
    solve(first, cache, "copy")

    solve(second, cache, "copy")

    assert calls == ["copy"]


def test_what_stands_on_a_content_hit_hits_too():
    cache, calls = MemoryCache(), []
    for version in ("a1", "a2"):
        vertices = graph(
            vertex(Toy(version, work=lambda i, c: "same")),
            vertex(Toy("copy", content=True, calls=calls), version),
            vertex(Toy("run", calls=calls), "copy"),
        )
        solve(vertices, cache, "run")

    assert calls == ["copy", "run"]


def test_a_live_input_counts_by_what_is_read_from_it():
    cache, calls = MemoryCache(), []
    for content in ("one", "one", "two"):
        vertices = graph(vertex(Toy("live", live=content)), vertex(Toy("copy", calls=calls), "live"))
        solve(vertices, cache, "copy")

    assert calls == ["copy", "copy"]


def test_ignoring_the_cache_reruns_what_stands_on_it():
    cache, calls = MemoryCache(), []
    for ignore in (False, True, False):
        vertices = graph(vertex(Toy("a", calls=calls), ignore_cache=ignore), vertex(Toy("b", calls=calls), "a"))
        solve(vertices, cache, "b")

    assert calls == ["a", "b", "a", "b"]


def test_the_first_failure_cancels_the_rest_and_is_the_one_raised():
    started = threading.Event()

    def fail(inputs, context):
        started.wait(20)
        raise Error("broken")

    def wait(inputs, context):
        started.set()
        assert context.cancel.wait(20)
        raise CancelledError

    vertices = graph(vertex(Toy("a", work=fail)), vertex(Toy("b", work=wait)), vertex(Toy("c"), "a", "b"))

    with pytest.raises(Error, match="broken"):
        solve(vertices, MemoryCache(), "c")


def test_cancelling_from_outside_ends_the_solve():
    cancel = Cancel()

    def work(inputs, context):
        cancel.cancel()
        context.cancel.check()

    with pytest.raises(CancelledError):
        solve(graph(vertex(Toy("a", work=work))), MemoryCache(), "a", cancel=cancel)


def test_a_failed_vertex_is_not_recorded():
    cache = MemoryCache()

    def fail(inputs, context):
        raise Error("no")

    with pytest.raises(Error):
        solve(graph(vertex(Toy("a", work=fail))), cache, "a")

    assert cache.records == {}


def test_vertices_below_a_hit_are_reported_as_cached():
    cache, events = MemoryCache(), []
    vertices = graph(vertex(Toy("a")), vertex(Toy("b"), "a"))
    solve(vertices, cache, "b")

    solve(vertices, cache, "b", sink=events.append)

    assert {(e.name, e.cached) for e in events if isinstance(e, VertexEvent)} == {("a", True), ("b", True)}


def test_two_empty_stores_derive_equal_keys():
    stores = []
    for _ in range(2):
        cache = MemoryCache()
        solve(graph(vertex(Toy("live", live="x")), vertex(Toy("a"), "live"), vertex(Toy("b"), "a")), cache, "b")
        stores.append(set(cache.records))

    assert stores[0] == stores[1]


class Looking(Toy):
    """An op that looks outside before it has a key."""

    def __init__(self, name, look, **more):
        super().__init__(name, **more)
        self.look, self.seen = look, None

    def prepare(self, context):
        self.seen = self.look(context)

    def cache_map(self):
        return CacheMap(f"op:{self.name}:{self.seen}")


def test_ops_look_outside_all_at_once_and_before_any_key():
    both = threading.Barrier(2, timeout=20)

    def look(context):
        both.wait()
        return "v1"

    calls = []
    vertices = graph(
        vertex(Looking("a", look, calls=calls)), vertex(Looking("b", look, calls=calls)), vertex(Toy("c"), "a", "b")
    )

    assert solve(vertices, MemoryCache(), "c") == "c(a(),b())"
    assert sorted(calls) == ["a", "b"]


def test_what_was_seen_decides_the_key_of_everything_above():
    cache, calls = MemoryCache(), []

    def build(version):
        return solve(graph(vertex(Looking("a", lambda _: version)), vertex(Toy("b", calls=calls), "a")), cache, "b")

    for version in ("v1", "v1", "v2", "v1"):
        build(version)

    assert calls == ["b", "b"]


def test_an_op_above_nothing_wanted_does_not_look():
    seen = []
    vertices = graph(vertex(Toy("a")), vertex(Looking("b", seen.append), "a"))

    solve(vertices, MemoryCache(), "a")

    assert seen == []


def test_the_first_failure_to_look_stops_the_others_and_is_the_error():
    waiting, events = threading.Event(), []

    def fail(context):
        assert waiting.wait(20)
        raise Error("no such host")

    def wait(context):
        waiting.set()
        assert context.cancel.wait(20)
        context.cancel.check()

    vertices = graph(vertex(Looking("a", wait)), vertex(Looking("b", fail)), vertex(Toy("c"), "a", "b"))

    with pytest.raises(Error, match="no such host"):
        solve(vertices, MemoryCache(), "c", sink=events.append)
    assert {event.digest: event.error for event in events if event.error} == {"a": "cancelled", "b": "no such host"}


SHAPES = st.lists(
    st.tuples(
        st.lists(st.integers(0, 5), max_size=2),  # inputs, modulo what is there
        st.booleans(),  # counts its inputs by content
        st.booleans(),  # makes the same whatever it is given
        st.booleans(),  # edited between the builds
        st.booleans(),  # must run in the second build
    ),
    min_size=1,
    max_size=6,
)


def shaped(shapes, second, calls):
    """Return the graph of these shapes, as the first or the second build has it."""
    vertices = []
    for number, (inputs, content, constant, edited, forced) in enumerate(shapes):
        name = f"{number}{'edited' if edited and second else ''}"
        work = (lambda _inputs, _context, number=number: f"always {number}") if constant else None
        op = Toy(name, content=content, work=work, calls=calls)
        below = dict.fromkeys(i % number for i in inputs) if number else ()
        op.inputs = len(below)
        vertices.append(Vertex(str(number), name, op, tuple((str(i), 0) for i in below), forced and second))
    return graph(*vertices)


@given(SHAPES)
def test_a_plan_comes_true(shapes):
    """L23: what it calls cached does not run, what it says runs does; only "perhaps" is open."""
    cache, target = MemoryCache(), str(len(shapes) - 1)
    solve(shaped(shapes, False, []), cache, target)
    before = dict(cache.records)

    planned = Planner(shaped(shapes, True, []), cache, lambda _event: None, Cancel()).plan([target])
    assert cache.records == before
    calls = []
    solve(shaped(shapes, True, calls), cache, target)

    status = {item.vertex.name: item.status for item in planned}
    assert {name for name, word in status.items() if word == "run"} <= set(calls)
    assert not {name for name, word in status.items() if word == "cached"} & set(calls)


@given(SHAPES)
def test_every_run_is_told_before_it_and_how_it_went_after(shapes):
    """Each vertex that runs is a miss with its parts; outcomes say the same of all."""
    calls, misses = [], []
    vertices = shaped(shapes, False, calls)
    runner = Runner(
        vertices, MemoryCache(), lambda _event: None, Cancel(), jobs=2, on_miss=lambda miss: misses.append(miss) or ""
    )
    runner.solve([str(len(shapes) - 1)])

    assert sorted(miss.vertex.name for miss in misses) == sorted(calls)
    assert sorted(o.vertex.name for o in runner.outcomes() if o.canon and not o.cached) == sorted(calls)
    for miss in misses:
        kinds = {item.kind for item in miss.inputs}
        assert len(miss.inputs) == len(miss.vertex.inputs) == len(miss.parts["inputs"])
        assert kinds <= ({"content"} if miss.vertex.op.content else {"key"})


def test_whoever_watches_may_end_the_solve_before_a_step_runs():
    calls = []

    def refuse(miss):
        raise Error(f"not {miss.vertex.name}")

    vertices = graph(vertex(Toy("a", calls=calls)), vertex(Toy("b", calls=calls), "a"))
    with pytest.raises(Error, match="not a"):
        Runner(vertices, MemoryCache(), lambda _event: None, Cancel(), jobs=2, on_miss=refuse).solve(["b"])

    assert calls == []
