"""Equal steps of two builds in one process: one runs, both hear it."""

import threading

import pytest
from tests.unit.solver.test_runner import MemoryCache, Toy, graph, vertex

from lamina.cancel import Cancel
from lamina.errors import CancelledError
from lamina.progress import LogEvent, StatusEvent, VertexEvent
from lamina.solver.runner import Runner
from lamina.solver.runs import MAX_PAST_BYTES, Runs, Shared
from lamina.solver.slots import Slots


def log(of, text):
    return LogEvent(of, 1, text, 1.0)


def test_a_follower_hears_what_was_said_before_and_after_it_came_under_its_own_vertex():
    runs, first, second = Runs(), [], []

    with runs.telling("k", "a", first.append) as tell:
        tell(log("a", b"one"))
        tell(StatusEvent("a", "layer", 5, 10))
        with runs.following("k", "b", second.append):
            tell(log("a", b"two"))
            tell(log("another", b"not of this step"))
        tell(log("a", b"three"))

    assert second == [log("b", b"one"), StatusEvent("b", "layer", 5, 10), log("b", b"two")]
    assert len(first) == 5
    assert runs._runs == {}


def test_who_waits_for_another_key_hears_nothing():
    runs, heard = Runs(), []

    with runs.telling("k", "a", lambda _: None) as tell, runs.following("other", "b", heard.append):
        tell(log("a", b"x"))

    assert heard == []


def test_what_a_runner_said_that_failed_is_not_told_to_the_next_ones_followers():
    runs, heard = Runs(), []

    with runs.following("k", "b", lambda _: None):
        with pytest.raises(CancelledError), runs.telling("k", "a", lambda _: None) as tell:
            tell(log("a", b"half"))
            raise CancelledError("stopped")
        with runs.following("k", "c", heard.append):
            pass

    assert heard == []


def test_of_the_past_only_the_last_mebibyte_is_kept():
    runs, heard = Runs(), []

    with runs.telling("k", "a", lambda _: None) as tell:
        for number in range(40):
            tell(log("a", bytes([number]) * 65536))
        with runs.following("k", "b", heard.append):
            pass

    assert sum(len(event.data) for event in heard) == MAX_PAST_BYTES
    assert heard[-1].data[0] == 39


def test_a_build_that_waits_for_anothers_step_shows_its_log_and_takes_its_result():
    """B18: the second client sees the step start, what it says, and that it ends."""
    cache, shared, calls = MemoryCache(), Shared(), []
    running, heard, seen = threading.Event(), threading.Event(), []

    def work(inputs, context):
        context.sink(log(context.vertex, b"early"))
        running.set()
        assert heard.wait(20)
        return "done"

    def second(event):
        seen.append(event)
        if isinstance(event, LogEvent):
            heard.set()

    def solve(sink):
        op = Toy("step", work=work, calls=calls)
        graph_of = graph(vertex(op))
        Runner(graph_of, cache, sink, Cancel(), jobs=2, shared=shared).solve(["step"])

    thread = threading.Thread(target=solve, args=(lambda _: None,))
    thread.start()
    assert running.wait(20)
    solve(second)
    thread.join(20)

    assert calls == ["step"]
    assert [type(event) for event in seen] == [VertexEvent, LogEvent, VertexEvent]
    assert seen[1].data == b"early"
    assert seen[2].cached and seen[2].started == seen[0].started


def test_a_step_that_waits_for_steps_of_its_own_leaves_its_slot_to_them():
    shared = Shared(Slots(1))
    inner = graph(vertex(Toy("inner")))

    def nested(inputs, context):
        runner = Runner(inner, MemoryCache(), context.sink, context.cancel, jobs=1, shared=shared)
        return runner.solve(["inner"])["inner"].results[0]

    op = Toy("outer", work=nested)
    op.nests = True
    runner = Runner(graph(vertex(op)), MemoryCache(), lambda _: None, Cancel(), jobs=1, shared=shared)
    assert runner.solve(["outer"])["outer"].results == ("inner()",)
