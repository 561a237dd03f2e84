"""The corpus of Dockerfiles against the official Go parser: every one taken alike, or refused by both."""

import pytest

from support.dockerfile_corpus import cases
from support.official import DIFFERENCES, compare_all

CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_as_the_official_parser(case):
    """A1, A3-A5: instructions, flags, values, JSON or not, here-documents and lines are the judge's."""
    if case.name in DIFFERENCES:
        pytest.skip(DIFFERENCES[case.name])
    assert compare_all(case.text) is not case.rejected


def test_the_corpus_is_large_and_its_names_differ():
    assert len({case.name for case in CASES}) == len(CASES) > 150
