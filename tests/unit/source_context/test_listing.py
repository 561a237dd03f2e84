"""The listing of a context (A6.8): it says of every path what a build sees, and which rule it was."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.patterns import IgnoreRules
from lamina.source.context import ContextView
from lamina.source.ignore_why import Reasons
from lamina.source.listing import Listing, list_context

NAME = st.sampled_from(["a", "b", "c", "x.py", "x.log"])
PATHS = st.lists(st.lists(NAME, min_size=1, max_size=4).map("/".join), max_size=12)
PART = st.sampled_from(["a", "b", "c", "*", "**", "*.log", "?", "[ab]", "x.py"])
RULE = st.tuples(st.sampled_from(["", "!"]), st.lists(PART, min_size=1, max_size=3).map("/".join)).map("".join)
RULES = st.lists(RULE, max_size=6)


def make(root: str, paths: list[str]) -> None:
    """Make files, and directories where a path is also the beginning of another."""
    for path in sorted(paths, key=len, reverse=True):
        whole = os.path.join(root, path)
        try:
            os.makedirs(os.path.dirname(whole), exist_ok=True)
            Path(whole).write_text("x")
        except (IsADirectoryError, FileExistsError, NotADirectoryError):
            continue


def seen(view: ContextView, path: str = "") -> set[str]:
    """Every path that a build can copy."""
    found = set()
    for name in view.children(path):
        below = f"{path}/{name}" if path else name
        found |= {below, *seen(view, below)}
    return found


def kept(listing: Listing) -> set[str]:
    return {item.path for item in listing.entries if item.kept}


@settings(max_examples=300, deadline=None)
@given(PATHS, RULES)
def test_it_keeps_what_a_build_sees(paths: list[str], patterns: list[str]) -> None:
    """A6.8: the listing and the view that COPY reads agree; nothing on the disk is missing from the listing."""
    rules = IgnoreRules(patterns)
    with tempfile.TemporaryDirectory() as root:
        make(root, paths)
        listing = list_context(root, rules)
        with ContextView(root, rules) as view:
            assert kept(listing) == seen(view)
        there = {str(path.relative_to(root)) for path in Path(root).rglob("*")}
        assert {item.path for item in listing.entries} == there


@settings(max_examples=300, deadline=None)
@given(RULES, st.lists(NAME, min_size=1, max_size=4).map("/".join))
def test_the_rule_that_decides_says_what_the_rules_say(patterns: list[str], path: str) -> None:
    """A6.8: the last rule that matches gives the verdict, and it is among those that match."""
    rules = IgnoreRules(patterns)
    reasons = Reasons(rules)

    decides, matching = reasons.decides(path), reasons.matching(path)

    assert rules.ignored(path) is (decides >= 0 and not patterns[decides].startswith("!"))
    assert matching == [
        number for number, pattern in enumerate(patterns) if IgnoreRules([pattern.removeprefix("!")]).ignored(path)
    ]
    assert decides == (matching[-1] if matching else -1)


def test_a_name_with_an_exclamation_mark(tmp_path: Path) -> None:
    """A6.8: `!!x` brings back the file `!x`, and is said to."""
    (tmp_path / "!x").touch()

    listing = list_context(str(tmp_path), IgnoreRules(["*", "!!x"]))

    assert [(item.path, item.kept, item.rule) for item in listing.entries] == [("!x", True, 1)]


def test_below_a_directory_that_is_left_out_its_rule_counts(tmp_path: Path) -> None:
    """A6.8: the build never looks inside, so the rule of the directory is the reason for all of it."""
    make(str(tmp_path), ["node_modules/p/x.log", "src/x.log"])

    listing = list_context(str(tmp_path), IgnoreRules(["node_modules", "**/*.log"]))

    reasons = {item.path: item.rule for item in listing.entries if not item.kept}
    assert reasons == {"node_modules": 0, "node_modules/p": 0, "node_modules/p/x.log": 0, "src/x.log": 1}


def test_sockets_are_never_seen(tmp_path: Path) -> None:
    """A6.8: no rule leaves them out, a layer cannot hold them."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        (item,) = list_context(str(tmp_path), IgnoreRules([])).entries

    assert (item.kind, item.kept, item.rule) == ("s", False, -1)
