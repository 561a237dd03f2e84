"""`lamina cache mount`: the cache mounts of this machine: list, write out, read in, remove."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare `cache mount ls|export|import|rm`."""
    mounts = parser.add_subparsers(dest="what", required=True, metavar="mount").add_parser(
        "mount", help="directories that RUN --mount=type=cache keeps"
    )
    verbs = mounts.add_subparsers(dest="action", required=True, metavar="ls|export|import|rm")
    listing = verbs.add_parser("ls", help="list them, biggest first")
    listing.add_argument("--format", choices=("table", "json"), default="table", help="how to print")
    out = verbs.add_parser("export", help="write one as a tar archive")
    out.add_argument("id", metavar="ID", help="the mount's id, by default its target")
    out.add_argument("-o", "--output", default="-", metavar="FILE", help="where to (default: standard output)")
    into = verbs.add_parser("import", help="fill one from a tar archive; what it had is replaced")
    into.add_argument("id", metavar="ID", help="the mount's id, by default its target")
    into.add_argument("-i", "--input", default="-", metavar="FILE", help="where from (default: standard input)")
    remove = verbs.add_parser("rm", help="remove some")
    remove.add_argument("id", metavar="ID", nargs="+", help="ids")


def run(args: Namespace) -> int:
    """Do it."""
    import sys

    from lamina.cli.environment import load_environment
    from lamina.engine import mounts

    environment = load_environment()
    if args.action == "ls":
        _print(mounts.list_mounts(environment), args.format)
    elif args.action == "export":
        if args.output == "-":
            mounts.export_mount(environment, args.id, sys.stdout.buffer)
        else:
            mounts.export_to_file(environment, args.id, args.output)
    elif args.action == "import":
        if args.input == "-":
            mounts.import_mount(environment, args.id, sys.stdin.buffer)
        else:
            with open(args.input, "rb") as source:
                mounts.import_mount(environment, args.id, source)
    else:
        for name in args.id:
            mounts.remove_mount(environment, name)
    return 0


def _print(found: list[dict[str, object]], form: str) -> None:
    import json

    if form == "json":
        print(json.dumps(found, indent=2))
        return
    print(f"{'ID':40}  {'SIZE':>14}  LAST USED")
    for mount in found:
        print(f"{mount['id']!s:40}  {mount['bytes']:>14,}  {mount['used']}")
