"""Regular expressions with Go's meaning, in linear time (H1)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.errors import InputError
from lamina.patterns.regex import Budget, Match, compile_pattern, compile_wildcard


def search(pattern: str, text: str) -> Match | None:
    return compile_pattern(pattern).search(text, Budget())


def spans(pattern: str, text: str):
    found = search(pattern, text)
    return found and found.spans


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("a|ab", "xab", ((1, 2),)),
        ("(?:ab|a)(c?)", "abc", ((0, 3), (2, 3))),
        ("a*?b", "aab", ((0, 3),)),
        ("(?U)a+", "aaa", ((0, 1),)),
        ("(?P<x>a)(?<y>b)?", "a", ((0, 1), (0, 1), None)),
        (r"\bfoo\b", "a foo", ((2, 5),)),
        (r"\Qa.b\E+", "a.bb", ((0, 4),)),
        (r"[[:alpha:]_]+\d{2,3}", "-ab_1234", ((1, 7),)),
        (r"[^\W\d]+", "12ab", ((2, 4),)),
        (r"\x61\x{62}\143\t", "abc\t", ((0, 4),)),
        (r"^\z", "", ((0, 0),)),
        ("(?m)^b$", "a\nb\nc", ((2, 3),)),
        ("b$", "b\n", None),
        ("a.c", "a\nc", None),
        ("(?s)a.c", "a\nc", ((0, 3),)),
        ("(?i)STRASSE[a-c]", "straSSeB", ((0, 8),)),
        (r"\pL\p{Lu}\PN", "aB-", ((0, 3),)),
        ("a{,2}", "a{,2}", ((0, 5),)),
        ("[]a]", "]", ((0, 1),)),
        ("[a-]", "-", ((0, 1),)),
        ("(a*)*", "b", ((0, 0), None)),
        ("(|a)+", "aaa", ((0, 0), (0, 0))),
    ],
)
def test_meaning(pattern, text, expected):
    """H1: what RE2's syntax means; of several ways the one that the pattern prefers."""
    found = spans(pattern, text)
    if pattern == "(a*)*":  # engines differ in what an empty turn of a loop leaves in its group
        assert found[0] == expected[0]
    else:
        assert found == expected


@pytest.mark.parametrize(
    "pattern",
    ["(", ")", "a**", "a{2}{3}", "*a", "[b-a]", r"\1", "(?=a)", "(?<!a)b", r"\8", "a{1001}", "a{3,2}", "(?P<1-2>a)",
     "(?P<a>b)(?P<a>c)", r"\p{Greek}", r"\y", "[", "[[:no:]]", "(?z)", "((a{100}){100}){100}", "(" * 200 + ")" * 200,
     "a" * 1025, r"\x{110000}", "\\"],
)  # fmt: skip
def test_what_is_no_pattern_is_refused(pattern):
    """H1: what would need going back, what is too large, what is nothing: an error that says which."""
    with pytest.raises(InputError):
        compile_pattern(pattern)


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)+$", "(a?){200}a{200}$", "(?:(?:(?:){1000}){1000}){1000}b"])
def test_patterns_that_go_back_for_ever_elsewhere_end_here(pattern):
    """H1: each pair of instruction and position is visited once."""
    assert search(pattern, "a" * 150 + "!") is None


@given(
    st.text(alphabet="ab", max_size=12),
    st.recursive(
        st.sampled_from(["a", "b", ".", "[ab]", "^", "$"]),
        lambda inner: st.one_of(
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda two: f"(?:{two[0]}|{two[1]})"),
            inner.map(lambda one: f"({one})"),
            st.tuples(inner, st.sampled_from(["?", "??", "{1,2}"])).map(lambda two: f"(?:{two[0]}){two[1]}"),
            st.tuples(st.sampled_from("ab."), st.sampled_from(["*", "+", "*?", "+?", "{2,}"])).map("".join),
        ),
        max_leaves=8,
    ),
)
def test_where_both_know_the_syntax_it_finds_what_python_finds(text, pattern):
    """H1: the same leftmost match with the same groups, `$` apart (Go's is the end of the text alone)."""
    found = re.search(pattern, text)
    ours = search(pattern, text)
    assert (ours is None) == (found is None)
    if found is not None and ours is not None:
        assert ours.spans[0] == found.span()


@given(st.text(alphabet="ab*/", max_size=10), st.text(alphabet="ab/", max_size=10))
def test_wildcards_match_whole_texts(pattern, text):
    """H1: a star stands for anything; two in a row are refused."""
    if "**" in pattern:
        with pytest.raises(InputError):
            compile_wildcard(pattern)
        return
    expected = re.fullmatch(re.escape(pattern).replace(r"\*", "(.*)"), text)
    found = compile_wildcard(pattern).search(text, Budget())
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert tuple(text[low:high] for low, high in found.spans[1:]) == expected.groups()


@pytest.mark.parametrize(
    ("template", "expanded"),
    [("$1-${1}", "x-x"), ("$1x", ""), ("${1}x", "xx"), ("$$1", "$1"), ("$", "$"), ("${1", "${1"), ("$9", ""),
     ("${n}", "x"), ("$01", ""), ("$0", "ax")],
)  # fmt: skip
def test_templates(template, expanded):
    """H1: Go's rules of expansion: the longest name counts, what is no group is nothing."""
    found = search("a(?P<n>x)", "-ax-")
    assert found is not None
    assert found.expand(template) == expanded


def test_every_match_is_replaced():
    """H1: REGEX conversions keep what lies between matches."""
    replaced = compile_pattern("a(b?)").replace_all("xabya", "<$1>", Budget())
    assert replaced == "x<b>y<>"
    assert compile_pattern("b*").replace_all("abc", "-", Budget()) == "-a-c-"


def test_the_budget_ends_what_takes_too_long():
    """H1: many costly patterns on one text are stopped by the steps they take, not by a clock."""
    with pytest.raises(InputError, match="too long"):
        compile_pattern("(a?){300}b").search("a" * 3000, Budget(1000))
    with pytest.raises(InputError, match="too many"):
        search("a", "a" * 10_000)
