"""Recorded outputs: what a person read once and found right. `LAMINA_GOLDEN=write` records them anew."""

from __future__ import annotations

import os
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"


def assert_golden(name: str | Path, text: str) -> None:
    """Compare `text` with the recorded file `name`."""
    path = GOLDEN / name
    if os.environ.get("LAMINA_GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf8")
    assert text == path.read_text("utf8")
