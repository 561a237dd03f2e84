"""`lamina plan`: what a build would run, from which cache the rest comes, how long it took last time. Runs nothing."""

from __future__ import annotations

import os

from lamina.cli.build_args import Request, prepare
from lamina.cli.inputs import find_inputs, is_remote
from lamina.cli.verbs.build import enter_user_namespace, open_session, options_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from lamina.engine.plan import BuildPlan

__all__ = ["add_arguments", "prepare", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the options: those of `lamina build`, and how to print."""
    from lamina.cli import build_args
    from lamina.cli.output import add_format

    build_args.add_arguments(parser)
    add_format(parser, "text")


def run(args: Namespace) -> int:
    """Print the plan."""
    from lamina.errors import InputError

    request = Request(args, os.environ)
    if is_remote(request.context):
        raise InputError("plan looks at a context that is here", hint="clone or download it first")
    enter_user_namespace()
    from lamina.cli.environment import load_environment
    from lamina.cli.output import print_json
    from lamina.cli.signals import cancelling
    from lamina.cli.terminal import clean_text
    from lamina.engine.options import BuildOptions
    from lamina.engine.plan import plan

    environment = load_environment()
    inputs = find_inputs(request.context, request.file)
    try:
        with cancelling() as cancel:
            session = open_session(request, inputs.context, environment)
            found = plan(BuildOptions(**options_of(request, inputs)), session, environment, cancel)
    finally:
        inputs.close()
    if args.format == "json":
        print_json(found.to_json())
    else:
        print(clean_text("\n".join(_lines(found))))
    return 0


def _lines(plan: BuildPlan) -> Iterator[str]:
    words = {"cached": "cached", "run": "runs", "perhaps": "perhaps"}
    for step in plan.steps:
        word = words[step.status] if step.origin in ("", "local") else f"{step.origin}"
        took = f" ({step.seconds:.1f}s last time)" if step.seconds is not None else ""
        yield f"{word:<8} {step.name}{took}"
        if step.why is not None:
            yield f"         {step.why.sentence}"
    runs = sum(1 for step in plan.steps if step.status == "run")
    perhaps = sum(1 for step in plan.steps if step.status == "perhaps")
    if not runs and not perhaps:
        yield f"all {len(plan.steps)} steps are cached"
        return
    total = f"{runs} of {len(plan.steps)} steps would run"
    if perhaps:
        total += f", {perhaps} more perhaps"
    total += f"; {plan.expected_s:.1f}s"
    if perhaps:
        total += f" to {plan.at_most_s:.1f}s"
    total += " by last time's numbers"
    yield total + (f" ({plan.unknown} without one)" if plan.unknown else "")
