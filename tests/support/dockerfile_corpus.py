"""The Dockerfiles of `tests/golden/dockerfile/corpus/`: one file holds many.

Each begins with `#### NAME [option...]`. Options: `bom` puts a byte order mark in front, `crlf` makes every line end a
CRLF, `chomp` takes the last line end off, `reject` says that both parsers must refuse it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "golden" / "dockerfile" / "corpus"
_HEAD = re.compile(r"^#### (.*)\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Case:
    """One Dockerfile: its name, its text as written to disk, whether it is one that must be refused."""

    name: str
    text: str
    rejected: bool


def cases() -> list[Case]:
    """Every Dockerfile of the corpus, in order."""
    found: list[Case] = []
    for path in sorted(FOLDER.glob("*.txt")):
        _, *parts = _HEAD.split(path.read_bytes().decode())
        for head, text in zip(parts[::2], parts[1::2], strict=True):
            name, *options = head.split()
            if "chomp" in options:
                text = text.removesuffix("\n")
            if "crlf" in options:
                text = text.replace("\n", "\r\n")
            found.append(Case(f"{path.stem}/{name}", "\ufeff" * ("bom" in options) + text, "reject" in options))
    return found
