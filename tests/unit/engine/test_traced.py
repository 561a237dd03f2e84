"""K3: traces that are kept with the records of builds."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

import lamina
from lamina.api.pb import otlp_pb2 as pb
from lamina.engine import traced
from lamina.engine.history import builds, kept_blob, remove, trace
from lamina.engine.traced import add_spans, keep_trace, kept_stubs, kept_trace
from lamina.errors import InputError
from lamina.history.recorder import folder_of
from lamina.tracing.messages import spans_of


def a_request(*names: str) -> pb.ExportTraceServiceRequest:
    request = pb.ExportTraceServiceRequest()
    scoped = request.resource_spans.add().scope_spans.add()
    for name in names:
        scoped.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name=name)
    return request


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A state directory in which something was built."""
    context = tmp_path / "ctx"
    context.mkdir()
    (context / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    lamina.build(context, root=tmp_path / "root")
    return tmp_path / "root"


def test_what_was_kept_is_found(tmp_path: Path):
    request = a_request("a", "b")

    told = keep_trace(tmp_path / "record", request)

    stubs = kept_stubs(tmp_path / "record")
    assert kept_trace(tmp_path / "record") == request
    assert stubs is not None and told["size"] == len(stubs) and told["spans"] == 2
    assert sum(path.stat().st_size for path in (tmp_path / "record").iterdir()) == told["kept_bytes"]


@pytest.mark.parametrize("data", [b"", b"garbage", zlib.compress(b"\xff\xff"), zlib.compress(b"x")[:-3]])
def test_a_damaged_trace_is_none(tmp_path: Path, data: bytes):
    keep_trace(tmp_path, a_request("a"))
    (tmp_path / traced.FILE).write_bytes(data)

    assert kept_trace(tmp_path) is None


def test_a_trace_that_would_fill_the_memory_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    keep_trace(tmp_path, a_request("a" * 10_000))
    monkeypatch.setattr(traced, "MAX_BYTES", 1000)

    assert kept_trace(tmp_path) is None
    assert keep_trace(tmp_path / "other", a_request("a" * 10_000)) == {"spans": 1}
    assert not (tmp_path / "other").exists()


def test_the_record_says_where_its_trace_is(root: Path):
    (build,) = builds(root)

    kept = trace(root, build.id)

    assert {span.trace_id.hex() for span in spans_of(kept)} == {build.record["trace"]["id"]}
    assert kept_blob(root, build.record["trace"]["digest"]) == kept_stubs(folder_of(root, build.id))
    assert kept_blob(root, "sha256:" + "0" * 64) is None


def test_spans_are_added_to_a_record_without_touching_the_rest_of_it(root: Path):
    (before,) = builds(root)

    add_spans(root, before.id, a_request("of a client").resource_spans)

    (after,) = builds(root)
    stubs = kept_stubs(folder_of(root, after.id))
    assert stubs is not None and json.loads(stubs.splitlines()[-1])["Name"] == "of a client"
    assert after.record["trace"]["spans"] == before.record["trace"]["spans"] + 1
    assert after.record["trace"]["id"] == before.record["trace"]["id"]
    assert {**after.record, "trace": 0} == {**before.record, "trace": 0}
    assert after.log_bytes > before.log_bytes


def test_nothing_comes_back_of_a_record_that_was_removed(root: Path):
    (build,) = builds(root)
    remove(root, [build.id])

    add_spans(root, build.id, a_request("late").resource_spans)

    assert not folder_of(root, build.id).exists()


def test_a_record_without_a_trace_says_so(root: Path):
    """Of a build that was killed, or made before there were traces."""
    (build,) = builds(root)
    (folder_of(root, build.id) / traced.FILE).unlink()

    with pytest.raises(InputError, match="has no trace"):
        trace(root, build.id)
