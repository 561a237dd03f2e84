"""`lamina store check`: is everything in the store what it says it is?"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    from lamina.cli.output import add_format

    parser.add_argument("action", choices=["check"], help="check: verify digests, sizes and references")
    parser.add_argument("--quick", action="store_true", help="do not read the blobs, only look at them")
    add_format(parser)


def run(args: Namespace) -> int:
    """Print every problem; exit code 3 if there are any."""
    from lamina.cli.environment import load_environment
    from lamina.cli.output import print_json
    from lamina.cli.terminal import clean_name
    from lamina.cli.userns import enter_user_namespace
    from lamina.engine.images import open_store

    enter_user_namespace()
    problems = open_store(load_environment().root).check(full=not args.quick)
    faults = [problem for problem in problems if not problem.harmless]  # a leftover is swept by the next build
    if args.format == "json":
        print_json([str(problem) for problem in problems])
    else:
        for problem in problems:
            print(f"{'note' if problem.harmless else 'problem'}: {clean_name(str(problem))}")
        count = len(faults)
        print(f"{count} problem{'' if count == 1 else 's'}" if faults else "the store is sound")
    return 3 if faults else 0
