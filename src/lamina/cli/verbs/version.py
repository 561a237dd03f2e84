"""`lamina version`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    parser.add_argument("--format", choices=["text", "json"], default="text", help="how to print it")


def run(args: Namespace) -> int:
    """Print the version."""
    from lamina import __version__

    if args.format == "json":
        import json

        print(json.dumps({"version": __version__}))
    else:
        print(f"lamina {__version__}")
    return 0
