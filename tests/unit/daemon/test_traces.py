"""K3: spans of clients, kept within bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lamina
from lamina.api.pb import otlp_pb2 as pb
from lamina.daemon import traces as module
from lamina.daemon.traces import Traces
from lamina.engine.history import builds, trace
from lamina.tracing.context import new_trace
from lamina.tracing.messages import spans_of


class AJob:
    """What `Traces` needs of a build that is under way: its trace and its record."""

    def __init__(self, build: str) -> None:
        self.trace = self.recording = self
        self.context, self.id = new_trace(), build

    def __enter__(self) -> AJob:
        return self

    def __exit__(self, *_: object) -> None:
        return None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A state directory in which something was built."""
    context = tmp_path / "ctx"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    lamina.build(context, root=tmp_path / "root")
    return tmp_path / "root"


def a_request(trace_id: bytes, *names: str) -> pb.ExportTraceServiceRequest:
    request = pb.ExportTraceServiceRequest()
    scoped = request.resource_spans.add().scope_spans.add()
    for number, name in enumerate(names):
        scoped.spans.add(trace_id=trace_id, span_id=(number + 1).to_bytes(8, "big"), name=name)
    return request


def names(root: Path) -> list[str]:
    (build,) = builds(root)
    return [span.name for span in spans_of(trace(root, build.id)) if span.name.startswith("client")]


def test_spans_that_come_before_the_end_wait_for_it(root: Path):
    """And those that come after it are added at once."""
    traces, job = Traces(root, None), AJob(builds(root)[0].id)
    anything: Any = job
    with traces.of(anything):
        traces.export(a_request(job.context.trace_id, "client 1"), None)
        before = names(root)
    after = names(root)
    traces.export(a_request(job.context.trace_id, "client 2"), None)
    traces.export(a_request(b"x" * 16, "client of another"), None)

    assert (before, after) == ([], ["client 1"])
    assert names(root) == ["client 1", "client 2"]


def test_a_build_takes_only_so_many(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_SPANS_BUILD", 3)
    traces, job = Traces(root, None), AJob(builds(root)[0].id)
    anything: Any = job
    with traces.of(anything):
        for number in range(5):
            traces.export(a_request(job.context.trace_id, f"client {number}"), None)

    assert names(root) == ["client 0", "client 1", "client 2"]


def test_a_build_takes_only_so_many_bytes(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_BYTES_BUILD", 1000)
    traces, job = Traces(root, None), AJob(builds(root)[0].id)
    anything: Any = job
    with traces.of(anything):
        traces.export(a_request(job.context.trace_id, "client " + "x" * 2000), None)
        traces.export(a_request(job.context.trace_id, "client 1"), None)

    assert names(root) == ["client 1"]


def test_builds_that_ended_long_ago_are_forgotten(root: Path, monkeypatch: pytest.MonkeyPatch):
    traces, job = Traces(root, None), AJob(builds(root)[0].id)
    anything: Any = job
    with traces.of(anything):
        pass
    monkeypatch.setattr(module, "_KEPT_S", -1.0)

    traces.export(a_request(job.context.trace_id, "client too late"), None)

    assert names(root) == [] and traces._watched == []


def test_command_lines_are_left_out():
    """They hold the values of build arguments, and who knows what else."""
    request = a_request(b"t" * 16, "client")
    span = request.resource_spans[0].scope_spans[0].spans[0]
    for attributes in (span.attributes, request.resource_spans[0].resource.attributes):
        for key in ("process.command_args", "service.name", "command"):
            attributes.add(key=key).value.string_value = "x"

    Traces(Path(), None).export(request, None)

    assert [one.key for one in span.attributes] == ["service.name"]
    assert [one.key for one in request.resource_spans[0].resource.attributes] == ["service.name"]
