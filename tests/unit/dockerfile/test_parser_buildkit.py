"""What is an instruction and what is not, as BuildKit's own parser and instruction reader say (master of August 2026).

`tests/golden/dockerfile/taken.jsonl`: texts behind `FROM a`, many of them broken at random, and whether BuildKit takes
them. Left out is what differs on purpose: `RUN` without a command, and triggers of ONBUILD, which we check at once.
"""

import json
from pathlib import Path

from lamina.dockerfile.parser import parse
from lamina.errors import InputError

ROWS = list(map(json.loads, (Path(__file__).parents[2] / "golden/dockerfile/taken.jsonl").read_text().splitlines()))


def taken(text: str) -> bool:
    try:
        parse(f"FROM a\n{text}\n")
    except InputError:
        return False
    return True


def test_what_buildkit_takes_is_taken():
    """A1, A3-A5: nothing that works there is refused here."""
    assert [row["text"] for row in ROWS if row["taken"] and not taken(row["text"])] == []


def test_what_buildkit_refuses_is_refused():
    """A1, A3-A5, A4.14: and nothing that is wrong there passes here."""
    assert [row["text"] for row in ROWS if not row["taken"] and taken(row["text"])] == []


def test_the_table_holds_both():
    assert len(ROWS) > 900
    assert 300 < sum(row["taken"] for row in ROWS) < 700
