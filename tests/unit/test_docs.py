"""docs/dockerfile.md holds a table of the language; what it says of rows and tests is kept true here."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from support.results import case_rows

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs" / "dockerfile.md"
WANTED = {
    "A1": range(1, 17),
    "A2": range(1, 11),
    "A3": range(1, 14),
    "A4": range(1, 18),
    "A5": [*range(1, 16), 17],
    "A6": [1, 2, 3, 5, 6, 7, 8],
    "A7": [1, 2, 3, 5],
}
"""Numbers of the rows of each group that BuildKit has, and of those that only Lamina has."""
ROWS = [*(f"{group}.{number}" for group, numbers in WANTED.items() for number in numbers), "F1", "F2"]
ABSENT = ["A1.17", "A2.11", "A3.14", "A5.16", "A6.4", "A7.4"]
"""Rows that BuildKit does not have and neither does Lamina."""
_ROW = re.compile(r"^\| (?P<id>[A-F][0-9.]*) \| (?P<what>.+?) \| (?P<state>.+?) \| (?P<tests>.+) \|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[^`]*)`")
_ID = re.compile(r"\b(A\d\.\d+|F\d)\b")
_RANGE = re.compile(r"\b(A\d)\.(\d+) to \1\.(\d+)\b")


def table() -> dict[str, list[str]]:
    """Return the tests of each row of the page, by the row's ID."""
    return {found["id"]: _TEST.findall(found["tests"]) for found in _ROW.finditer(PAGE.read_text())}


def rows_of(text: str) -> set[str]:
    """Return the rows that a docstring names, one by one or as `A1.7 to A1.10`."""
    found = set(_ID.findall(text))
    for group, first, last in _RANGE.findall(text):
        found |= {f"{group}.{number}" for number in range(int(first), int(last) + 1)}
    return found


def rows_of_test(node: str) -> set[str]:
    """Return the rows that a test says it proves: its own docstring, its class's, or its golden case's line.

    Raises:
        AssertionError: there is no such test.
    """
    path, *names = node.partition("[")[0].split("::")
    assert names and (CHECKOUT / path).is_file(), f"no such file: {path}"
    level: ast.AST = ast.parse((CHECKOUT / path).read_text())
    found: set[str] = set()
    for name in names:
        inside = [one for one in getattr(level, "body", []) if getattr(one, "name", "") == name]
        assert inside and isinstance(inside[0], ast.ClassDef | ast.FunctionDef), f"no such test: {node}"
        level = inside[0]
        found |= rows_of(ast.get_docstring(inside[0]) or "")
    assert isinstance(level, ast.FunctionDef) and level.name.startswith("test_"), f"no test: {node}"
    case = node.partition("[")[2].removesuffix("]")
    return set(case_rows()[case]) if case else found


def test_every_row_is_there_once() -> None:
    """No capability of the language goes unmentioned, and none is mentioned twice."""
    found = [match["id"] for match in _ROW.finditer(PAGE.read_text())]

    assert sorted(found) == sorted(ROWS)


@pytest.mark.parametrize("row", ABSENT)
def test_what_is_not_there_is_said(row: str) -> None:
    """Beside the tables, so that nobody has to search."""
    assert f"({row})" in PAGE.read_text()


@pytest.mark.parametrize("row", ROWS)
def test_the_tests_of_a_row_exist_and_speak_of_it(row: str) -> None:
    """A renamed test, or one that proves something else, is noticed."""
    tests = table()[row]

    assert tests
    assert [node for node in tests if row not in rows_of_test(node)] == []


def test_every_golden_case_proves_a_row() -> None:
    """The cases' own lines name rows that there are."""
    assert {row for rows in case_rows().values() for row in rows} <= set(ROWS)
