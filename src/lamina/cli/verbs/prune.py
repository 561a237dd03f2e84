"""`lamina prune`: remove what nothing needs, or what a rule says; `--dry-run` tells what that would cost."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from lamina.engine.disk import Pruned
    from lamina.engine.upkeep.policy import Rule

_MOST_LINES = 20


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    from lamina.cli.output import add_format

    add = parser.add_argument
    add("-a", "--all", action="store_true", help="all that later builds could take from the cache, too")
    add("-f", "--force", action="store_true", help="do not ask")
    add("-n", "--dry-run", action="store_true", help="only say what would go, and which cache hits with it")
    add(
        "--filter",
        action="append",
        default=[],
        metavar="COND",
        help="only what this holds for, such as until=24h, id=ID, type=exec.cachemount, description~=REGEX",
    )
    add("--keep-duration", "--older-than", default="", metavar="AGE", help="keep what was used since, such as 24h, 7d")
    add(
        "--reserved-space",
        "--keep-storage",
        default="",
        metavar="SIZE",
        help="never go below this (10GB, 20%% of disk)",
    )
    add("--max-used-space", default="", metavar="SIZE", help="go down to this")
    add("--min-free-space", default="", metavar="SIZE", help="go on until so much of the disk is free")
    add("--images", action="store_true", help="images without a name, too, such as rebuilding a tag leaves")
    add("--gc", action="store_true", help="apply the garbage collection policies, as after a build")
    parser.add_argument("-v", "--verbose", action="store_true", help="name everything that goes")
    add_format(parser)


def run(args: Namespace) -> int:
    """Ask, prune, and print what became free."""
    import os
    import sys

    from lamina.cli.environment import load_environment
    from lamina.cli.signals import cancelling
    from lamina.cli.userns import enter_user_namespace
    from lamina.engine.disk import prune_by

    rules = _rules(args)
    if not args.force and not args.dry_run and os.isatty(0):
        sys.stderr.write("Remove cached results that no image needs? [y/N] ")
        sys.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return 0
    enter_user_namespace()
    environment = load_environment()
    with cancelling() as cancel:
        pruned = prune_by(
            environment,
            rules or environment.gc.rules,
            dry_run=args.dry_run,
            unnamed=args.images,
            cancel=cancel,
        )
    if args.format == "json":
        _print_json(pruned, args.dry_run)
    else:
        _print(pruned, args)
    return 0


def _rules(args: Namespace) -> list[Rule]:
    """Return the rule that the options make, none for the configured policies.

    Raises:
        InputError: options that cannot be understood, or not together.
    """
    from lamina.engine.upkeep.policy import parse_rule
    from lamina.errors import InputError

    limits = (args.keep_duration, args.reserved_space, args.max_used_space, args.min_free_space)
    if args.gc:
        if args.all or args.filter or any(limits):
            raise InputError("--gc applies the configured policies: it takes no other rule")
        return []
    rule = parse_rule(
        name="`lamina prune --all`" if args.all else "`lamina prune`",
        everything=args.all,
        filters=args.filter,
        keep_duration=args.keep_duration,
        reserved_space=args.reserved_space,
        max_used_space=args.max_used_space,
        min_free_space=args.min_free_space,
    )
    return [rule]


def _print_json(pruned: Pruned, dry_run: bool) -> None:
    from dataclasses import asdict

    from lamina.cli.output import print_json

    plan = pruned.plan
    found = {
        "count": len(plan.removals) if dry_run else pruned.outcome.count,
        "freed_bytes": plan.freed_bytes if dry_run else pruned.outcome.freed_bytes,
        "dry_run": dry_run,
        "lost_hits": [asdict(hit) for hit in plan.lost],
        "lost_seconds": sum(hit.seconds for hit in plan.lost),
        "removals": [asdict(removal) for removal in plan.removals],
        "pinned": [asdict(pin) for pin in plan.pinned],
        "limit_reached": plan.reached,
    }
    print_json(found)


def _print(pruned: Pruned, args: Namespace) -> None:
    from lamina.cli.terminal import clean_name, size_text

    plan = pruned.plan
    if args.verbose or args.dry_run:
        shown = plan.removals if args.verbose else sorted(plan.removals, key=lambda one: -one.bytes)[:_MOST_LINES]
        for removal in shown:
            name = f"{removal.kind} {removal.name[:19]}"
            print(
                f"{size_text(removal.bytes):>8s}  {clean_name(name)}  {clean_name(removal.description[:60])}".rstrip()
            )
        if len(shown) < len(plan.removals):
            print(f"{'':8s}  and {len(plan.removals) - len(shown)} more")
    if plan.lost and (args.verbose or args.dry_run):
        seconds = sum(hit.seconds for hit in plan.lost)
        print(f"cache hits {'that would be lost' if args.dry_run else 'lost'}, {seconds:.1f} s to run again:")
        dearest = sorted(plan.lost, key=lambda hit: -hit.seconds)
        for hit in dearest if args.verbose else dearest[:_MOST_LINES]:
            print(f"{hit.seconds:7.1f}s  {clean_name(' '.join(hit.description.split())[:100])}")
        if not args.verbose and len(dearest) > _MOST_LINES:
            print(f"{'':8s}  and {len(dearest) - _MOST_LINES} more")
    if not plan.reached:
        print(f"the limit of {size_text(plan.wanted_bytes or 0)} cannot be reached: {size_text(plan.left_bytes)} stay:")
        for pin in plan.pinned if args.verbose else plan.pinned[:_MOST_LINES]:
            print(f"{size_text(pin.bytes):>8s}  {pin.kind} {pin.name[:19]}: {clean_name(pin.reason)}")
    count = len(plan.removals) if args.dry_run else pruned.outcome.count
    freed = plan.freed_bytes if args.dry_run else pruned.outcome.freed_bytes
    things = f"{count} thing{'' if count == 1 else 's'}"
    if args.dry_run:
        print(f"would remove {things} and free {size_text(freed)}")
    else:
        print(f"removed {things}, {size_text(freed)} are free again")
