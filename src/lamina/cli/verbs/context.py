"""`lamina context`: what a build can see of its context, and which rule kept or dropped each path."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from lamina.cli.build_args import Request
    from lamina.cli.inputs import Inputs
    from lamina.engine.context_survey import Survey

_SAME_AS_BUILD = ("build_arg", "build_context", "platform")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options; those of the build mean what they mean there."""
    from lamina.cli.output import add_format

    add = parser.add_argument
    add("path", nargs="?", default=".", metavar="PATH", help="build context, as for `lamina build` (default .)")
    add("-f", "--file", default="", metavar="FILE", help="the Dockerfile (default PATH/Dockerfile)")
    add("--target", default="", metavar="STAGE", help="count as read what this stage needs (default: the last)")
    add("--build-arg", action="append", default=[], metavar="NAME[=VALUE]", help="value for an ARG")
    add("--build-context", action="append", default=[], metavar="NAME=SOURCE", help="additional named context")
    add("--platform", action="append", default=[], metavar="OS/ARCH", help="platform to build for")
    add("--why", default="", metavar="PATH", help="say of this one path which rules match, and which decides")
    add("-d", "--depth", type=int, default=2, metavar="N", help="how deep paths are listed (default 2; 0: all)")
    add("-n", "--rows", type=int, default=20, metavar="N", help="how many rows to show (default 20; 0: all)")
    add("-a", "--all", action="store_true", help="every path: --depth 0 --rows 0")
    add_format(parser)


def run(args: Namespace) -> int:
    """List the context; nothing is built and no file of it is read but the Dockerfile and the ignore file."""
    from lamina.cli.build_args import Request, parser_of
    from lamina.cli.inputs import find_inputs, is_remote
    from lamina.errors import InputError

    if args.depth < 0 or args.rows < 0:
        raise InputError("--depth and --rows are not negative")
    words = [f"--file={args.file}", f"--target={args.target}"]
    words += [f"--{name.replace('_', '-')}={value}" for name in _SAME_AS_BUILD for value in getattr(args, name)]
    request = Request(parser_of("lamina context")([*words, "--", args.path]), os.environ)
    remote = is_remote(request.context)
    inputs = _fetched(request) if remote else find_inputs(request.context, request.file, must_have=False)
    try:
        return _show(args, _surveys(request, inputs))
    finally:
        inputs.close()


def _fetched(request: Request) -> Inputs:
    from lamina.cli.environment import load_environment
    from lamina.cli.signals import cancelling
    from lamina.cli.userns import enter_user_namespace
    from lamina.cli.verbs.build import fetch

    enter_user_namespace()
    with cancelling() as cancel:
        return fetch(request, load_environment(), lambda _event: None, cancel)


def _surveys(request: Request, inputs: Inputs) -> tuple[Survey, ...]:
    from typing import Any

    from lamina.engine.context_survey import survey_contexts
    from lamina.engine.options import BuildOptions
    from lamina.errors import InputError

    options: dict[str, Any] = {**request.options}
    found = survey_contexts(
        BuildOptions(
            **options,
            context=inputs.context,
            dockerfile=inputs.dockerfile,
            dockerfile_name=inputs.name,
            ignore=inputs.ignore,
            ignore_name=inputs.ignore_name,
        )
    )
    if not found:
        raise InputError("there is no build context, only a Dockerfile", where=inputs.name, hint="give a directory")
    return found


def _show(args: Namespace, surveys: tuple[Survey, ...]) -> int:
    from lamina.cli.context_report import context_json, context_text, why, why_json, why_text
    from lamina.cli.output import print_json

    if args.why:
        survey = surveys[0]
        found = why(survey, _inside(args.why, survey.listing.root))
        if args.format == "json":
            print_json(why_json(survey, found))
        else:
            sys.stdout.write(why_text(survey, found))
        return 0
    if args.format == "json":
        print_json({"contexts": [context_json(survey) for survey in surveys]})
        return 0
    depth, rows = (0, 0) if args.all else (args.depth, args.rows)
    sys.stdout.write("\n".join(context_text(survey, depth, rows) for survey in surveys))
    return 0


def _inside(path: str, root: str) -> str:
    """Return a path of the context as rules see it."""
    import posixpath

    from lamina.errors import InputError

    clean = posixpath.normpath(path)
    if clean.startswith(root + "/"):
        clean = clean[len(root) :]
    clean = clean.lstrip("/")
    if clean in ("", ".") or clean == ".." or clean.startswith("../"):
        raise InputError("names no path inside the context", where=path, hint="write it relative to the context")
    return clean
