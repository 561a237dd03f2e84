"""A1.15, A7.2: what a Dockerfile offers; the expected tables are what BuildKit's subrequests answer."""

from __future__ import annotations

import base64
import json

import pytest

from lamina.dockerfile.outline import list_targets, outline
from lamina.dockerfile.outline_shown import show_outline, show_targets
from lamina.dockerfile.parser import parse
from lamina.errors import InputError

TEXT = """\
# A is a global
ARG A=1
ARG U
# base what the base is
FROM scratch AS base
# B explains B
ARG B=2
ARG A
RUN --mount=type=secret,id=s1 --mount=type=secret,id=s2,required true
RUN --mount=type=cache,id=c,target=/c --mount=type=ssh true

# final is the end
FROM base AS final
ARG TARGETARCH
ARG C
RUN --mount=type=ssh,id=k,required true
FROM scratch AS unneeded
ARG NOT_SEEN
FROM scratch
COPY --from=final / /
"""
DATA = TEXT.encode()


def test_outline_of_the_last_stage():
    """A1.15, A7.2: all that its stages take, sorted by line; unneeded stages and built-in arguments are left out."""
    text = show_outline(outline(parse(DATA, "Dockerfile"), "", {"C": "9"}), DATA, "text")

    assert text == (
        "BUILD ARG   VALUE   DESCRIPTION\n"
        "A           1       is a global\n"
        "B           2       explains B\n"
        "C           9\n"
        "\n"
        "SECRET   REQUIRED\n"
        "s1\n"
        "s2       true\n"
        "\n"
        "SSH       REQUIRED\n"
        "default\n"
        "k         true\n"
    )


def test_outline_of_a_named_target():
    found = outline(parse(DATA, "Dockerfile"), "base", {})

    assert (found.name, found.description) == ("base", "what the base is")
    assert [one.name for one in found.args] == ["A", "B"]


def test_an_argument_that_only_from_takes():
    found = outline(parse(b"ARG TAG=1\nARG OTHER\nFROM a:${TAG}\n", "Dockerfile"), "", {})

    assert [(one.name, one.value) for one in found.args] == [("TAG", "1")]


def test_outline_as_json():
    """A7.2: fields as BuildKit has them; what is empty is left out."""
    value = json.loads(show_outline(outline(parse(DATA, "Dockerfile"), "final", {}), DATA, "json"))

    assert value["name"] == "final" and base64.b64decode(value["sources"][0]) == DATA
    assert value["secrets"][1] == {
        "name": "s2",
        "required": True,
        "location": {"ranges": [{"start": {"line": 9}, "end": {"line": 9}}]},
    }


def test_targets():
    """A1.15, A7.2"""

    assert show_targets(list_targets(parse(DATA, "Dockerfile")), DATA, "text") == (
        "TARGET      DESCRIPTION\nbase        what the base is\nfinal       is the end\nunneeded\n(default)\n"
    )


def test_targets_as_json():
    """A7.2"""

    value = json.loads(show_targets(list_targets(parse(b"FROM --platform=linux/arm64 a AS b\n", "D")), b"x", "json"))

    (target,) = value["targets"]
    assert target.pop("location")["ranges"][0]["start"]["line"] == 1
    assert target == {"name": "b", "default": True, "base": "a", "platform": "linux/arm64"}


def test_an_unknown_target_is_an_error():
    with pytest.raises(InputError, match="no stage 'x'"):
        outline(parse(DATA, "Dockerfile"), "x", {})
