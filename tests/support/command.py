"""The `lamina` command as a user runs it, with a store of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Lamina:
    """Runs `lamina` with the state directory `root`."""

    root: Path

    def __call__(self, *words: str | Path, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one command and return what came out; unless `check` is False, a failure shows its messages."""
        done = subprocess.run(
            [sys.executable, "-m", "lamina", *map(str, words)],
            env={**os.environ, "LAMINA_ROOT": str(self.root), **options.pop("env", {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=options.pop("timeout", 300),
            **options,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"lamina {' '.join(map(str, words))}: exit code {done.returncode}\n{done.stderr}")
        return done

    def build(self, context: str | Path, *words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `lamina build --progress=plain ... CONTEXT`."""
        return self("build", "--progress=plain", *words, context, **options)
