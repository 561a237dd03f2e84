"""`lamina prune`: remove what no image and no running build needs."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    from lamina.cli.output import add_format

    parser.add_argument("-a", "--all", action="store_true", help="also what later builds could take from the cache")
    parser.add_argument("-f", "--force", action="store_true", help="do not ask")
    parser.add_argument("--keep-storage", default="", metavar="SIZE", help="keep this much of the cache")
    add_format(parser)


def run(args: Namespace) -> int:
    """Ask, prune, and print what became free."""
    import os
    import sys

    from lamina.cli.build_args import parse_size
    from lamina.cli.environment import load_environment
    from lamina.cli.output import print_json
    from lamina.cli.terminal import size_text
    from lamina.cli.userns import enter_user_namespace
    from lamina.engine.disk import prune

    keep_bytes = parse_size(args.keep_storage, "--keep-storage") if args.keep_storage else 0
    if not args.force and os.isatty(0):
        sys.stderr.write("Remove cached results that no image needs? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return 0
    enter_user_namespace()
    freed = prune(load_environment().root, everything=args.all, keep_bytes=keep_bytes)
    if args.format == "json":
        print_json(freed.to_json())
    else:
        print(f"removed {freed.count} things, {size_text(freed.size_bytes)} are free again")
    return 0
