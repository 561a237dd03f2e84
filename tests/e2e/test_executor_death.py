"""Kill -9 of a build leaves no process and no mount, however it is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from e2e.executor_fixtures import require

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
