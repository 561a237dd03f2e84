"""`--call` and `--check`: what to do instead of building (A7.2)."""

import pytest

from lamina.cli.build_args import Request, parser_of
from lamina.cli.calls import parse_call
from lamina.errors import InputError


def request(*words: str) -> Request:
    return Request(parser_of()([*words, "."]), {})


@pytest.mark.parametrize("words", [(), ("--call=build",), ("--check=false",)])
def test_building_is_the_default(words: tuple[str, ...]) -> None:
    """A7.2: without it a build is a build."""
    assert request(*words).call is None


@pytest.mark.parametrize("words", [("--check",), ("--call=check",), ("--call", "lint"), ("--check=true",)])
def test_check(words: tuple[str, ...]) -> None:
    """A7.2: --check is short for --call=check."""
    call = request(*words).call

    assert call is not None and (call.name, call.format, call.ignore_status) == ("check", "text", False)


def test_format_and_status() -> None:
    """A7.2: buildx's options of a call."""
    call = parse_call("check,format=sarif,ignorestatus=true")

    assert call is not None and (call.format, call.ignore_status) == ("sarif", True)


@pytest.mark.parametrize("text", ["check,format=xml", "check,what", "build,format=", "check,ignorestatus=9"])
def test_what_is_not_known_is_refused(text: str) -> None:
    """A7.2: a wrong option is an error."""
    with pytest.raises(InputError):
        parse_call(text)


@pytest.mark.parametrize("name", ["targets", "outline", "convertllb", "subrequests.describe"])
def test_other_calls(name: str) -> None:
    """A7.2: what can be built, what a build asks for, its graph, and what there is to call."""
    call = parse_call(f"{name},format=json")

    assert call is not None and (call.name, call.format) == (name, "json")


def test_sarif_is_for_findings() -> None:
    """A7.2: only a check has a report of findings."""
    with pytest.raises(InputError):
        parse_call("targets,format=sarif")


def test_unknown_calls() -> None:
    """A7.2: what is no call of ours is an error."""
    with pytest.raises(InputError):
        parse_call("explain")
