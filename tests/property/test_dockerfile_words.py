"""Words: any text gives an expansion or an InputError; patterns mean what a slow reading of them means."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.dockerfile import shell_patterns
from lamina.dockerfile.blanks import BLANK_RUN
from lamina.dockerfile.words import Words
from lamina.errors import InputError

PIECES = st.sampled_from(
    ["$", "{", "}", "a", "b", ":", "-", "+", "?", "#", "%", "/", "'", '"', "\\", " ", "*", "é", "<"]
)
TEXTS = st.lists(PIECES, max_size=30).map("".join)


@settings(max_examples=500, deadline=None)
@given(TEXTS, st.sampled_from(["\\", "`"]))
def test_any_text_expands_or_is_refused(text, escape):
    """Nothing but an expansion or our error comes out, in both modes."""
    for expand in (Words(escape).word, Words(escape).document):
        try:
            expand(text, {"a": "x y", "b": ""})
        except InputError as error:
            assert error.what


@given(st.text(alphabet="abc \t.,:/é<>|", max_size=40))
def test_text_without_special_characters_is_itself(text):
    """Neither blanks nor letters are lost; words are what stands between blanks."""
    expansion = Words().word(text.replace("<", ""), {})

    assert expansion.text == text.replace("<", "")
    assert list(expansion.words) == [word for word in BLANK_RUN.split(expansion.text) if word]


@given(st.text(max_size=40))
def test_quoted_text_is_itself(value):
    """A value put through a variable in double quotes is one word, unchanged, whatever it holds."""
    expansion = Words().word('"$v"', {"v": value})

    assert expansion.text == value


GLOBS = st.text(alphabet="ab*?\n", max_size=5)
VALUES = st.text(alphabet="aab\n", max_size=9)


def as_expression(pattern: str, *, longest: bool) -> str:
    """The pattern as a backtracking expression: slow, but plain to read."""
    star = ".*" if longest else ".*?"
    return "".join(star if ch == "*" else "." if ch == "?" else re.escape(ch) for ch in pattern)


@settings(max_examples=500, deadline=None)
@given(GLOBS, VALUES, st.booleans())
def test_trimming_means_what_the_pattern_says(pattern, value, longest):
    """`#`, `##`, `%`, `%%`: shortest and longest match at either end."""
    front = re.match(as_expression(pattern, longest=longest), value)
    back = re.match(as_expression(pattern[::-1], longest=longest), value[::-1])

    assert shell_patterns.trim_prefix(value, pattern, longest=longest) == (value[front.end() :] if front else value)
    assert shell_patterns.trim_suffix(value, pattern, longest=longest) == (
        value[: len(value) - back.end()] if back else value
    )


@settings(max_examples=500, deadline=None)
@given(GLOBS, VALUES)
def test_first_replacement_is_the_leftmost_longest(pattern, value):
    """`/`: the first match, as long as it can be."""
    expected = re.sub(as_expression(pattern, longest=True), "X", value, count=1)

    assert shell_patterns.replace(value, pattern, "X", every=False, limit=1000) == expected


HOSTILE = {
    "open quotes": "'" * 500_001,
    "dollars": "$" * 500_000,
    "variables": "$a" * 250_000,
    "braces": "${a}" * 100_000,
    "open braces": "${a:-" * 100_000,
    "escapes": "\\" * 500_000,
    "double quotes": '""' * 250_000,
    "less-than": "<" * 500_000,
    "stars": "${long#" + "*a" * 500 + "b}",
    "stars at the end": "${long%%b" + "a*" * 500 + "}",
    "replaced stars": "${long//" + "*a" * 500 + "b/x}",
    "replaced question marks": "${long//" + "?" * 999 + "b/x}",
    "long literal": "${long#" + "a" * 100_000 + "}",
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_words_end_soon(text):
    """About linear time; a backtracking pattern would not end within the time limit."""
    try:
        Words().word(text, {"a": "x", "long": "a" * 100_000})
    except InputError:
        pass
