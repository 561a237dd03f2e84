"""K3: progress events become spans."""

from __future__ import annotations

import pytest

from lamina.errors import CancelledError, Error, SourceRange
from lamina.progress import PULLED, LogEvent, StatusEvent, VertexEvent, discard
from lamina.tracing import collector
from lamina.tracing.collector import BuildTrace, Span
from lamina.tracing.context import new_trace


def spans_by_name(found: list[Span]) -> dict[str, Span]:
    return {span.name: span for span in found}


def test_the_latest_event_of_a_vertex_counts():
    trace = BuildTrace()
    trace.take(VertexEvent("a", "step a", started=10.0))
    trace.take(VertexEvent("a", "step a", started=10.0, completed=12.5, error="exit code 3"))
    trace.take(VertexEvent("b", "never began"))

    found = spans_by_name(trace.finish("build", None, {}))

    assert set(found) == {"build", "step a"}
    assert (found["step a"].start, found["step a"].end, found["step a"].error) == (10.0, 12.5, "exit code 3")
    assert found["step a"].parent_id == found["build"].span_id == trace.context.span_id


def test_a_vertex_that_ran_is_not_cached_because_a_later_solve_found_it():
    trace = BuildTrace()
    trace.take(VertexEvent("a", "step a", started=10.0, completed=12.0))
    trace.take(VertexEvent("a", "step a", started=13.0, completed=13.0, cached=True))

    (_, span) = trace.finish("build", None, {})

    assert span.attributes["lamina.cached"] is False and span.end == 12.0


def test_a_vertex_that_failed_may_run_again():
    trace = BuildTrace()
    trace.take(VertexEvent("a", "step a", started=10.0, completed=12.0, error="gone"))
    trace.take(VertexEvent("a", "step a", started=13.0, completed=14.0))

    (_, span) = trace.finish("build", None, {})

    assert span.error == "" and span.end == 14.0


def test_what_moves_lies_below_its_vertex():
    trace = BuildTrace()
    trace.take(VertexEvent("a", "exporting", started=10.0))
    trace.take(StatusEvent("a", "pushing layers", 0, 100, started=10.0))
    trace.take(StatusEvent("a", "pushing layers", 100, 100, started=11.0, completed=11.0))
    trace.take(StatusEvent("", "sha256:0123", 5, 0, started=10.5, way=PULLED))

    found = spans_by_name(trace.finish("build", None, {}))

    pushed = found["pushing layers"]
    assert pushed.parent_id == found["exporting"].span_id and (pushed.start, pushed.end) == (10.0, 11.0)
    assert pushed.attributes["lamina.progress.current"] == 100
    assert found["pulling sha256:0123"].parent_id == found["build"].span_id


def test_what_begins_within_a_phase_lies_below_it():
    trace = BuildTrace()
    with trace.phase("frontend"):
        trace.take(VertexEvent("m", "[internal] load metadata", started=1.0, completed=2.0))
    trace.take(VertexEvent("s", "step", started=3.0, completed=4.0))

    found = spans_by_name(trace.finish("build", None, {}))

    assert found["[internal] load metadata"].parent_id == found["frontend"].span_id
    assert found["step"].parent_id == found["frontend"].parent_id == found["build"].span_id


def test_a_phase_that_fails_says_so():
    trace = BuildTrace()
    with pytest.raises(Error), trace.phase("frontend"):
        raise Error("no such stage")

    assert spans_by_name(trace.finish("build", None, {}))["frontend"].error == "no such stage"


def test_an_error_is_told_with_its_kind_and_place():
    """K8."""
    error = Error("exit code 3", source=SourceRange("Dockerfile", 4))

    root = BuildTrace().finish("build", error, {})[0]

    ((_, name, told),) = root.events
    assert root.error == "Dockerfile:4: exit code 3" and name == "exception"
    assert told["exception.type"] == "Error" and told["code.line.number"] == 4


def test_a_cancelled_build_is_cancelled():
    assert BuildTrace().finish("build", CancelledError("the client has gone"), {})[0].error == "cancelled"


def test_a_parent_is_joined():
    parent = new_trace()
    trace = BuildTrace(parent)

    root = trace.finish("build", None, {})[0]

    assert root.parent_id == parent.span_id and trace.context.trace_id == parent.trace_id


def test_values_that_are_hidden_show_nowhere():
    """Whole words only, the longest first; short ones say nothing and would garble everything."""
    trace = BuildTrace()
    trace.take(
        VertexEvent("a", "COPY /opt/marsbase-2 prod reproduce 1 https://u:pw@h/x", started=1.0, error="marsbase")
    )
    hidden = {"WHERE": "marsbase", "FULL": "marsbase-2", "ENVIRONMENT": "prod", "ONE": "1"}

    root, span = trace.finish("build", Error("at marsbase"), {"k": "marsbase", "l": ("prod",)}, hidden)

    assert span.name == "COPY /opt/${FULL} ${ENVIRONMENT} reproduce 1 https://h/x"
    assert span.error == "${WHERE}"
    assert root.attributes == {"k": "${WHERE}", "l": ("${ENVIRONMENT}",)}
    assert "marsbase" not in repr(root)


def test_texts_become_valid_and_short():
    trace = BuildTrace()
    trace.take(VertexEvent("a", "x\udcff" + "y" * 10_000, started=1.0))

    span = trace.finish("build", None, {})[1]

    assert span.name.startswith("x?y") and len(span.name) == 400


def test_there_are_only_so_many_spans(monkeypatch: pytest.MonkeyPatch):
    """The rest is counted."""
    monkeypatch.setattr(collector, "MAX_SPANS", 3)
    trace = BuildTrace()
    for number in range(5):
        trace.take(VertexEvent(str(number), "step", started=1.0))

    found = trace.finish("build", None, {})

    assert len(found) == 4 and found[0].attributes["lamina.spans.dropped"] == 2


def test_events_go_on_and_logs_are_none_of_its_business():
    handed_on: list[object] = []
    trace = BuildTrace()
    log = LogEvent("a", 1, b"secret output", 1.0)

    trace.through(handed_on.append)(log)
    trace.through(discard)(log)

    assert handed_on == [log] and "secret output" not in repr(trace.finish("build", None, {}))
