"""`lamina pull`: an image from a registry into the store."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    from lamina.cli.transfer import add_progress

    parser.add_argument("image", metavar="IMAGE", help="a reference such as debian:12")
    parser.add_argument("--platform", default="", metavar="OS/ARCH", help="platform to fetch (default: this machine's)")
    add_progress(parser)


def run(args: Namespace) -> int:
    """Fetch the image and print its digest."""
    from lamina.cli.transfer import transfer
    from lamina.engine.transfer import pull

    row = transfer(args, lambda env, side: pull(env, args.image, side, platform=args.platform))
    print(f"{row.name}@{row.digest}")
    return 0
