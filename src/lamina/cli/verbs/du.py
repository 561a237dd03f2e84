"""`lamina du`: what takes up disk space."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    from lamina.cli.output import add_format

    add_format(parser)


def run(args: Namespace) -> int:
    """Print one row per kind of thing, and the sum."""
    from lamina.cli.environment import load_environment
    from lamina.cli.output import print_json
    from lamina.cli.terminal import size_text, table
    from lamina.engine.disk import du

    usage = du(load_environment().root)
    if args.format == "json":
        print_json([row.to_json() for row in usage])
        return 0
    cells = [(row.kind, str(row.count), size_text(row.size_bytes), size_text(row.reclaimable_bytes)) for row in usage]
    total = (
        "total",
        "",
        size_text(sum(r.size_bytes for r in usage)),
        size_text(sum(r.reclaimable_bytes for r in usage)),
    )
    print(table(("KIND", "COUNT", "SIZE", "RECLAIMABLE"), [*cells, total]))
    return 0
