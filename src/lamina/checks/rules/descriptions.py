"""Rules about the comments that describe stages and arguments."""

from __future__ import annotations

from collections.abc import Iterator

from lamina.checks.values import Hit, rule
from lamina.checks.view import View
from lamina.dockerfile.instructions import Arg, From


@rule(
    "InvalidDefinitionDescription",
    "A comment right above a stage or an argument should begin with its name",
    buildkit=True,
    experimental=True,
)
def invalid_definition_description(view: View) -> Iterator[Hit]:
    """`# name what it is` is shown where targets and arguments are listed; any other comment there is lost to it."""
    for item in view.instructions():
        names: tuple[str, ...] = ()
        if isinstance(item, From) and item.alias:
            names = (item.alias,)
        elif isinstance(item, Arg):
            names = tuple(name for name, _ in item.pairs)
        if not names or not item.comments or item.comments[-1].partition(" ")[0] in names:
            continue
        shown = names[0] if len(names) == 1 else "NAME"
        yield Hit(
            f"the comment above {item.keyword} does not begin with its name: write '# {shown} what it is', "
            "or put an empty comment between",
            item.source,
        )
