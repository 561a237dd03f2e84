"""What the engine tells the checks, and what it makes of their findings (F2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.dockerfile.parser import parse
from lamina.engine.check import _lister, check_in_build
from lamina.engine.options import BuildOptions
from lamina.errors import InputError
from lamina.oci.platform import Platform
from lamina.progress import Event, WarningEvent

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def test_the_context_is_listed_and_nothing_else(tmp_path: Path) -> None:
    """Names of one directory, those of directories with a slash; no way out of the context."""
    context = tmp_path / "context"
    (context / "src" / "deep").mkdir(parents=True)
    (context / "src" / "a.py").touch()
    (context / "out").symlink_to("/etc")
    listed = _lister(str(context))

    assert listed("") == ["out", "src/"]
    assert listed("src") == ["a.py", "deep/"]
    assert [list(listed(path)) for path in ("out", "..", "src/../..", "gone", "src/a.py", "a\0b")] == [[]] * 6


def told(text: str, platforms: list[Platform], **options: object) -> tuple[list[Event], tuple[str, ...]]:
    """Check a build; return the events and the lines kept with its result."""
    events: list[Event] = []
    configs = {("docker.io/library/debian:12", "linux/arm64"): {"os": "linux", "architecture": "amd64"}}
    kept = check_in_build(parse(text), BuildOptions(**options), platforms, configs, events.append)  # type: ignore[arg-type]
    return events, kept


def test_findings_become_warnings_with_rule_page_and_lines() -> None:
    """F2: an event for the displays, a line for the result."""
    (event, advice), kept = told("FROM scratch\nCMD a\n", [AMD64])

    assert isinstance(event, WarningEvent) and event.source is not None
    assert event.short.startswith("JSONArgsRecommended: ")
    assert (event.source.start, event.url.rpartition("/rule/")[2]) == (2, "json-args-recommended/")
    assert len(kept) == 1 and kept[0].endswith("(Dockerfile:2)")
    assert isinstance(advice, WarningEvent) and advice.short.startswith("1 piece of advice about Dockerfile")


def test_several_platforms_say_a_thing_once() -> None:
    """F2: what is true for one platform only is said too."""
    events, _ = told("FROM debian:12\nCMD a\n", [AMD64, ARM64])
    rules = [event.short.partition(":")[0] for event in events if isinstance(event, WarningEvent)]

    assert rules[:2] == ["InvalidBaseImagePlatform", "JSONArgsRecommended"]
    assert len(rules) == 3 and "advice" in rules[2]


def test_a_flood_is_cut_short() -> None:
    """F2: a display is not drowned."""
    events, kept = told("from scratch\n" + "User x\nENV A $b\n" * 500, [AMD64])

    assert len(events) == 201 and len(kept) == 200
    assert isinstance(events[200], WarningEvent) and "lamina build --check" in events[200].short


def test_error_true_raises_after_telling() -> None:
    """A1.4: the findings are told first, then the build ends."""
    with pytest.raises(InputError) as caught:
        told("# check=error=true\nFROM scratch\nCMD a\n", [AMD64])

    assert "JSONArgsRecommended" in str(caught.value)
