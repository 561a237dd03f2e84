"""The scheduler's invariants hold for any graph and any order of events."""

from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import Error
from lamina.solver.keys import make_key
from lamina.solver.protocol import Resolved, Vertex
from lamina.solver.scheduler import Failed, Finished, Key, Missed, Probe, Run, Scheduler


@st.composite
def graphs(draw):
    size = draw(st.integers(1, 12))
    vertices = {}
    for n in range(size):
        below = draw(st.lists(st.integers(0, n - 1), max_size=3)) if n else []
        vertices[str(n)] = Vertex(str(n), str(n), None, tuple((str(b), 0) for b in below))
    return vertices


@given(graphs(), st.data())
def test_any_order_of_events_keeps_the_invariants_and_finishes(vertices, data):
    target = data.draw(st.sampled_from(sorted(vertices)))
    scheduler = Scheduler(vertices, [target])
    pending, ran, probed = scheduler.start(), [], []

    while pending:
        scheduler.check()
        instruction = pending.pop(data.draw(st.integers(0, len(pending) - 1)))
        if isinstance(instruction, Probe):
            probed.append(instruction.digest)
        hit = not isinstance(instruction, Run) and data.draw(st.booleans())
        if isinstance(instruction, Run):
            ran.append(instruction.digest)
            assert all(i in scheduler.resolved for i, _ in vertices[instruction.digest].inputs)
        if hit or isinstance(instruction, Run):
            pending += scheduler.handle(Finished(instruction.digest, Resolved((), "k", hit)))
        else:
            assert isinstance(instruction, Probe | Key)
            pending += scheduler.handle(Missed(instruction.digest))

    scheduler.check()
    assert scheduler.is_done()
    assert len(set(ran)) == len(ran) and len(set(probed)) == len(probed)


@given(graphs())
def test_after_a_failure_nothing_new_starts(vertices):
    target = max(vertices, key=int)
    scheduler = Scheduler(vertices, [target])
    scheduler.start()

    scheduler.handle(Failed(target, Error("x")))

    assert scheduler.handle(Missed(target)) == []


@given(st.lists(st.lists(st.text(max_size=4), max_size=3), max_size=3))
def test_keys_tell_different_lists_apart(parts):
    flat = [[text for part in parts for text in part]]

    if flat != parts:
        assert make_key("op", parts) != make_key("op", flat)
    assert make_key("op", parts) == make_key("op", [tuple(p) for p in parts])
