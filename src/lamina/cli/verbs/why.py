"""`lamina why`: why steps of a build were not found in the cache."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from lamina.cache.changes import Explanation
    from lamina.engine.history import Why

_PATHS = 20


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    from lamina.cli.output import add_format

    parser.add_argument(
        "build", metavar="BUILD", nargs="?", default="", help="id, or ^N for the Nth last (default: the last one here)"
    )
    parser.add_argument("step", metavar="STEP", nargs="?", default="", help="number of a step, or a part of its name")
    add_format(parser, "text")


def run(args: Namespace) -> int:
    """Print the reasons."""
    from lamina.cli.environment import load_environment
    from lamina.cli.output import print_json
    from lamina.cli.terminal import clean_text
    from lamina.engine.history import why

    found = why(load_environment().root, args.build, args.step, place=os.getcwd())
    if args.format == "json":
        print_json(found.to_json())
    else:
        print(clean_text("\n".join(_lines(found, whole=bool(args.step)))))
    return 0


def _lines(found: Why, *, whole: bool) -> Iterator[str]:
    from lamina.engine.history import explanation_of

    build = found.build
    count = f"{build.cached} of {build.steps} steps were cached"
    yield f"build {build.id} of {build.name} ({build.status}): {count}"
    if not found.steps:
        yield "nothing ran" + (f": the same as build {build.same_as}" if build.same_as else "")
    for step in found.steps:
        yield ""
        yield f"{step.number} {step.name}"
        told = explanation_of(step)
        if told is None:
            reason = {"cached": "it was cached", "not reached": "the build did not come to it"}
            yield f"    {reason.get(step.status, 'nothing is known about it')}"
        else:
            yield f"    {told.sentence}"
            yield from _details(told, whole=whole)


def _details(told: Explanation, *, whole: bool) -> Iterator[str]:
    """Yield what the sentence leaves out."""
    for number, change in enumerate(told.changes):
        if number > 0:
            yield f"    {change.sentence}"
        paths = change.paths if len(change.paths) > 1 else ()
        for path in paths if whole else paths[:_PATHS]:
            yield f"      {path}"
        if len(paths) > _PATHS and not whole:
            yield f"      ... and {len(paths) - _PATHS} more (name the step to see all)"
