"""Ignore rules and globs (A6.1, A4.1)."""

import pytest

from lamina.errors import InputError
from lamina.patterns import IgnoreRules, glob_regex, has_glob, parse_ignore

RULES = {
    "plain name": (["a"], "a", True),
    "not in a directory": (["a"], "d/a", False),
    "everything below": (["a"], "a/b/c", True),
    "not a longer name": (["a"], "ab", False),
    "trailing slash": (["a/"], "a", True),
    "leading slash, not dropped by parse_ignore, takes nothing": (["/a"], "a", False),
    "star stays in its part": (["*.log"], "d/x.log", False),
    "star in the middle": (["d/*.log"], "d/x.log", True),
    "star takes nothing too": (["a*"], "a", True),
    "star matches a directory": (["*"], "d/x", True),
    "question mark": (["a?c"], "abc", True),
    "question mark is no slash": (["a?c"], "a/c", False),
    "class": (["[ab].c"], "b.c", True),
    "negated class": (["[^ab].c"], "b.c", False),
    "range": (["x[0-9]"], "x7", True),
    "escaped star": ([r"a\*"], "ab", False),
    "escaped star itself": ([r"a\*"], "a*", True),
    "deep at the root": (["**/x"], "x", True),
    "deep anywhere": (["**/x"], "a/b/x", True),
    "deep not within a name": (["**/x"], "a/yx", False),
    "deep below": (["a/**"], "a/b/c", True),
    "deep below is not the directory": (["a/**"], "a", False),
    "deep between": (["a/**/z"], "a/b/c/z", True),
    "deep between, nothing": (["a/**/z"], "a/z", True),
    "deep alone": (["**"], "a/b", True),
    "deep with star": (["**/*.pyc"], "a/b.pyc", True),
    "deep before a name takes its end": (["**foo"], "a/xfoo", True),
    "exception": (["*.md", "!README.md"], "README.md", False),
    "exception before the rule": (["!README.md", "*.md"], "README.md", True),
    "last match wins": (["*.md", "!R*.md", "README.md"], "README.md", True),
    "exception below an ignored directory": (["d", "!d/keep"], "d/keep/x", False),
    "all but one": (["**", "!src/*.py"], "src/a.py", False),
    "dots are literal": (["a.b"], "axb", False),
    "regular expression characters": (["a+(b)|c"], "a+(b)|c", True),
    "upper directory matches nothing": (["../a"], "a", False),
    "dot matches nothing": (["."], "a", False),
    "case counts": (["Readme"], "README", False),
    "line feed in a name": (["*.x"], "a\nb.x", True),
}


@pytest.mark.parametrize(("patterns", "path", "expected"), RULES.values(), ids=RULES)
def test_ignored(patterns, path, expected):
    """One rule of the language each."""
    assert IgnoreRules(patterns).ignored(path) is expected


def test_parse_ignore():
    """Comments, blanks, BOM, `!`, cleaning, carriage returns."""
    data = b"\xef\xbb\xbf# comment\n  a/  \r\n\n #no comment\n! /b/../c\n/d//e/.\n!\n/\n"

    assert parse_ignore(data) == ["a", "#no comment", "!c", "d/e", "!", "/"]


@pytest.mark.parametrize("pattern", ["[", "[]", "[a", "[a-", "[-a]", "a\\", "!", "[^]", "a" * 5000])
def test_malformed_rules_are_explained(pattern):
    """A wrong rule stops the build; it never silently keeps everything."""
    with pytest.raises(InputError):
        IgnoreRules([pattern])


def test_too_large_an_ignore_file():
    """A file of megabytes is no ignore file."""
    with pytest.raises(InputError, match="at most"):
        parse_ignore(b"a\n" * (1 << 20))


EXCEPTIONS = {
    "none": (["d"], "d", False),
    "elsewhere": (["d", "!e/f"], "d", False),
    "below": (["d", "!d/e/f"], "d", True),
    "on the way": (["d", "!d/e/f"], "d/e", True),
    "beside the way": (["d", "!d/e/f"], "d/x", False),
    "the directory itself": (["d", "!d"], "d", True),
    "glob": (["*", "!*/keep"], "d", True),
    "deep": (["d", "!**/keep"], "d/e", True),
    "root": (["**", "!a"], "", True),
}


@pytest.mark.parametrize(("patterns", "directory", "expected"), EXCEPTIONS.values(), ids=EXCEPTIONS)
def test_may_contain_exceptions(patterns, directory, expected):
    """A walker skips an ignored directory only when nothing below can come back."""
    assert IgnoreRules(patterns).may_contain_exceptions(directory) is expected


GLOBS = {
    "star": ("*.py", "a.py", True),
    "star not over a slash": ("*.py", "d/a.py", False),
    "two stars are one": ("**", "a/b", False),
    "question": ("a?", "ab", True),
    "class": ("[a-c]", "b", True),
    "negated": ("[^a-c]", "b", False),
    "negated never a slash": ("a[^b]c", "a/c", False),
    "escape": (r"a\[b", "a[b", True),
    "bracket in a class": ("[[]x", "[x", True),
    "escaped end of class": (r"[\]]", "]", True),
    "reversed range takes nothing": ("[b-a]", "a", False),
    "whole path": ("a", "ab", False),
}


@pytest.mark.parametrize(("pattern", "path", "expected"), GLOBS.values(), ids=GLOBS)
def test_glob(pattern, path, expected):
    """COPY's globs are those of Go's filepath.Match."""
    assert bool(glob_regex(pattern).fullmatch(path)) is expected


@pytest.mark.parametrize(
    ("text", "expected"), [("a*", True), (r"a\*", False), (r"a\\*", True), ("a]", False), ("[", True), ("a\\", False)]
)
def test_has_glob(text, expected):
    """An escaped wildcard is a plain character."""
    assert has_glob(text) is expected


@pytest.mark.parametrize("form", ["{0:x}", "**/n{0:x}", "{0:x}\n!{0:x}", "d/{0:x}/e", "a"])
def test_any_number_of_rules_without_wildcards_is_taken(form):
    """A6.1: a megabyte of names is looked up, not searched."""
    data = "\n".join(form.format(number) for number in range(1 << 19)).encode()[: 1 << 20]
    rules = IgnoreRules(["*.md", *parse_ignore(data), "last", "!last/kept"])
    assert rules.ignored("last/x")
    assert rules.ignored("x.md")
    assert not rules.ignored("last/kept/x")
    assert rules.may_contain_exceptions("last")
    assert not rules.may_contain_exceptions("other")


@pytest.mark.parametrize("rule", ["*.{}", "!{}*", "[{}]", "a/?/{}", "**/{}/x", r"\\a{}"])
def test_too_many_rules_with_wildcards_are_refused_at_once(rule):
    """A6.1: each is tried on every path, so their sum is bounded; the message says which line is one too many."""
    with pytest.raises(InputError, match=r"ignore rule [0-9]+: the rules with wildcards up to here") as caught:
        IgnoreRules(rule.format(number) for number in range(10_000))
    assert "directories" in caught.value.hint


def test_the_same_rule_again_costs_nothing():
    """A6.1"""
    assert IgnoreRules(["*.log"] * 100_000).ignored("x.log")
