"""I4: records of builds: written while they happen, read afterwards, dropped when there are too many."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from lamina.engine.history_filter import BuildFilter
from lamina.errors import CancelledError, Error, InputError
from lamina.history import repeated
from lamina.history.keeping import Keeping
from lamina.history.logs import LogWriter, logged, read_log
from lamina.history.project import REPEATED, note_repeated, project_hash, project_name
from lamina.history.recorder import Recorder
from lamina.history.records import Build, History, pick_step
from lamina.progress import Event, LogEvent, VertexEvent
from lamina.solver.protocol import Outcome, Vertex
from lamina.state.db import State
from lamina.state.leases import Lease

OPTIONS = {"context": "/src/app", "dockerfile_name": "Dockerfile", "target": "", "platforms": []}


@pytest.fixture
def state(tmp_path: Path):
    opened = State(tmp_path)
    yield opened
    opened.close()


def begun(state: State, lease: str = "", keep: Keeping | None = None, **options: Any) -> Recorder:
    return Recorder(state, state.root, lease, {**OPTIONS, **options}, lambda _event: None, {}, keep)


def whole_build(state: State, error: BaseException | None = None, log: bytes = b"hello\n", **options: Any) -> str:
    """Record a build of two steps: one found, one that ran and wrote something."""
    found = begun(state, **options)
    found.declare([("d1", "[a 1/2] FROM x"), ("d2", "[a 2/2] RUN y")])
    found.sink(VertexEvent("d1", "[a 1/2] FROM x", (), 1.0, 1.0, cached=True))
    found.missed("d2", "def2", "exact2", {"sentence": "because"})
    found.sink(VertexEvent("d2", "[a 2/2] RUN y", (), 1.0))
    found.sink(LogEvent("d2", 1, log, 1.5))
    found.sink(VertexEvent("d2", "[a 2/2] RUN y", (), 1.0, 3.0, error=str(error) if error else ""))
    op: Any = None
    one, two = Vertex("d1", "[a 1/2] FROM x", op), Vertex("d2", "[a 2/2] RUN y", op)
    outcomes = [Outcome(one, "def1", "", "canon1", cached=True), Outcome(two, "def2", "exact2", "exact2")]
    found.finish(error, outcomes, {"image": {"digest": "sha256:1"}})
    return found.id


def only(state: State) -> Build:
    (build,) = History(state, state.root).builds()
    return build


def test_a_build_leaves_its_steps_reasons_and_logs(state: State):
    name = whole_build(state)
    history = History(state, state.root)

    build = history.find(name[:6])
    steps = history.steps(build)

    assert (build.status, build.steps, build.cached) == ("completed", 2, 1)
    assert [(step.number, step.status, step.seconds) for step in steps] == [(1, "cached", 0.0), (2, "ran", 2.0)]
    assert steps[1].reason == {"sentence": "because"} and steps[1].exact == "exact2"
    assert b"".join(read_log(state.root / "builds" / name, 2)) == b"hello\n"


@pytest.mark.parametrize(
    ("error", "status"), [(Error("broken"), "failed"), (CancelledError("stopped"), "cancelled"), (None, "completed")]
)
def test_a_build_that_fails_or_is_cancelled_leaves_one_too(state: State, error: BaseException | None, status: str):
    whole_build(state, error)

    assert only(state).status == status


def test_a_build_whose_process_went_is_said_to_have_died(state: State, tmp_path: Path):
    begun(state, lease="0123456789ab").sink(LogEvent("d", 1, b"last words", 0.0))

    build = only(state)

    assert build.status == "died"
    assert logged(tmp_path / "builds" / build.id) == [1]


def test_a_build_under_a_live_lease_is_running_and_cannot_be_removed(state: State, tmp_path: Path):
    (tmp_path / "work").mkdir()
    lease = Lease(tmp_path / "work")
    begun(state, lease=lease.id)
    history = History(state, tmp_path)

    assert only(state).status == "running"
    assert history.remove(history.builds()) == 0
    lease.release(lambda path: [entry.unlink() for entry in path.iterdir()] and path.rmdir())


def test_a_long_log_is_kept_whole_and_small(tmp_path: Path):
    """users-ask 20: nothing is cut, however long."""
    writer = LogWriter(tmp_path)
    line = b"the same line again and again\n"
    for _ in range(3000):
        writer.write(1, line * 40)
    writer.finish(1)

    assert sum(map(len, read_log(tmp_path, 1))) == 3000 * 40 * len(line)
    assert (tmp_path / "1.log.zst").stat().st_size < 100_000


def test_a_disk_that_takes_no_log_does_not_stop_the_build(tmp_path: Path):
    (tmp_path / "builds").write_text("a file where a directory should be")
    writer = LogWriter(tmp_path / "builds" / "x")

    writer.write(1, b"lost")
    writer.close()

    assert writer.broken


def test_the_oldest_records_go_with_their_logs(state: State):
    names = [whole_build(state, keep=Keeping(builds=3)) for _ in range(5)]

    assert [build.id for build in History(state, state.root).builds()] == names[:1:-1]
    assert sorted(path.name for path in (state.root / "builds").iterdir()) == sorted(names[2:])
    assert state.execute("SELECT count(DISTINCT build) FROM step").fetchone() == (3,)


def test_a_record_older_than_the_cap_goes_when_the_next_build_ends(state: State):
    """Not what runs, and not the build that has just ended."""
    running, old = begun(state), whole_build(state)
    state.execute("UPDATE build SET started = started - 86401")

    kept = whole_build(state, keep=Keeping(age_s=86400.0))

    assert {build.id for build in History(state, state.root).builds()} == {running.id, kept}
    assert not (state.root / "builds" / old).exists()


def test_logs_over_the_cap_take_the_oldest_builds_along_but_never_the_last(state: State):
    for _ in range(3):
        last = whole_build(state, log=b"x" * 4000, keep=Keeping(log_bytes=5000))

    assert only(state).id == last


def test_a_pinned_record_stays_whatever_the_caps_say(state: State):
    history = History(state, state.root)
    pinned = whole_build(state, log=b"x" * 4000)
    history.pin(only(state), True)
    keep = Keeping(builds=1, age_s=86400.0, log_bytes=5000)
    state.execute("UPDATE build SET started = started - 86401")

    last = [whole_build(state, log=b"x" * 4000, keep=keep) for _ in range(3)][-1]
    assert [build.id for build in history.builds()] == [last, pinned]
    assert BuildFilter().choose(history.builds(), time.time()) == [history.find(last)]

    history.pin(history.find(pinned), False)
    last = whole_build(state, keep=keep)
    assert [build.id for build in history.builds()] == [last]


def test_a_cached_build_is_a_line_until_somebody_looks(state: State, tmp_path: Path):
    source = whole_build(state)
    note_repeated(str(tmp_path), OPTIONS, source, 2, 10.0)
    with (tmp_path / "builds" / REPEATED).open("ab") as file:
        file.write(b'not json\n["too", "short"]\n')

    repeated.take_repeated(state, tmp_path)
    repeated.take_repeated(state, tmp_path)
    history = History(state, tmp_path)
    build = history.find("")

    assert (build.same_as, build.cached, build.project) == (source, 2, project_hash(OPTIONS))
    assert [(step.name, step.status) for step in history.steps(build)] == [
        ("[a 1/2] FROM x", "cached"),
        ("[a 2/2] RUN y", "cached"),
    ]
    assert len(history.builds()) == 2 and not list((tmp_path / "builds").glob(f"{REPEATED}*"))


def test_lines_left_behind_by_a_crash_are_taken_once(state: State, tmp_path: Path):
    note_repeated(str(tmp_path), OPTIONS, "x", 1, 10.0)
    left = tmp_path / "builds" / f"{REPEATED}.left"
    left.write_bytes((tmp_path / "builds" / REPEATED).read_bytes())

    repeated.take_repeated(state, tmp_path)

    assert len(History(state, tmp_path).builds()) == 1


def test_only_so_many_cached_builds_are_kept_and_they_push_no_other_out(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(repeated, "MAX_REPEATED", 4)
    source = whole_build(state)
    for _ in range(9):
        note_repeated(str(tmp_path), OPTIONS, source, 2, 10.0)
    repeated.take_repeated(state, tmp_path)

    assert [build.same_as for build in History(state, tmp_path).builds()] == [source] * 4 + [""]


@pytest.mark.parametrize("text", ["^2", "zz", "ffffffffff", "^0", "'; DROP TABLE build", "01234567890123"])
def test_a_name_that_is_no_build_is_an_input_error(state: State, text: str):
    whole_build(state)

    with pytest.raises(InputError):
        History(state, state.root).find(text)


def test_builds_are_counted_from_the_last_one_of_the_directory(state: State):
    mine = [whole_build(state, context="/src/mine") for _ in range(2)]
    other = whole_build(state, context="/src/other")
    history = History(state, state.root)

    assert history.find("").id == other
    assert history.find("^2", place="/src/mine").id == mine[0]
    assert history.find("^1", place="/no/builds/here").id == other


def test_a_step_is_named_by_number_or_a_part_of_its_name(state: State):
    whole_build(state)
    steps = History(state, state.root).steps(only(state))

    assert pick_step(steps, "2").name == pick_step(steps, "RUN").name == "[a 2/2] RUN y"
    for text in ("3", "COPY", "[a"):
        with pytest.raises(InputError):
            pick_step(steps, text)


def test_a_project_is_the_place_and_what_is_built_of_it():
    changes = [{"context": "/src/b"}, {"dockerfile_name": "D"}, {"target": "t"}, {"platforms": ["linux/arm64"]}]
    hashes = {project_hash({**OPTIONS, **change}) for change in ({}, *changes)}

    assert len(hashes) == 5
    assert project_name({**OPTIONS, "target": "test", "dockerfile_name": "D"}) == "app -f D --target test"
    assert project_hash({**OPTIONS, "tags": ["a"]}) == project_hash(OPTIONS)


def test_credentials_of_a_remote_context_are_in_no_record(state: State):
    whole_build(state, context="/tmp/fetched", origin="https://me:hunter2@git.example/app.git#main")

    row = json.dumps(state.execute("SELECT * FROM build").fetchall())

    assert "hunter2" not in row and "https://git.example/app.git#main" in row


def test_events_go_on_to_the_display(state: State):
    seen: list[Event] = []
    found = Recorder(state, state.root, "", OPTIONS, seen.append, {})
    event = LogEvent("d", 1, b"x", 0.0)
    found.sink(event)
    found.finish(None, [], {})

    assert seen == [event]


def test_names_that_are_not_utf_8_leave_a_record_too(state: State, tmp_path: Path):
    strange = "/src/caf\udce9"
    source = whole_build(state, Error("cannot read caf\udce9"), context=strange)
    note_repeated(str(tmp_path), {**OPTIONS, "context": strange}, source, 2, 10.0)
    repeated.take_repeated(state, tmp_path)

    assert [build.name for build in History(state, tmp_path).builds()] == ["caf?", "caf?"]
