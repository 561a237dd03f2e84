"""Run by test_executor_death.py: start a step that never ends, say when it runs, and wait to be killed."""

from __future__ import annotations

import sys
from pathlib import Path

from executor_fixtures import Bench, make_root, mount

from lamina.executor.executor import Executor
from lamina.executor.runtime import find_runtime


def main() -> None:
    base = Path(sys.argv[1])
    lower = make_root(base / "lower")
    for name in ("upper", "work", "exec"):
        (base / name).mkdir()
    executor = Executor(find_runtime("/usr/bin:/usr/sbin", sys.argv[2]), base / "exec")
    bench = Bench(executor, base, lower, base / "upper", base / "work")
    script = f"trap '' TERM; sleep {sys.argv[3]} & echo running; while true; do sleep {sys.argv[3]}; done"
    step = bench.step("sh", "-c", script, mounts=(mount("/t", "tmpfs"), mount("/s", "secret", data=b"x")))
    from lamina.cancel import Cancel

    executor.run(step, lambda _, data: print(data.decode(), flush=True), Cancel())


main()
