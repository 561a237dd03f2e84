"""Kill -9 of a build leaves no process and no mount, however it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from e2e.executor_fixtures import open_bench, require
from lamina.cancel import Cancel
from lamina.errors import MachineError
from lamina.executor.executor import Executor

pytestmark = pytest.mark.e2e

SOURCE = Path(__file__).parents[2] / "src"


def processes(word: str) -> list[int]:
    """Return the pids of live processes with `word` among their arguments."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(word.encode() in argument for argument in words):
                found.append(int(name))
    return found


def mounts(word: str) -> list[str]:
    """Return the mounts with `word` in their path, in any mount namespace of this machine."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                found += [line for line in Path(f"/proc/{name}/mountinfo").read_text().splitlines() if word in line]
            except OSError:
                continue
    return found


def wait_for_none(look: object, word: str) -> list[object]:
    """Wait until `look(word)` finds nothing; the kernel tears namespaces down on its own time."""
    end = time.monotonic() + 20
    while (found := look(word)) and time.monotonic() < end:  # type: ignore[operator]
        os.sched_yield()
    return list(found)


@pytest.mark.parametrize("runtime", ["crun", "runc"])
@pytest.mark.parametrize("victim", ["owner", "helper"])
def test_sigkill_leaves_no_process_and_no_mount(tmp_path: Path, runtime: str, victim: str) -> None:
    """The owner's socket closes, pid 1 of the helper's namespace ends, the kernel does the rest."""
    require(runtime)
    mark = str(900_000_000 + int.from_bytes(os.urandom(3), "big"))
    program = [sys.executable, str(Path(__file__).with_name("executor_owner.py")), str(tmp_path), runtime, mark]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={"PYTHONPATH": str(SOURCE)}
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"running\n"
        assert len(processes(mark)) >= 3
        assert mounts(str(tmp_path))

        if victim == "owner":
            owner.kill()
        else:
            helpers = [pid for pid in processes(f"{tmp_path}/exec/helper") if pid != owner.pid]
            os.kill(min(helpers), signal.SIGKILL)
        owner.wait(timeout=60)

    assert wait_for_none(processes, mark) == []
    assert wait_for_none(processes, f"{tmp_path}/exec") == []
    assert wait_for_none(mounts, str(tmp_path)) == []
    assert list((tmp_path / "exec" / "helper").iterdir()) == []
    assert not list(Path("/sys/fs/cgroup").glob("*/lamina-*"))


def test_close_ends_running_steps_and_refuses_new_ones(tmp_path: Path) -> None:
    """A step in another thread gets an error, not silence; nothing restarts the helper behind our back."""
    bench_of = open_bench(tmp_path, require("crun"))
    bench = next(bench_of)
    errors: list[Exception] = []
    running = threading.Event()

    def go() -> None:
        try:
            step = bench.step("sh", "-c", "echo x; exec sleep 900")
            bench.executor.run(step, lambda *_: running.set(), Cancel())
        except MachineError as error:
            errors.append(error)

    thread = threading.Thread(target=go)
    thread.start()
    assert running.wait(60)
    bench.executor.close()
    thread.join(60)

    assert len(errors) == 1
    with pytest.raises(MachineError, match="closed"):
        bench.run("true")
    assert list(bench_of) == []


def test_a_helper_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A Python that is not there."""
    runtime = require("crun")
    executor = Executor(runtime, tmp_path, python="/no/such/python")

    with pytest.raises(MachineError, match="helper"):
        executor.start()


def test_an_ordinary_user_without_a_user_namespace_is_told(tmp_path: Path) -> None:
    """The helper cannot make its namespaces; the error says so and what to do."""
    require("crun")
    tmp_path.chmod(0o777)
    code = (
        "import os, sys; os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "from pathlib import Path; from lamina.cancel import Cancel; from lamina.executor.executor import Executor\n"
        "from lamina.executor.step import Rootfs, Step; from lamina.executor.runtime import Runtime\n"
        "os.makedirs('/dev/shm/' + sys.argv[1]); base = Path('/dev/shm') / sys.argv[1]\n"
        "e = Executor(Runtime('/usr/bin/crun', 'crun'), base, python='/usr/bin/python3')\n"
        "try: e.run(Step(('true',), Rootfs(('/',))), print, Cancel())\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "finally: e.close(); base.rmdir()\n"
    )
    name = f"lamina-test-{os.getpid()}"
    done = subprocess.run(
        ["/usr/bin/python3", "-B", "-c", code, name],
        env={"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert "MachineError cannot make the step helper's namespaces: Operation not permitted" in done.stdout, done.stderr
