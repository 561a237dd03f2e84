"""`lamina images`: what is in the store."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from lamina.engine.images import ImageRow


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    from lamina.cli.output import add_format

    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="only images whose name contains this")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only image IDs")
    parser.add_argument("--no-trunc", action="store_true", help="print whole digests")
    add_format(parser)


def run(args: Namespace) -> int:
    """Print the images, newest first."""
    from lamina.cli.environment import load_environment
    from lamina.cli.output import print_json, short_digest
    from lamina.engine.images import list_images

    rows = [row for row in list_images(load_environment().root) if args.name in row.name]
    if args.format == "json":
        print_json([row.to_json() for row in rows])
    elif args.quiet:
        for image_id in dict.fromkeys(row.image_id for row in rows):
            print(image_id if args.no_trunc else short_digest(image_id))
    else:
        print(_table(rows, whole=args.no_trunc))
    return 0


def _table(rows: list[ImageRow], *, whole: bool) -> str:
    from time import time

    from lamina.cli.output import short_digest
    from lamina.cli.terminal import age_text, size_text, table

    now = time()
    cells = [
        (
            row.name or "<none>",
            row.image_id if whole else short_digest(row.image_id),
            row.platform,
            age_text(now - row.created) if row.created is not None else "",
            size_text(row.size_bytes),
        )
        for row in rows
    ]
    return table(("NAME", "IMAGE ID", "PLATFORM", "CREATED", "SIZE"), cells)
