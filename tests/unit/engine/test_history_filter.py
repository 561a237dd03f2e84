"""I4: which records `history rm` means."""

from __future__ import annotations

import pytest

from lamina.engine.history_filter import parse_build_filter
from lamina.errors import InputError
from lamina.history.records import Build

NOW = 1_000_000.0


def build(number: int, status: str = "completed", name: str = "app", age: float = 0.0) -> Build:
    record = {"context": f"/src/{name}"}
    return Build(number, f"{number:010x}", "p", name, NOW - age, NOW, status, "", 1, 1, "", 0, record)


BUILDS = [
    build(4),
    build(3, "failed", age=3600),
    build(2, "failed", "lib", age=90_000),
    build(1, name="lib", age=200_000),
]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ({"texts": []}, [4, 3, 2, 1]),
        ({"texts": ["status=failed"]}, [3, 2]),
        ({"texts": ["status!=failed"]}, [4, 1]),
        ({"texts": ["status=failed,name=lib"]}, [2]),
        ({"texts": ["name~=^l", "until=2d"]}, [1]),
        ({"texts": ["context==/src/app"]}, [4, 3]),
        ({"texts": [], "older": "24h"}, [2, 1]),
        ({"texts": [], "keep": 3}, [1]),
        ({"texts": ["status=failed"], "keep": 1}, [2]),
        ({"texts": [], "keep": 9}, []),
    ],
)
def test_all_conditions_must_hold_and_the_newest_may_be_kept(words: dict[str, object], meant: list[int]):
    assert [one.seq for one in parse_build_filter(**words).choose(BUILDS, NOW)] == meant


@pytest.mark.parametrize(
    "text", ["failed", "status=broken", "size=3", "name~=(", "until=soon", "status", "name", "x" * 5000]
)
def test_what_is_no_condition_is_refused(text: str):
    with pytest.raises(InputError, match=r"--filter|until"):
        parse_build_filter([text])


def test_a_negative_number_to_keep_is_refused():
    with pytest.raises(InputError, match="--keep"):
        parse_build_filter([], keep=-1)
