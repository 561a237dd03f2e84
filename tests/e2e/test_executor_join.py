"""Further processes in a container that runs: what they share with its first process, and how they end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e.executor_fixtures import Bench, open_bench, require
from lamina.cancel import Cancel
from lamina.errors import CancelledError, InputError
from lamina.executor.step import StepResult

pytestmark = pytest.mark.e2e


@pytest.fixture(params=["crun", "runc"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    yield from open_bench(tmp_path, require(request.param))


class Leader:
    """A container's first process, which ends when `cancel` says so or its script does."""

    def __init__(self, bench: Bench, script: str) -> None:
        self.cancel = Cancel()
        self.result: StepResult | None = None
        self.said = threading.Event()
        self.output = b""
        step = bench.step("sh", "-c", script, name="one")
        self._thread = threading.Thread(target=self._run, args=(bench, step))
        self._thread.start()

    def _run(self, bench: Bench, step: object) -> None:
        def collect(_fd: int, data: bytes) -> None:
            self.output += data
            self.said.set()

        try:
            self.result = bench.executor.run(step, collect, self.cancel)  # type: ignore[arg-type]
        except CancelledError:
            pass

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


@contextmanager
def leader(bench: Bench, script: str = "echo mine > /data/f; echo up; sleep 1000") -> Iterator[Leader]:
    found = Leader(bench, script)
    try:
        assert found.said.wait(30)
        yield found
    finally:
        found.cancel.cancel()
        found.join()


def test_it_sees_what_the_first_process_wrote_and_its_processes(bench: Bench) -> None:
    with leader(bench):
        assert bench.sh("cat /data/f; tr '\\0' ' ' < /proc/1/cmdline", joins="one") == "mine\nsleep 1000 "


def test_it_may_come_before_the_first_process_has_begun(bench: Bench) -> None:
    first = Leader(bench, "sleep 1000")
    try:
        while True:
            try:
                assert bench.sh("echo here", joins="one") == "here\n"
                break
            except InputError:  # the thread has not asked for it yet
                continue
    finally:
        first.cancel.cancel()
        first.join()


def test_it_is_confined_as_the_first_process_is(bench: Bench) -> None:
    with leader(bench, "cat /proc/self/status; sleep 1000") as first:
        text = bench.sh("cat /proc/self/status", joins="one", uid=7, gid=8)
        lines = lambda text: dict(line.split(":\t") for line in text.splitlines() if ":\t" in line)  # noqa: E731
        other, own = lines(text), lines(first.output.decode())

    for name in ("CapBnd", "CapInh", "Seccomp", "NoNewPrivs"):
        assert other[name] == own[name], name
    assert own["Seccomp"].strip() == "2"
    assert (other["Uid"].split()[0], other["Gid"].split()[0]) == ("7", "8")
    assert int(other["CapEff"], 16) == 0


def test_it_has_its_own_code_and_the_first_process_goes_on(bench: Bench) -> None:
    with leader(bench) as first:
        assert bench.run("sh", "-c", "exit 9", joins="one")[0].exit_code == 9
        assert bench.run("no-such", joins="one")[0].exit_code == 127
        cancel, seen = Cancel(), threading.Event()

        def stop(_fd: int, _data: bytes) -> None:
            seen.set()
            cancel.cancel()

        with pytest.raises(CancelledError):
            bench.executor.run(bench.step("sh", "-c", "echo on; sleep 1000", joins="one"), stop, cancel)
        assert seen.is_set()
        assert bench.sh("ps | grep -c '[s]leep 1000'", joins="one").strip() == "1"
        assert first.result is None


def test_it_ends_with_the_first_process(bench: Bench) -> None:
    with leader(bench) as first:
        cut = lambda _fd, _data: first.cancel.cancel()  # noqa: E731
        result = bench.executor.run(bench.step("sh", "-c", "echo on; sleep 1000", joins="one"), cut, Cancel())

    assert (result.exit_code, result.signal) == (137, 9)


def test_there_is_none_without_a_first_process(bench: Bench) -> None:
    with pytest.raises(InputError, match="first process has ended"):
        bench.run("true", joins="nobody")
    with leader(bench):
        pass
    with pytest.raises(InputError, match="first process has ended"):
        bench.run("true", joins="one")
