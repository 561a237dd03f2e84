"""`lamina doctor`: what this machine offers for builds, and the one line that mends what is missing."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    from lamina.cli.output import add_format

    add_format(parser)
    parser.add_argument(
        "--cdi-dir", action="append", default=[], metavar="DIR", help="directory that describes devices (CDI)"
    )


def run(args: Namespace) -> int:
    """Print every finding; exit code 5 if something that builds need is missing."""
    from lamina.cli.environment import load_environment
    from lamina.cli.output import print_json
    from lamina.cli.probe import probe_machine
    from lamina.cli.terminal import clean_name, table

    findings = probe_machine(load_environment(), args.cdi_dir)
    if args.format == "json":
        print_json([finding.to_json() for finding in findings])
    else:
        print(table(("", "WHAT", "FOUND"), [(f.mark, f.what, f.found) for f in findings]))
        mends = [finding for finding in findings if finding.mend]
        if mends:
            print("\nto mend:")
            for finding in mends:
                print(f"  {finding.what}: {clean_name(finding.mend)}")
    return 5 if any(finding.mark == "missing" for finding in findings) else 0
