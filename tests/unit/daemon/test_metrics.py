"""K4: what Prometheus is told, read by its own parser."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lamina.api.errors import NotFoundError
from lamina.daemon.builds import Builds
from lamina.daemon.metrics import Metrics
from lamina.daemon.sessions import Sessions
from lamina.daemon.tally import Ended, Tally
from lamina.engine.recording import Figures
from lamina.errors import CancelledError, Error, InputError
from lamina.progress import PULLED, PUSHED, RECEIVED, StatusEvent, discard


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    """Return one figure as Prometheus reads it."""
    text = generate_latest(metrics.registry).decode()
    found = [
        one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
        if one.name == name and one.labels == labels
    ]
    assert len(found) == 1, f"{name}{labels}: {found}"
    return found[0]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(Builds(), Sessions())


def test_builds_are_counted_by_how_they_ended(metrics: Metrics):
    for error in (None, None, Error("x"), CancelledError()):
        metrics.ended(Ended(2.0, error, Figures()))

    assert [sample(metrics, "lamina_builds_total", status=s) for s in ("completed", "failed", "cancelled")] == [2, 1, 1]
    assert sample(metrics, "lamina_build_duration_seconds_count") == 4
    assert sample(metrics, "lamina_build_duration_seconds_sum") == 8
    assert sample(metrics, "lamina_build_duration_seconds_bucket", le="1.0") == 0
    assert sample(metrics, "lamina_build_duration_seconds_bucket", le="5.0") == 4


def test_steps_are_counted_by_where_they_came_from(metrics: Metrics):
    """Those of builds that failed, too."""
    metrics.ended(Ended(1.0, None, Figures(5, 3, 2, 0, 1)))
    metrics.ended(Ended(1.0, Error("x"), Figures(4, 1, 1, 1, 0)))

    assert [sample(metrics, "lamina_build_steps_total", result=r) for r in ("cached", "run", "failed")] == [4, 3, 1]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (None, "success", ""),
        (InputError("x"), "failure", "InvalidArgument"),
        (NotFoundError("x"), "failure", "NotFound"),
        (CancelledError(), "failure", "Canceled"),
        (RuntimeError("x"), "failure", "Internal"),
    ],
)
def test_buildkitds_names_mean_what_they_mean_there(
    metrics: Metrics, error: BaseException | None, status: str, code: str
):
    """Dashboards made for it work: same names, labels and kinds of steps."""
    metrics.ended(Ended(3.0, error, Figures(5, 3, 1, 1, 2)))

    assert sample(metrics, "buildkit_builds_total", status=status, error_code=code) == 1
    kinds = ("completed", "cached", "total", "warnings")
    assert [sample(metrics, "buildkit_builds_steps_total", kind=kind) for kind in kinds] == [4, 3, 5, 2]
    assert sample(metrics, "buildkit_build_duration_seconds_sum", status=status) == 3


def test_every_series_is_there_from_the_beginning(metrics: Metrics):
    """So that rates see the first build."""
    assert sample(metrics, "lamina_builds_total", status="failed") == 0
    assert sample(metrics, "lamina_transferred_bytes_total", direction="pulled") == 0
    assert sample(metrics, "lamina_builds_running") == sample(metrics, "lamina_sessions") == 0


def test_bytes_are_counted_once_though_told_many_times(metrics: Metrics):
    """What is pulled, pushed, and received from the client."""
    tally = Tally()
    sink = tally.through(discard)
    for size in (10, 70, 100):
        sink(StatusEvent("a", "sha256:0123", size, 100, way=PULLED))
    sink(StatusEvent("b", "sha256:4567", 5, 5, way=PULLED))
    sink(StatusEvent("", "sha256:0123", 40, 100, way=PUSHED))
    sink(StatusEvent("c", "transferring context:", 300, 0, way=RECEIVED))
    sink(StatusEvent("d", "transferring context:", 20, 0, way=RECEIVED))  # the directory once more
    sink(StatusEvent("e", "sha256:0123", 1000, 1000))

    metrics.ended(Ended(1.0, None, Figures(), tally.moved))

    directions = ("pulled", "pushed", "received")
    assert [sample(metrics, "lamina_transferred_bytes_total", direction=d) for d in directions] == [105, 40, 320]
