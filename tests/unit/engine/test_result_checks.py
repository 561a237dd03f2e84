"""L9: to which lines a finding about the result belongs, and which layers are the build's own."""

from __future__ import annotations

import pytest

from lamina.dockerfile.parser import parse
from lamina.engine.result_checks import own_layers, source_of
from lamina.snapshot.rows import LayerRow

DOCKERFILE = """\
FROM debian:12 AS below
ENV TZ=Europe/Berlin
ENTRYPOINT ["/first"]
ENTRYPOINT ["/second"]
FROM below AS app
ENV OTHER=1
CMD ["x"]
FROM debian:12
USER web
"""


@pytest.mark.parametrize(
    ("target", "about", "line"),
    [
        ("app", "CMD", 7),
        ("app", "ENTRYPOINT", 4),
        ("app", "ENV", 2),
        ("app", "USER", 5),
        ("app", "", 5),
        ("below", "CMD", 1),
        ("", "USER", 9),
        ("", "CMD", 8),
    ],
)
def test_a_finding_stands_at_the_instruction_that_set_it(target: str, about: str, line: int):
    """The last one of its kind, in the target or what it is based on; FROM when the base image set it."""
    assert source_of(parse(DOCKERFILE), target, about).start == line


def row(number: int, origin: str = "") -> LayerRow:
    return LayerRow(number, None, None, None, None, 0, "", origin, 1, 1, 0, "", 0.0)


def test_layers_of_the_base_are_not_the_builds_own():
    """Base images' history has times, ours gets them later; layers that were pulled say where from."""
    history = [{"created": "2024"}, {"created": "2024", "empty_layer": True}, {}, {}]

    assert own_layers([row(1), row(2), row(3)], {"history": history}) == [2, 1]
    assert own_layers([row(1, "{}"), row(2)], {}) == [1]
    assert own_layers([], {"history": history}) == []
