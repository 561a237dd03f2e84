"""Corpus Dockerfiles, changed a little: both parsers must still agree, and ours must keep its promises."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.dockerfile.parser import parse
from lamina.errors import InputError
from support.dockerfile_corpus import cases
from support.official import compare_all, judge_is_current

TEXTS = [case.text for case in cases() if len(case.text) < 4000 and judge_is_current(case.text)]


def other_case(text: str, place: int) -> str:
    """The first word of a line in the other case."""
    starts = [found.start() for found in re.finditer(r"(?m)^[A-Za-z]", text)]
    start = starts[place % len(starts)] if starts else 0
    word = re.compile(r"\w*").match(text, start)
    return text[:start] + (word[0].swapcase() + text[word.end() :] if word else text[start:])


def put(what: str) -> Callable[[str, int], str]:
    """Insert `what` anywhere."""
    return lambda text, place: text[: place % (len(text) + 1)] + what + text[place % (len(text) + 1) :]


def put_at_blank(what: str) -> Callable[[str, int], str]:
    """Insert `what` before a blank."""

    def change(text: str, place: int) -> str:
        blanks = [found.start() for found in re.finditer(r"[ \t]", text)]
        at = blanks[place % len(blanks)] if blanks else len(text)
        return text[:at] + what + text[at:]

    return change


def put_line(what: str) -> Callable[[str, int], str]:
    """Insert the line `what` between two lines."""

    def change(text: str, place: int) -> str:
        lines = text.split("\n")
        at = place % (len(lines) + 1)
        return "\n".join([*lines[:at], what, *lines[at:]])

    return change


def quoted(text: str, place: int) -> str:
    """A word in quotes."""
    words = list(re.finditer(r"(?<= )[^\s\"']+", text))
    if not words:
        return text
    word = words[place % len(words)]
    mark = "\"'"[place % 2]
    return f"{text[: word.start()]}{mark}{word[0]}{mark}{text[word.end() :]}"


def without_line(text: str, place: int) -> str:
    lines = text.split("\n")
    del lines[place % len(lines)]
    return "\n".join(lines)


def without_character(text: str, place: int) -> str:
    at = place % max(1, len(text))
    return text[:at] + text[at + 1 :]


def returns(text: str, place: int) -> str:
    """One line end, or each, as CRLF."""
    if place % 2:
        return re.sub(r"\r?\n", "\r\n", text)
    return put_line("\r")(text, place)


CHANGES = [
    other_case, quoted, without_line, without_character, returns,
    *map(put, ["\\\n", "'", '"', "\\", "#", " ", "\t", "\n", "$", "<<", "<<E", "--", "=", "[", "]", "`\n", "é", "\f"]),
    *map(put_at_blank, ["\\\n", " \\ \n", " \\\n# comment\n", " \\\n\n", "`\n", " <<E", " --", " --x=y"]),
    *map(put_line, ["# comment", "", "   ", "#", "\\", "E", "EOF", "# escape=`", "RUN <<E", "FROM x", "\tRUN a \\"]),
]  # fmt: skip
CHANGED = st.lists(st.tuples(st.sampled_from(CHANGES), st.integers(0, 1 << 16)), min_size=1, max_size=4)


def vary(text: str, changes: list[tuple[Callable[[str, int], str], int]]) -> str:
    for change, place in changes:
        text = change(text, place)
    return text


@settings(max_examples=1500, deadline=None)
@given(st.sampled_from(TEXTS), CHANGED)
def test_variants_are_taken_as_the_judge_takes_them(text, changes):
    """A1: case, continuations, comments, blank lines, quotes, here-documents in places nobody thought of."""
    varied = vary(text, changes)
    if judge_is_current(varied):
        compare_all(varied)


@settings(max_examples=800, deadline=None)
@given(st.sampled_from(TEXTS), CHANGED)
def test_every_range_lies_in_the_file(text, changes):
    """A1.16: instructions point at lines that exist, in order, without overlap; so do errors."""
    varied = vary(text, changes)
    count = max(1, varied.count("\n") + (not varied.endswith("\n")))
    try:
        dockerfile = parse(varied)
    except InputError as error:
        assert error.where.startswith("Dockerfile")
        if error.source is not None:
            assert 1 <= error.source.start <= error.source.end <= count
            assert f"Dockerfile:{error.source.start}" in error.diagnostics()
        return
    last = 0
    written = [*dockerfile.global_args]
    for stage in dockerfile.stages:
        written += [stage.base, *stage.instructions]
    for instruction in sorted(written, key=lambda each: each.source.start):
        assert last < instruction.source.start <= instruction.source.end <= count
        last = instruction.source.end
    assert all(1 <= warned.start <= warned.end <= count for warned in dockerfile.empty_continuations)
    assert parse(varied) == dockerfile


def steps(text: str) -> int:
    """How many lines of Python run to parse `text`; an error counts like a result."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Callable[..., object]:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        parse(text)
    except InputError:
        pass
    finally:
        sys.settrace(before)
    return count


GROWING = {
    "instructions": lambda n: "FROM a\n" + "RUN b\n" * n,
    "comments": lambda n: "# c\n" * n + "FROM a\n",
    "stages": lambda n: "FROM a AS b\n" * n,
    "continuations": lambda n: "FROM a\nRUN b " + "\\\n c" * n,
    "empty continuations": lambda n: "FROM a\nRUN b " + "\\\n\n" * n,
    "comments in a line": lambda n: "FROM a\nRUN b \\\n" + "# c\n" * n,
    "heredoc lines": lambda n: "FROM a\nRUN <<E\n" + "x\n" * n + "E\n",
    "heredocs": lambda n: "FROM a\nCOPY " + "<<E " * (n // 2) + "/x/\n" + "E\n" * (n // 2),
    "open heredoc": lambda n: "FROM a\nRUN <<E\n" + "x\n" * n,
    "copy sources": lambda n: "FROM a\nCOPY " + "s " * n + "/x/\n",
    "words of ENV": lambda n: "FROM a\nENV " + "a='b c' " * n,
    "words of LABEL": lambda n: "FROM a\nLABEL " + 'a="\\"b c" ' * n,
    "words of ARG": lambda n: "FROM a\nARG " + "a\\ b " * n,
    "ports": lambda n: "FROM a\nEXPOSE " + "1/tcp " * n,
    "JSON": lambda n: "FROM a\nCMD [" + '"a", ' * n + '"b"]',
    "flags": lambda n: "FROM a\nRUN " + "--mount=target=/x " * n + "c",
    "mount keys": lambda n: "FROM a\nRUN --mount=target=/x" + ",ro" * n + " c",
    "mount fields in quotes": lambda n: "FROM a\nRUN --mount='target=/x" + ',"ro"' * n + "' c",
    "quotes": lambda n: "FROM a\nRUN <<'" + "a'b'" * n,
    "variables in a mark": lambda n: "FROM a\nRUN <<a" + "${b}" * n,
    "nested variables": lambda n: "FROM a\nRUN <<" + "${b:-" * n,
    "backslashes": lambda n: "FROM a\nENV a=" + "\\" * n,
    "duration": lambda n: "FROM a\nHEALTHCHECK --interval=" + "1ns" * n + " CMD a",
    "onbuild": lambda n: "FROM a\n" + "ONBUILD RUN <<E\nE\n" * n,
}


@pytest.mark.parametrize("make", GROWING.values(), ids=GROWING)
def test_work_grows_with_the_text(make):
    """Twice the text is at most a little more than twice the steps: counted, not timed."""
    small, large = steps(make(500)), steps(make(1000))

    assert large < 2.2 * small + 200
