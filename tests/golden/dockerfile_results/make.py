"""Ask a BuildKit what it makes of the cases, and write `buildkit.json`.

Usage: PYTHONPATH=src:tests python tests/golden/dockerfile_results/make.py BUILDCTL   (its server in BUILDKIT_HOST)
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from support.results import FOLDER, cases, make_context, read_image, read_tree


def ask(buildctl: str, context: Path, kind: str) -> bytes:
    """Build with one kind of output and return it."""
    given = ["--local", f"context={context}", "--local", f"dockerfile={context}", "--opt", "build-arg:X=1"]
    command = [buildctl, "build", "--progress=plain", "--frontend=dockerfile.v0", *given, f"--output=type={kind}"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{(context / 'Dockerfile').read_text()}: {done.stderr.decode()}")
    return done.stdout


def main(buildctl: str) -> None:
    """Make the file."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        context = make_context(Path(folder))
        for name, text in cases().items():
            (context / "Dockerfile").write_text(text)
            tree = read_tree(ask(buildctl, context, "tar"))
            found[name] = {**read_image(ask(buildctl, context, "oci")), "tree": tree}
    lines = [f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in found.items()]
    (FOLDER / "buildkit.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1])
