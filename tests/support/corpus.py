"""Dockerfiles that checks have something to say about, and what is to be said about each.

`golden/checks/corpus.txt` holds the cases: `=== NAME`, the Dockerfile, and at its end options in braces:
`{ignore=PATTERN|PATTERN}`, `{arg=NAME=VALUE}`, `{target=NAME}`, `{context=NAME NAME/}` (what lies in the context).
`golden/checks/findings.txt` holds one line a case: `NAME: RULE LINE, RULE LINE, ...`, sorted, of BuildKit's rules.
`golden/checks/buildkit.json` holds what a BuildKit found (`golden/checks/make.py` asks it),
`golden/checks/differences.json` what we find otherwise, and why.

`golden/checks/realistic.txt` holds whole Dockerfiles after the manner of official images and well-known projects, and
`realistic_findings.txt` what our own rules say of them, read through by eye.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from support.golden import GOLDEN

_OPTION = re.compile(r"^\{(ignore|arg|target|context)=(.*)\}\n", re.MULTILINE)
CORPUS, FINDINGS = GOLDEN / "checks" / "corpus.txt", GOLDEN / "checks" / "findings.txt"
REALISTIC = GOLDEN / "checks" / "realistic.txt"
BUILDKIT, DIFFERENCES = GOLDEN / "checks" / "buildkit.json", GOLDEN / "checks" / "differences.json"


@dataclass(frozen=True, slots=True)
class Case:
    """One Dockerfile, with how it is built."""

    name: str
    text: str
    ignore: tuple[str, ...] = ()
    build_args: dict[str, str] = field(default_factory=dict)
    target: str = ""
    context: tuple[str, ...] | None = None


def cases(path: Path = CORPUS) -> list[Case]:
    """Return all cases."""
    found = []
    for part in path.read_text("utf8").split("=== ")[1:]:
        name, text = part.split("\n", 1)
        options = dict(_OPTION.findall(text))
        ignore = tuple(options["ignore"].split("|")) if "ignore" in options else ()
        build_args = dict([options["arg"].split("=", 1)]) if "arg" in options else {}
        context = tuple(options["context"].split()) if "context" in options else None
        found.append(Case(name, _OPTION.sub("", text), ignore, build_args, options.get("target", ""), context))
    return found


def expected(path: Path = FINDINGS) -> dict[str, list[tuple[str, int]]]:
    """Return for each case the rules with their lines."""
    found = {}
    for line in path.read_text("utf8").splitlines():
        name, _, rest = line.partition(":")
        items = [item.split() for item in rest.split(",") if item.strip()]
        found[name] = [(rule, int(number)) for rule, number in items]
    return found


def written(findings: dict[str, list[tuple[str, int]]]) -> str:
    """Return what `expected` reads."""
    lines = [f"{name}: {', '.join(f'{rule} {line}' for rule, line in found)}" for name, found in findings.items()]
    return "".join(line.rstrip() + "\n" for line in lines)
