"""Ignore rules against a slow, plain reading of the language; pruning against matching; time on hostile rules."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.errors import InputError
from lamina.patterns import IgnoreRules, glob_regex, has_glob, parse_ignore


def matches(pattern: str, path: str) -> bool:
    """Tell whether `pattern`, of letters, `/`, `*`, `?` and `**`, means exactly `path`: by trying everything."""
    if pattern == "":
        return path == ""
    if pattern == "**":
        return True
    if pattern.startswith("**"):
        rest = pattern[2:].removeprefix("/")
        starts = [0, *(number + 1 for number, ch in enumerate(path) if ch == "/")]
        return any(matches(rest, path[start:]) for start in starts)
    if pattern[0] == "*":
        inside = len(path.split("/", maxsplit=1)[0])
        return any(matches(pattern[1:], path[count:]) for count in range(inside + 1))
    return (
        path != ""
        and (pattern[0] == path[0] or (pattern[0] == "?" != path[0] != "/"))
        and matches(pattern[1:], path[1:])
    )


def ignored(patterns: list[str], path: str) -> bool:
    """The last rule that means the path or a directory above decides."""
    parts = path.split("/")
    above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    verdict = False
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        if any(matches(bare, each) for each in above):
            verdict = not pattern.startswith("!")
    return verdict


PART = st.lists(st.sampled_from(["a", "b", "*", "?"]), min_size=1, max_size=3).map("".join)
NO_DOUBLE = PART.filter(lambda part: "**" not in part)
PATTERN = st.lists(st.one_of(NO_DOUBLE, st.just("**")), min_size=1, max_size=4).map("/".join)
RULE = st.tuples(st.sampled_from(["", "", "!"]), PATTERN).map("".join)
PATH = st.lists(st.text(alphabet="ab", min_size=1, max_size=3), min_size=1, max_size=4).map("/".join)


@settings(max_examples=1500, deadline=None)
@given(st.lists(RULE, min_size=1, max_size=7), PATH)
def test_rules_mean_what_they_say(rules, path):
    """Combined expressions and trying everything agree."""
    assert IgnoreRules(rules).ignored(path) is ignored(rules, path)


@settings(max_examples=1000, deadline=None)
@given(st.lists(RULE, min_size=1, max_size=7), PATH)
def test_pruning_loses_nothing(rules, path):
    """A directory that is ignored and cannot hold exceptions holds no kept path."""
    compiled = IgnoreRules(rules)
    parts = path.split("/")
    for count in range(1, len(parts)):
        above = "/".join(parts[:count])
        if compiled.ignored(above) and not compiled.may_contain_exceptions(above):
            assert compiled.ignored(path)


@settings(max_examples=500, deadline=None)
@given(NO_DOUBLE, st.text(alphabet="ab/", max_size=4))
def test_globs_mean_what_they_say(pattern, path):
    """COPY's globs, by trying everything."""
    assert bool(glob_regex(pattern).fullmatch(path)) is matches(pattern, path)
    assert has_glob(pattern) is any(ch in pattern for ch in "*?[")


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200), st.text(alphabet="ab/.*[]\\", max_size=20))
def test_any_ignore_file_is_rules_or_an_input_error(data, text):
    """Nothing else comes out, for bytes and for what looks like patterns."""
    for noise in (data, text.encode()):
        try:
            IgnoreRules(parse_ignore(noise)).ignored("a/b")
        except InputError as error:
            assert error.what


HOSTILE = {
    "stars in a name": "*a" * 1000 + "b",
    "deep stars": "**/" + "*a" * 500 + "b",
    "deep, many": "**/a/" * 500 + "b",
    "deep, stars, many": "**/*a*a*/" * 200 + "b",
    "questions": "?*" * 1000 + "b",
    "deep inside names": "a**a**b",
    "classes": "[^b]*" * 500 + "b",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("pattern", HOSTILE.values(), ids=HOSTILE)
def test_hostile_rules_end_soon(pattern):
    """A rule that would send a backtracking matcher away for years."""
    rules = IgnoreRules([pattern])

    for path in ("a" * 4000, "a/" * 2000 + "c", ("a" * 20 + "/") * 190 + "c"):
        assert rules.ignored(path) in (True, False)


def test_the_matcher_imports_next_to_nothing():
    """A fully cached build comes through here: no typing, no dataclasses."""
    code = "import sys, lamina.patterns; print([m for m in ('typing', 'dataclasses', 'json') if m in sys.modules])"

    shown = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env=env())

    assert shown.stdout.strip() == "[]"


def env() -> dict[str, str]:
    """A bare environment in which the package is found where this process found it."""
    import lamina

    return {"PYTHONPATH": str(next(iter(lamina.__path__))).removesuffix("/lamina")}
