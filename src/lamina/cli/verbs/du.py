"""`lamina du`: what takes up disk space, and why it is kept."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Sequence

    from lamina.engine.upkeep.records import Record, Totals


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    from lamina.cli.output import add_format

    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="COND",
        help="only what this holds for, such as until=24h, id=ID, id~=REGEX, type=exec.cachemount, inuse, shared",
    )
    parser.add_argument("--why", default="", metavar="ID", help="print the chain that keeps this thing on disk")
    parser.add_argument("-v", "--verbose", action="store_true", help="everything that is known of each thing")
    add_format(parser)


def run(args: Namespace) -> int:
    """Print one row per thing, biggest first, why it is kept, and the sums."""
    from lamina.cli.environment import load_environment
    from lamina.cli.output import print_json
    from lamina.cli.userns import enter_user_namespace
    from lamina.engine.disk import survey
    from lamina.engine.upkeep.filters import parse_filters

    wanted = parse_filters(args.filter) if args.filter else None
    enter_user_namespace()
    if args.why:
        return _why(args)
    records, totals = survey(load_environment(), wanted)
    if args.format == "json":
        from dataclasses import asdict

        print_json({"records": [record.to_json() for record in records], "totals": asdict(totals)})
    elif args.verbose:
        _print_verbose(records, totals)
    else:
        _print_table(records, totals)
    return 0


def _why(args: Namespace) -> int:
    """Print what keeps one thing, one link of the chain a line."""
    from dataclasses import asdict

    from lamina.cli.environment import load_environment
    from lamina.cli.output import print_json
    from lamina.cli.terminal import clean_name
    from lamina.engine.disk import why

    links = why(load_environment(), args.why)
    if args.format == "json":
        print_json([asdict(link) for link in links])
        return 0
    for number, link in enumerate(links):
        mend = f"   [to let go: {clean_name(link.mend)}]" if link.mend else ""
        print(f"{'  ' * min(number, 1)}{clean_name(link.what)}{mend}")
    return 0


def _print_table(records: Sequence[Record], totals: Totals) -> None:
    from time import time

    from lamina.cli.output import short_digest
    from lamina.cli.terminal import age_text, size_text, table

    now = time()
    cells = [
        (
            record.kind,
            short_digest(record.name),
            size_text(record.size_bytes),
            size_text(record.private_bytes),
            age_text(now - record.used),
            record.reason + (" (in use)" if record.in_use else ""),
            " ".join(record.description.split())[:60],
        )
        for record in records
    ]
    print(table(("KIND", "ID", "SIZE", "PRIVATE", "USED", "WHY", "WHAT"), cells))
    _print_totals(totals)


def _print_verbose(records: Sequence[Record], totals: Totals) -> None:
    from time import time

    from lamina.cli.terminal import age_text, clean_name, size_text

    now = time()
    for record in records:
        forms = {"tree": record.tree_bytes, "blob": record.blob_bytes, "index": record.index_bytes}
        lines = {
            "ID": record.name,
            "Kind": f"{record.kind} ({record.type})",
            "Description": " ".join(record.description.split()),
            "Parents": ", ".join(record.parents),
            "Size": size_text(record.size_bytes),
            "Forms": ", ".join(f"{name} {size_text(size)}" for name, size in forms.items() if size),
            "Shared": size_text(record.shared_bytes),
            "Private": size_text(record.private_bytes),
            "Mutable": str(record.mutable).lower(),
            "In use": str(record.in_use).lower(),
            "Created": age_text(now - record.created),
            "Last used": age_text(now - record.used),
            "Uses": str(record.uses),
            "Kept for": "; ".join(record.reasons) or record.reason,
        }
        print("\n".join(f"{name + ':':13s}{clean_name(text)}" for name, text in lines.items() if text) + "\n")
    _print_totals(totals)


def _print_totals(totals: Totals) -> None:
    from lamina.cli.terminal import size_text

    print(f"\nShared:       {size_text(totals.shared_bytes)}")
    print(f"Private:      {size_text(totals.private_bytes)}")
    print(f"Reclaimable:  {size_text(totals.reclaimable_bytes)}")
    print(f"Total:        {size_text(totals.total_bytes)}")
