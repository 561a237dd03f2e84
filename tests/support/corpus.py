"""Dockerfiles that checks have something to say about, and what BuildKit says about each.

`golden/checks/corpus.txt` holds the cases: `=== NAME`, the Dockerfile, and at its end options in braces:
`{ignore=PATTERN|PATTERN}`, `{arg=NAME=VALUE}`, `{target=NAME}`. `golden/checks/buildkit.txt` holds one line a case:
`NAME: RULE LINE, RULE LINE, ...`, sorted, with `error` at its end where BuildKit refuses the file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from support.golden import GOLDEN

_OPTION = re.compile(r"^\{(ignore|arg|target)=(.*)\}\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Case:
    """One Dockerfile, with how it is built."""

    name: str
    text: str
    ignore: tuple[str, ...] = ()
    build_args: dict[str, str] = field(default_factory=dict)
    target: str = ""


def cases(path: Path = GOLDEN / "checks" / "corpus.txt") -> list[Case]:
    """Return all cases."""
    found = []
    for part in path.read_text("utf8").split("=== ")[1:]:
        name, text = part.split("\n", 1)
        options = dict(_OPTION.findall(text))
        ignore = tuple(options["ignore"].split("|")) if "ignore" in options else ()
        build_args = dict([options["arg"].split("=", 1)]) if "arg" in options else {}
        found.append(Case(name, _OPTION.sub("", text), ignore, build_args, options.get("target", "")))
    return found


def expected(path: Path = GOLDEN / "checks" / "buildkit.txt") -> dict[str, tuple[list[tuple[str, int]], bool]]:
    """Return for each case the rules with their lines, and whether BuildKit refuses it."""
    found = {}
    for line in path.read_text("utf8").splitlines():
        name, _, rest = line.partition(":")
        items = [item.strip() for item in rest.split(",") if item.strip()]
        pairs = [(item.split()[0], int(item.split()[1])) for item in items if item != "error"]
        found[name] = (pairs, "error" in items)
    return found
