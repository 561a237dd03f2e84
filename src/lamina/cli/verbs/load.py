"""`lamina load`: images of an archive or an OCI layout into the store."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    from lamina.cli.transfer import add_progress

    parser.add_argument("-i", "--input", default="-", metavar="PATH", help="file or layout (default: standard input)")
    parser.add_argument("-t", "--tag", default="", metavar="NAME", help="name for an image that brings none")
    add_progress(parser)


def run(args: Namespace) -> int:
    """Read the archive and print the names that came."""
    import os
    import sys

    from lamina.cli.terminal import clean_name
    from lamina.cli.transfer import transfer
    from lamina.engine.transfer import load
    from lamina.errors import InputError

    if args.input == "-" and os.isatty(0):
        raise InputError("standard input is a terminal", hint="redirect an archive into it or use -i FILE")
    stdin = sys.stdin.buffer
    for row in transfer(args, lambda env, side: load(env, args.input, side, name=args.tag, stdin=stdin)):
        print(f"loaded: {clean_name(row.name or row.image_id)}")
    return 0
