"""An ordinary user builds too: the same executor inside a user namespace, with subordinate ids and without."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.executor_fixtures import require

pytestmark = pytest.mark.e2e

USER, UID = "nobody", 65534
SOURCE = Path(__file__).parents[2] / "src"
RANGE = f"{USER}:1200000:65536\n"


@pytest.fixture
def python() -> str:
    """A Python that an ordinary user may execute: the tests' own often lies in root's home."""
    found = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    code = "import sys; sys.exit(sys.version_info < (3, 11))"
    if found is None or subprocess.run([found, "-I", "-c", code], check=False).returncode != 0:
        pytest.skip("needs a system python3 of version 3.11 or later")
    return found


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that the ordinary user owns and can reach."""
    base = Path(tempfile.mkdtemp(prefix="lamina-user-", dir="/tmp"))
    os.chown(base, UID, UID)
    yield base
    shutil.rmtree(base)


@pytest.fixture
def id_files() -> Iterator[list[Path]]:
    """The two files of subordinate ids; one test at a time, whatever process it runs in."""
    if shutil.which("newuidmap") is None:
        pytest.skip("needs newuidmap (apt-get install uidmap)")
    require("crun")
    files = [Path("/etc/subuid"), Path("/etc/subgid")]
    with files[0].open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield files


@pytest.fixture
def subordinate_ids(id_files: list[Path]) -> Iterator[None]:
    """Give the user subordinate ids for the time of a test."""
    for file in id_files:
        with file.open("a") as out:
            out.write(RANGE)
    yield
    for file in id_files:
        file.write_text(file.read_text().replace(RANGE, ""))


def as_user(python: str, home: Path, *program: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a user namespace, started as the ordinary user."""
    return subprocess.run(
        [python, "-m", "lamina.executor.userns", "--", *program],
        user=UID,
        group=UID,
        extra_groups=[],
        cwd=home,
        env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def run_steps(python: str, home: Path, runtime: str) -> dict[str, object]:
    """Run the steps of executor_as_user.py and return its facts."""
    require(runtime)
    done = as_user(python, home, python, str(Path(__file__).with_name("executor_as_user.py")), str(home), runtime)
    assert done.returncode == 0, done.stderr
    facts: dict[str, object] = json.loads(done.stdout)
    return facts


def check_facts(facts: dict[str, object]) -> None:
    """Check what holds with one id and with many."""
    assert str(facts["id"]).startswith("uid=0")
    assert facts["reads"] == "s3other"
    assert facts["writes"] == ""
    assert facts["upper"] == ["data", "made"]
    assert facts["whiteout"] is True
    assert facts["none"] == "lo\n"
    assert int(str(facts["host"])) == len(os.listdir("/sys/class/net"))
    assert facts["failing"] == "exit 9: "
    assert facts["device"] == "3\n1:5\n"


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_steps_run_with_subordinate_ids(python: str, home: Path, subordinate_ids: None, runtime: str) -> None:
    """Users of the image are the user's subordinate ids outside; nothing of the mount points stays."""
    facts = run_steps(python, home, runtime)

    check_facts(facts)
    assert "uid=1000 gid=1000" in str(facts["other"])
    assert (home / "cache" / "by-other").stat().st_uid == 1200000 + 999
    assert (home / "upper" / "made").stat().st_uid == UID


@pytest.mark.parametrize("runtime", ["crun", "runc"])
def test_steps_run_with_a_single_id(python: str, home: Path, id_files: list[Path], runtime: str) -> None:
    """Without ranges there is root alone, which is said."""
    facts = run_steps(python, home, runtime)

    check_facts(facts)
    assert facts["maps"] == ["0", str(UID), "1"]


def test_the_missing_range_is_named_with_its_cure(python: str, home: Path, id_files: list[Path]) -> None:
    """One warning, one line that mends it."""
    require("crun")
    done = as_user(python, home, "/bin/true")

    assert done.returncode == 0
    assert "usermod --add-subuids" in done.stderr


@pytest.mark.parametrize("code", [0, 3, 200])
def test_the_exit_code_is_the_programs(python: str, home: Path, code: int) -> None:
    """The process becomes the program, so there is nobody to lose it."""
    require("crun")

    assert as_user(python, home, "/bin/sh", "-c", f"exit {code}").returncode == code


def test_a_signal_reaches_the_program_itself(python: str, home: Path) -> None:
    """Same pid: what the user's shell kills is what runs."""
    require("crun")
    with subprocess.Popen(
        [python, "-m", "lamina.executor.userns", "--", "/bin/sh", "-c", "echo $PPID; exec cat"],
        user=UID,
        group=UID,
        extra_groups=[],
        cwd=home,
        env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)

        assert process.wait(timeout=60) == -signal.SIGTERM


def test_a_program_that_is_not_there_is_named(python: str, home: Path) -> None:
    """As an error of ours, not a traceback."""
    require("crun")
    done = as_user(python, home, "/no/such")

    assert done.returncode == 5
    assert "error: cannot execute /no/such" in done.stderr
