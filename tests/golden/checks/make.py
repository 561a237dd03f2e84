"""Ask a BuildKit what its checks find in the corpus, and write `buildkit.json`.

Usage: PYTHONPATH=src:tests python tests/golden/checks/make.py BUILDCTL   (its server in BUILDKIT_HOST)
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from support.corpus import BUILDKIT, Case, cases

WARNING = re.compile(r"^WARNING: (\w+)[^\n]*\n(.*?)\n[^\n:]*:(\d+)\n-{20}\n", re.MULTILINE | re.DOTALL)


def ask(buildctl: str, case: Case) -> list[tuple[str, int]]:
    """Return rule and line of each warning, sorted."""
    options = {
        "requestid": "frontend.lint",
        "platform": "linux/amd64",
        **{f"build-arg:{name}": value for name, value in case.build_args.items()},
        **({"target": case.target} if case.target else {}),
    }
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Dockerfile").write_text(case.text)
        if case.ignore:
            Path(folder, ".dockerignore").write_text("\n".join(case.ignore))
        given = ["--local", f"context={folder}", "--local", f"dockerfile={folder}"]
        given += [f"--opt={name}={value}" for name, value in options.items()]
        command = [buildctl, "build", "--progress=plain", "--frontend=dockerfile.v0", *given]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{case.name}: {done.stderr}")
    warnings = {(rule, int(line), message) for rule, message, line in WARNING.findall(done.stdout)}
    return sorted((rule, line) for rule, line, _ in warnings)


def main(buildctl: str) -> None:
    """Make the file."""
    lines = [f"{json.dumps(case.name)}: {json.dumps(ask(buildctl, case), ensure_ascii=False)}" for case in cases()]
    BUILDKIT.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf8")


if __name__ == "__main__":
    main(sys.argv[1])
