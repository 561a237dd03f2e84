"""`lamina tag`: another name for an image."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("source", metavar="IMAGE", help="a name or an image ID")
    parser.add_argument("target", metavar="NAME", help="the new name")


def run(args: Namespace) -> int:
    """Tag the image."""
    from lamina.cli.environment import load_environment
    from lamina.engine.images import tag_image

    tag_image(load_environment().root, args.source, args.target)
    return 0
