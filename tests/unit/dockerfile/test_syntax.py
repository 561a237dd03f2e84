"""A1.2: which front end a file asks for."""

from __future__ import annotations

import pytest

from lamina.dockerfile.parser import parse
from lamina.dockerfile.syntax import Syntax, check_syntax, find_syntax
from lamina.errors import NotYetError

FOUND = {
    "plain": (b"# syntax=docker/dockerfile:1\nFROM a\n", Syntax("docker/dockerfile:1", 1)),
    "no blanks": (b"#syntax=x\n", Syntax("x", 1)),
    "blanks and case": (b"#   SynTax =\tx/y:1  \r\nFROM a\r\n", Syntax("x/y:1", 1)),
    "BOM": (b"\xef\xbb\xbf# syntax=x\n", Syntax("x", 1)),
    "other directives before": (b"# escape=`\n# check=skip=all\n# syntax=x\n", Syntax("x", 3)),
    "with arguments": (b"# syntax=x --flag=1\n", Syntax("x", 1)),
    "no line end": (b"# syntax=x", Syntax("x", 1)),
    "slashes": (b"// syntax=x/gomake\nimport y\n", Syntax("x/gomake", 1)),
    "JSON": (b'\n{"a": [1],\n "syntax": "x/json:2"}\n', Syntax("x/json:2", 1)),
    "shebang": (b"#!/usr/bin/env -S lamina build -f\n# syntax=x\n", Syntax("x", 2)),
    "shebang and slashes": (b"#!/bin/x\n// syntax=y\n", Syntax("y", 2)),
    "shebang and JSON": (b'#!/bin/x\n{"syntax": "y"}', Syntax("y", 2)),
    "the first of two": (b"# syntax=x\n# syntax=y\n", Syntax("x", 1)),
    "none": (b"FROM a\n", None),
    "behind a comment": (b"# hello\n# syntax=x\n", None),
    "behind an empty line": (b"\n# syntax=x\n", None),
    "behind an instruction": (b"FROM a\n# syntax=x\n", None),
    "behind a directive that is none": (b"# other=1\n# syntax=x\n", None),
    "behind a directive given twice": (b"# escape=`\n# escape=`\n# syntax=x\n", None),
    "indented": (b"  # syntax=x\n", None),
    "no value": (b"# syntax=  \n", None),
    "JSON of another kind": (b'[{"syntax": "x"}]', None),
    "JSON with a number": (b'{"syntax": 1}', None),
    "JSON without end": (b'{"syntax": "x"', None),
    "deep JSON": (b'{"a":' + b"[" * 100_000, None),
    "nothing": (b"", None),
}


@pytest.mark.parametrize(("data", "expected"), FOUND.values(), ids=FOUND)
def test_where_it_is_found(data: bytes, expected: Syntax | None):
    """A1.2: `#`, `//`, JSON, behind `#!`; as a directive only at the top."""
    assert find_syntax(data) == expected


@pytest.mark.parametrize(
    "image",
    [
        *("docker/dockerfile", "docker/dockerfile:1", "docker/dockerfile:1.20.0", "docker/dockerfile:1-labs"),
        *("docker/dockerfile:labs", "docker.io/docker/dockerfile:1.7", "docker/dockerfile-upstream:master"),
        *("docker/dockerfile:1@sha256:" + "1" * 64, "index.docker.io/docker/dockerfile", "dockerfile.v0"),
    ],
)
def test_every_docker_dockerfile_is_the_one_built_in(image: str):
    """A1.2: any version, channel, digest; and `dockerfile.v0`. Nothing is downloaded."""
    check_syntax(f"# syntax={image}\nFROM a\n".encode(), "Dockerfile", {})
    check_syntax(b"# syntax=x/other\nFROM a\n", "Dockerfile", {"BUILDKIT_SYNTAX": image})


@pytest.mark.parametrize(
    "image", ["tonistiigi/buildmakefile", "example.com/docker/dockerfile:1", "dockerfile.v1", "$X"]
)
def test_others_are_not_yet_there(image: str):
    """A1.2: never taken for a Dockerfile in silence; the line is shown, and how to go on."""
    with pytest.raises(NotYetError) as caught:
        check_syntax(f"# escape=`\n# syntax={image}\nFROM a\n".encode(), "Dockerfile", {})

    assert image in str(caught.value) and str(caught.value).startswith("Dockerfile:2")
    assert caught.value.source is not None and "BUILDKIT_SYNTAX=docker/dockerfile:1" in caught.value.hint


def test_the_build_argument_comes_first():
    """A1.2: over the directive, in both directions, also when it is empty."""
    for value in ("x/y:1", " x/y:1 --arg", ""):
        with pytest.raises(NotYetError, match="BUILDKIT_SYNTAX"):
            check_syntax(b"# syntax=docker/dockerfile:1\n", "Dockerfile", {"BUILDKIT_SYNTAX": value})


def test_a_shebang_leaves_the_check_directive_alone():
    """A1.4, A1.5: a file may begin with `#!`; `check` counts behind it, `escape` does not, as in BuildKit."""
    dockerfile = parse("#!/usr/bin/env -S lamina build -f\n# check=skip=all\n# escape=`\nFROM a\n")

    assert dockerfile.directives["check"].value == "skip=all"
    assert dockerfile.escape == "\\"
    assert dockerfile.stages[0].base.comments == ("!/usr/bin/env -S lamina build -f", "escape=`")


def test_long_lines_take_linear_time():
    """A1.5: a megabyte of blanks inside a directive (the suite's time limit is the judge)."""
    text = "# syntax=a" + " " * (1 << 20) + "b\nFROM a\n"

    assert parse(text).directives["syntax"].value.endswith("b")
    assert find_syntax(text.encode()) == Syntax("a", 1)
