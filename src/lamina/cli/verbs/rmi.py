"""`lamina rmi`: take names away; an image without a name is gone with the next `prune`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="names or image IDs (all names of that image)")
    parser.add_argument("-f", "--force", action="store_true", help="do not fail for images that are not there")


def run(args: Namespace) -> int:
    """Remove the images, all that can be, then fail for the first that could not."""
    from lamina.cli.environment import load_environment
    from lamina.cli.terminal import clean_name
    from lamina.engine.images import remove_image
    from lamina.errors import InputError

    root = load_environment().root
    missing: InputError | None = None
    for name in args.images:
        try:
            for removed in remove_image(root, name):
                print(f"untagged: {clean_name(removed)}")
        except InputError as error:
            missing = missing or error
    if missing is not None and not args.force:
        raise missing
    return 0
