"""`lamina history`: the layers of an image, newest first, and what made them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    from lamina.cli.output import add_format

    parser.add_argument("image", metavar="IMAGE", help="a name or an image ID")
    parser.add_argument("--no-trunc", action="store_true", help="print whole commands")
    add_format(parser)


def run(args: Namespace) -> int:
    """Print the history."""
    from time import time

    from lamina.cli.environment import load_environment
    from lamina.cli.output import print_json, short_digest
    from lamina.cli.terminal import age_text, size_text, table
    from lamina.engine.images import image_history

    rows = image_history(load_environment().root, args.image)
    if args.format == "json":
        print_json([row.to_json() for row in rows])
        return 0
    now = time()
    cells = [
        (
            short_digest(row.digest) or "<none>",
            age_text(now - row.created) if row.created is not None else "",
            row.created_by if args.no_trunc else _cut(row.created_by),
            size_text(row.size_bytes),
            row.comment,
        )
        for row in rows
    ]
    print(table(("LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"), cells))
    return 0


def _cut(text: str, width: int = 60) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"
