"""`lamina push`: an image of the store to its registry."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    from lamina.cli.transfer import add_progress

    parser.add_argument("image", metavar="IMAGE", help="a name in the store; its registry is where it goes")
    parser.add_argument("destination", nargs="?", default="", metavar="NAME", help="push under this name instead")
    add_progress(parser)


def run(args: Namespace) -> int:
    """Upload the image and print its digest."""
    from lamina.cli.transfer import transfer
    from lamina.engine.transfer import push

    row = transfer(args, lambda env, side: push(env, args.image, side, destination=args.destination))
    print(f"{row.name}@{row.digest}")
    return 0
