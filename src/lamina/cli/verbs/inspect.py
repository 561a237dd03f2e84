"""`lamina inspect`: an image's descriptor, manifest and config as JSON."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="names or image IDs")
    parser.add_argument("--format", choices=["json"], default="json", help="only JSON for now")


def run(args: Namespace) -> int:
    """Print a list with one object per image."""
    from lamina.cli.environment import load_environment
    from lamina.cli.output import print_json
    from lamina.engine.images import inspect_image

    root = load_environment().root
    print_json([inspect_image(root, name) for name in args.images])
    return 0
