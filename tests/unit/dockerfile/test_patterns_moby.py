r"""Ignore files against moby's own matcher: `tests/golden/patterns/moby.jsonl`.

The first line of the table lists paths; every other holds an ignore file and those paths that it leaves out, or the
error, as `github.com/moby/patternmatcher` (with its `ignorefile` reader) says.
"""

import json
from pathlib import Path

import pytest

from lamina.errors import InputError
from lamina.patterns import IgnoreRules, parse_ignore

HEAD, *ROWS = map(json.loads, (Path(__file__).parents[2] / "golden/patterns/moby.jsonl").read_text().splitlines())
PATHS = HEAD["paths"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: repr(row["file"]))
def test_same_as_moby(row):
    """A6.1: `#`, `!`, `**`, last match wins, cleaned, anchored, BOM."""
    file = row["file"]
    if "error" in row:
        with pytest.raises(InputError):
            IgnoreRules(parse_ignore(file.encode()))
        return
    rules = IgnoreRules(parse_ignore(file.encode()))
    assert [path for path in PATHS if rules.ignored(path)] == row["ignored"]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: repr(row["file"]))
def test_walking_the_tree_keeps_what_the_rules_keep(row):
    """A directory that is skipped unread holds nothing that would be kept."""
    if "error" in row:
        return
    rules = IgnoreRules(parse_ignore(row["file"].encode()))
    for path in PATHS:
        parts = path.split("/")
        above = ["/".join(parts[:count]) for count in range(1, len(parts))]
        if any(rules.ignored(each) and not rules.may_contain_exceptions(each) for each in above):
            assert path in row["ignored"]
