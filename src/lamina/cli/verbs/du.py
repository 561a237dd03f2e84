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
    """Print one row per thing, biggest first, why it is kept, and the sum."""
    from time import time

    from lamina.cli.environment import load_environment
    from lamina.cli.output import print_json, short_digest
    from lamina.cli.terminal import age_text, size_text, table
    from lamina.cli.userns import enter_user_namespace
    from lamina.engine.disk import du

    enter_user_namespace()
    usage = du(load_environment())
    if args.format == "json":
        from dataclasses import asdict

        print_json([asdict(row) for row in usage])
        return 0
    now = time()
    cells = [
        (
            row.kind,
            short_digest(row.name),
            size_text(row.size_bytes),
            age_text(now - row.used),
            row.reason + (" (in use)" if row.in_use else ""),
            " ".join(row.description.split())[:60],
        )
        for row in usage
    ]
    total = ("total", "", size_text(sum(row.size_bytes for row in usage)), "", "", "")
    print(table(("KIND", "ID", "SIZE", "USED", "WHY", "WHAT"), [*cells, total]))
    return 0
