"""Every message about a wrong Dockerfile, whole, as a person meets it.

Run this file to write the expected ones anew.
"""

from pathlib import Path

import pytest

from lamina.dockerfile.parser import parse
from lamina.errors import InputError

CASES = sorted((Path(__file__).parents[2] / "golden" / "dockerfile" / "errors").iterdir())


def message(case: Path) -> str:
    with pytest.raises(InputError) as caught:
        parse((case / "Dockerfile").read_bytes())
    return caught.value.diagnostics() + "\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_wrong_dockerfile_is_explained(case: Path):
    """What, where, the lines, and how to mend: changes here are read by eye."""
    assert message(case) == (case / "expected").read_text()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_message_helps(case: Path):
    """A newcomer is told where it is and what to do."""
    text = message(case)

    assert "hint: " in text
    assert "Dockerfile" in text.splitlines()[0]


if __name__ == "__main__":
    for each in CASES:
        (each / "expected").write_text(message(each))
