"""L1, D13: why a step was not in the cache, for scripted causes; each sentence was read by a person and recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.golden import assert_golden
from support.why_causes import CAUSES, Case, make_base, needed_programs

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(bool(needed_programs()), reason=f"not here: {', '.join(needed_programs())}"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A store with the base image, for all causes that leave others alone."""
    folder = tmp_path_factory.mktemp("why")
    make_base(folder / "base", folder / "root")
    yield folder / "root"


def test_there_are_forty_causes():
    assert len(CAUSES) >= 40


@pytest.mark.parametrize("name", CAUSES)
def test_the_cause_is_told(name: str, root: Path, tmp_path: Path):
    """Every step that ran says why: the golden file has its name and the sentence."""
    case = Case(tmp_path, root)

    CAUSES[name](case)

    assert_golden(Path("why") / name, case.told())
