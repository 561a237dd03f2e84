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
    parser.add_argument("--older-than", default="0s", metavar="AGE", help="keep what was used since, such as 24h")
    add_format(parser)


def run(args: Namespace) -> int:
    """Ask, prune, and print what became free."""
    import os
    import sys

    from lamina.cli.environment import load_environment
    from lamina.cli.output import print_json
    from lamina.cli.terminal import size_text
    from lamina.cli.userns import enter_user_namespace
    from lamina.engine.disk import prune

    older_than_s = parse_age(args.older_than)
    if not args.force and os.isatty(0):
        sys.stderr.write("Remove cached results that no image needs? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return 0
    enter_user_namespace()
    count, freed_bytes = prune(load_environment(), everything=args.all, older_than_s=older_than_s)
    if args.format == "json":
        print_json({"count": count, "freed_bytes": freed_bytes})
    else:
        print(f"removed {count} thing{'' if count == 1 else 's'}, {size_text(freed_bytes)} are free again")
    return 0


def parse_age(text: str) -> float:
    """Return seconds for `30s`, `10m`, `24h` or `7d`."""
    from lamina.errors import InputError

    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.isascii() or not number.isdigit():
        raise InputError(f"--older-than: {text!r} is not an age", hint="write a number with s, m, h or d")
    return float(int(number) * units[unit])
