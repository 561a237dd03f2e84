"""Rules about the names of stages."""

from __future__ import annotations

from collections.abc import Iterator

from lamina.checks.values import Hit, rule
from lamina.checks.view import View

_RESERVED = ("context", "scratch")


@rule("DuplicateStageName", "Stage names should be unique", buildkit=True, aliases=("DL3024",))
def duplicate_stage_name(view: View) -> Iterator[Hit]:
    """Of two stages with one name, the later hides the earlier; which one a COPY means hangs on the order."""
    first: dict[str, int] = {}
    for stage in view.stages:
        name = stage.stage.name
        if name and name in first:
            yield Hit(
                f"the stage name '{name}' is taken by the stage in line {first[name]}: choose another", stage.source
            )
        first.setdefault(name, stage.source.start)


@rule("ReservedStageName", "Words with a meaning of their own should not name a stage", buildkit=True)
def reserved_stage_name(view: View) -> Iterator[Hit]:
    """`scratch` is the empty image and `context` the build context; a stage of that name cannot be told from them."""
    for stage in view.stages:
        if stage.stage.name in _RESERVED:
            yield Hit(f"'{stage.stage.name}' is a reserved word: give the stage another name", stage.source)
