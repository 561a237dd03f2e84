"""What happens in a build, as the messages that clients draw from, for every watcher from the beginning."""

import threading

import pytest

from lamina.api.errors import ExistsError, NotFoundError
from lamina.cancel import Cancel
from lamina.daemon.builds import MAX_LOG_BYTES, Builds
from lamina.daemon.status import MAX_MESSAGE, digest_of, status_messages
from lamina.errors import SourceRange
from lamina.progress import LogEvent, StatusEvent, VertexEvent, WarningEvent

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_events_become_messages():
    source = SourceRange("Dockerfile", 2, 3, "FROM a\nRUN b\n")
    (message,) = status_messages(
        [
            VertexEvent(A, "one", (B,), 1.5, 2.5, cached=True),
            StatusEvent(A, "layer", 3, 9, started=1.0),
            StatusEvent(A, "layer", 9, 9, started=1.0, completed=2.0),
            LogEvent(A, 2, b"out", 3.25),
            WarningEvent("", "careful", ("more",), "https://x", 1, source),
        ],
        A,
    )

    (vertex,) = message.vertexes
    assert (vertex.digest, list(vertex.inputs), vertex.cached) == (A, [B], True)
    assert (vertex.started.seconds, vertex.started.nanos) == (1, 500_000_000)
    (status,) = message.statuses
    assert (status.ID, status.current, status.completed.seconds) == ("layer", 9, 2)
    assert (message.logs[0].stream, message.logs[0].msg) == (2, b"out")
    (warning,) = message.warnings
    assert (warning.vertex, warning.short, list(warning.detail)) == (A, b"careful", [b"more"])
    assert (warning.info.filename, warning.ranges[0].start.line, warning.ranges[0].end.line) == ("Dockerfile", 2, 3)


def test_what_is_no_op_has_a_digest_too():
    assert digest_of(A) == A
    assert digest_of("internal:load").startswith("sha256:")
    assert len(digest_of("internal:load")) == 71


def test_long_logs_go_in_several_messages():
    events = [LogEvent(A, 1, b"x" * 300_000, 1.0) for _ in range(10)]
    messages = status_messages(events, A)

    assert sum(len(log.msg) for message in messages for log in message.logs) == 3_000_000
    assert max(message.ByteSize() for message in messages) < MAX_MESSAGE + 10_000


def test_nothing_is_no_message():
    assert status_messages([], A) == []


def test_watchers_hear_everything_whenever_they_come():
    builds = Builds()
    told: list[list[str]] = []

    def watch() -> None:
        build = builds.find("r", 10)
        told.append([vertex.name for message in build.watch(Cancel()) for vertex in message.vertexes])

    early = threading.Thread(target=watch)
    early.start()
    with builds.begin("r") as build:
        build.sink(VertexEvent(A, "one", started=1.0))
        build.sink(VertexEvent(A, "one", started=1.0, completed=2.0))
        build.sink(VertexEvent(A, "one", started=3.0, completed=3.0, cached=True))  # found again by a later solve
    watch()
    early.join()

    assert told == [["one", "one"], ["one", "one"]]


def test_of_endless_logs_the_oldest_are_forgotten():
    builds = Builds()
    with builds.begin("r") as build:
        for number in range(40):
            build.sink(LogEvent(A, 1, bytes([number]) * (1 << 20), 1.0))
    kept = [log.msg[0] for message in build.watch(Cancel()) for log in message.logs]

    assert kept[-1] == 39
    assert len(kept) == MAX_LOG_BYTES >> 20


def test_a_name_is_taken_while_its_build_runs():
    builds = Builds()
    with builds.begin("r"):
        with pytest.raises(ExistsError), builds.begin("r"):
            pass
        assert [build.ref for build in builds.running()] == ["r"]
    assert builds.running() == []
    with builds.begin("r"):
        pass
    with pytest.raises(NotFoundError):
        builds.find("other")


def test_closing_cancels_what_does_not_end():
    builds = Builds()
    ended = threading.Event()

    def run() -> None:
        with builds.begin("r") as build:
            started.set()
            build.cancel.wait(30)
        ended.set()

    started = threading.Event()
    thread = threading.Thread(target=run)
    thread.start()
    started.wait(10)
    builds.close(0.0)

    assert ended.wait(10)
    thread.join()
