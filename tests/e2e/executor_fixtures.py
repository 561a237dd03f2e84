"""A busybox root, an executor, and short words for running steps: shared by the executor's end-to-end tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lamina.cancel import Cancel
from lamina.errors import MachineError
from lamina.executor.executor import Executor
from lamina.executor.runtime import Runtime, find_runtime
from lamina.executor.step import Rootfs, Step, StepMount, StepResult

BUSYBOX = Path("/bin/busybox")
OLD = 1_000_000_000  # seconds: a time that nothing made today has
_WORDS = "sh ls cat id env true false sleep mount stat touch mkdir rm mknod echo kill grep chroot ip pwd dd tty stty"
APPLETS = _WORDS.split()


def require(name: str) -> Runtime:
    """Return the runtime, or skip and say what is missing."""
    import pytest  # not there for the Python that runs executor_as_user.py

    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not BUSYBOX.exists():
        pytest.skip("needs /bin/busybox (apt-get install busybox-static)")
    try:
        return find_runtime(os.environ.get("PATH", ""), name)
    except MachineError as error:
        pytest.skip(f"{error} ({error.hint})")


def make_root(root: Path) -> Path:
    """Make a small root: busybox, /etc with an old time and an odd mode, /var/run as a link; no /proc, /dev, /sys."""
    (root / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin" / "busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    for name in ("etc", "run", "var", "data"):
        (root / name).mkdir()
    (root / "var" / "run").symlink_to("/run")
    (root / "data" / "file").write_text("from the image")
    (root / "etc").chmod(0o2751)
    for name in ("etc", "run", "var", "data", "."):
        os.utime(root / name, (OLD, OLD))
    return root


@dataclass
class Bench:
    """One root, one upper, one executor."""

    executor: Executor
    base: Path
    lower: Path
    upper: Path
    work: Path

    def rootfs(self, **changes: object) -> Rootfs:
        """Return the writable root of this bench."""
        whole = Rootfs((str(self.lower),), str(self.upper), str(self.work))
        return replace(whole, **changes)  # type: ignore[arg-type]

    def step(self, *args: str, **fields: object) -> Step:
        """Return a step on this bench's root with a PATH."""
        return Step(**{"args": args, "rootfs": self.rootfs(), "env": ("PATH=/bin",), **fields})  # type: ignore[arg-type]

    def run(self, *args: str, **fields: object) -> tuple[StepResult, str]:
        """Run a step and return its result and all its output as text."""
        chunks: list[bytes] = []
        result = self.executor.run(self.step(*args, **fields), lambda _, data: chunks.append(data), Cancel())
        return result, b"".join(chunks).decode()

    def sh(self, script: str, **fields: object) -> str:
        """Run a shell script that must succeed and return its output."""
        result, output = self.run("sh", "-c", script, **fields)
        assert result.exit_code == 0, output
        return output

    def written(self) -> list[str]:
        """Return what lies in the upper, as sorted relative paths."""
        return sorted(str(path.relative_to(self.upper)) for path in self.upper.rglob("*"))

    def new_dir(self, name: str) -> Path:
        """Make a directory beside the root."""
        path = self.base / name
        path.mkdir()
        return path


def open_bench(base: Path, runtime: Runtime) -> Iterator[Bench]:
    """Yield a bench in `base` and check afterwards that it left no mount."""
    lower = make_root(base / "lower")
    for name in ("upper", "work", "exec"):
        (base / name).mkdir()
    with Executor(runtime, base / "exec") as executor:
        yield Bench(executor, base, lower, base / "upper", base / "work")
    assert str(base) not in Path("/proc/self/mountinfo").read_text()
    assert list((base / "exec").iterdir()) == []


def mount(target: str, kind: str, **fields: object) -> StepMount:
    """Return a mount without the type checker asking for each field."""
    return StepMount(target, kind, **fields)  # type: ignore[arg-type]
