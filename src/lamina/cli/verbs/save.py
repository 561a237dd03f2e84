"""`lamina save`: images of the store as one archive."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    from lamina.cli.transfer import add_progress

    parser.add_argument("images", nargs="+", metavar="IMAGE", help="names or image IDs")
    parser.add_argument("-o", "--output", default="-", metavar="FILE", help="file to write (default: standard output)")
    parser.add_argument("--format", choices=["docker", "oci"], default="docker", help="docker load's, or OCI archive")
    add_progress(parser)


def run(args: Namespace) -> int:
    """Write the archive."""
    import os
    import sys

    from lamina.cli.transfer import transfer
    from lamina.engine.transfer import save
    from lamina.errors import InputError

    if args.output == "-" and os.isatty(1):
        raise InputError("not writing an archive to a terminal", hint="redirect standard output or use -o FILE")
    transfer(
        args, lambda env, side: save(env, args.images, args.output, side, archive=args.format, stdout=sys.stdout.buffer)
    )
    return 0
