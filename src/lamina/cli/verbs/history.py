"""`lamina history`: the records of builds (`ls`, `show`, `logs`, `export`, `rm`), or the layers of an image.

`lamina history IMAGE` is docker's: the layers, newest first, and what made them. The words of this verb win over
images of the same name; `docker.io/library/ls` still means the image.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    from lamina.cli.output import add_format

    parser.usage = (
        "lamina history IMAGE [--no-trunc] [--format table|json]\n"
        "       lamina history ls [-n N] [--format table|json]\n"
        "       lamina history show [BUILD] [--definition | --trace] [--format table|json]\n"
        "       lamina history logs [BUILD] [STEP]\n"
        "       lamina history export [BUILD] [--trace] [-o FILE]\n"
        "       lamina history rm BUILD... | --all | [--filter COND] [--older AGE] [--keep N]"
    )
    parser.add_argument("words", metavar="WORD", nargs="+", help="an image, or what to do with the records of builds")
    parser.add_argument("--no-trunc", action="store_true", help="print whole commands")
    parser.add_argument("-n", "--number", type=int, default=20, metavar="N", help="ls: how many builds (default 20)")
    parser.add_argument("-o", "--output", default="", metavar="FILE", help="export: where to (default standard output)")
    parser.add_argument("--definition", action="store_true", help="show: the graph (LLB) that was solved, as JSON")
    text = "show: how the build's time went; export: its spans as OTLP's JSON, for a collector or a viewer"
    parser.add_argument("--trace", action="store_true", help=text)
    parser.add_argument("--all", action="store_true", help="rm: every record")
    text = "rm: builds for which this holds, such as status=failed, name~=REGEX, until=24h (repeatable)"
    parser.add_argument("--filter", action="append", default=[], metavar="COND", help=text)
    parser.add_argument("--older", default="", metavar="AGE", help="rm: builds that began longer ago, such as 30d")
    parser.add_argument("--keep", type=int, default=0, metavar="N", help="rm: all but the newest N of those meant")
    add_format(parser)


def run(args: Namespace) -> int:
    """Do what the first word says."""
    from lamina.errors import InputError

    word, *rest = args.words
    if word in _VERBS:
        verb, most = _VERBS[word]
        if len(rest) > most:
            raise InputError(f"history {word} takes at most {most} words, not {len(rest)}")
        return verb(args, rest)
    if rest:
        raise InputError(f"history of one image, or one of {', '.join(_VERBS)}; not {word!r}")
    return _image(args, word)


def _ls(args: Namespace, _rest: list[str]) -> int:
    """List builds, newest first."""
    from time import time

    from lamina.cli.environment import load_environment
    from lamina.cli.output import print_json
    from lamina.cli.terminal import age_text, table
    from lamina.engine.history import builds

    found = builds(load_environment().root, limit=max(0, args.number))
    if args.format == "json":
        print_json([build.to_json() for build in found])
        return 0
    now = time()
    cells = [
        (
            build.id,
            build.name,
            age_text(now - build.started),
            f"{build.seconds:.1f}s" if build.completed is not None else "",
            build.status,
            f"{build.cached}/{build.steps}" if build.steps else "",
        )
        for build in found
    ]
    print(table(("BUILD", "NAME", "STARTED", "TOOK", "STATUS", "CACHED"), cells))
    return 0


def _show(args: Namespace, rest: list[str]) -> int:
    """Show one build and its steps."""
    from lamina.cli.environment import load_environment
    from lamina.cli.output import print_json
    from lamina.cli.terminal import clean_text, table
    from lamina.engine.history import explanation_of, show

    if args.definition:
        return _definition(rest)
    if args.trace:
        return _trace(rest)
    build, steps = show(load_environment().root, *(rest or [""]), place=os.getcwd())
    if args.format == "json":
        print_json({**build.to_json(), "vertices": [step.to_json() for step in steps]})
        return 0
    image = build.record.get("image") or {}
    lines = {
        "build": build.id,
        "name": build.name,
        "context": build.record.get("context", ""),
        "status": f"{build.status} after {build.seconds:.1f}s" if build.completed is not None else build.status,
        "error": build.error,
        "image": " ".join([image.get("digest", ""), *image.get("names", [])]).strip(),
        "same as": build.same_as,
    }
    print(clean_text("\n".join(f"{name}: {text}" for name, text in lines.items() if text)))
    for warning in build.record.get("findings", ()):
        print(clean_text(f"warning: {warning}"))
    print()
    cells = []
    for step in steps:
        told = explanation_of(step)
        name = step.name if args.no_trunc else _cut(step.name)
        took = f"{step.seconds:.1f}s" if step.status in ("ran", "failed") else ""
        cells.append((str(step.number), step.status, took, name, told.sentence if told is not None else ""))
    print(table(("STEP", "STATUS", "TOOK", "NAME", "WHY IT RAN"), cells))
    return 0


def _definition(rest: list[str]) -> int:
    """Print the graphs of a build, one JSON object for each platform, in the form of `--call=convertllb`."""
    from lamina.cli.environment import load_environment
    from lamina.cli.output import print_json
    from lamina.engine.convert_llb import as_json
    from lamina.engine.history import definition

    kept = definition(load_environment().root, *(rest or [""]), place=os.getcwd())
    for one in kept.definitions:
        print_json(as_json(one))
    if kept.changed:
        print("credentials were left out: digests are not those of the build", file=sys.stderr)
    return 0


def _trace(rest: list[str]) -> int:
    """Print the spans of a build, each below the one it belongs to."""
    from lamina.cli.environment import load_environment
    from lamina.cli.terminal import clean_text, table
    from lamina.engine.history import trace
    from lamina.tracing.messages import spans_of
    from lamina.tracing.tree import tree_of

    kept = trace(load_environment().root, *(rest or [""]), place=os.getcwd())
    print(f"trace {next(iter(spans_of(kept))).trace_id.hex()}")
    cells = [
        (f"{line.start_s:.3f}s", f"{line.seconds:.3f}s", line.status, "  " * min(line.depth, 20) + _cut(line.name, 100))
        for line in tree_of(kept)
    ]
    print(clean_text(table(("START", "TOOK", "STATUS", "SPAN"), cells)))
    return 0


def _logs(_args: Namespace, rest: list[str]) -> int:
    """Print what the steps wrote: of one step as it is, of several with heads."""
    from lamina.cli.environment import load_environment
    from lamina.cli.terminal import clean_name
    from lamina.engine.history import logs

    build, step = [*rest, "", ""][:2]
    for found, pieces in logs(load_environment().root, build, step, place=os.getcwd()):
        if not step:
            sys.stdout.write(f"==> {found.number} {clean_name(found.name)}\n")
            sys.stdout.flush()
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    return 0


def _export(args: Namespace, rest: list[str]) -> int:
    """Write a record as lines of JSON."""
    import json
    from contextlib import nullcontext
    from itertools import chain

    from lamina.cli.environment import load_environment
    from lamina.engine.history import export, trace

    root, place = load_environment().root, os.getcwd()
    if args.trace:
        from lamina.tracing.messages import as_json

        lines = iter([as_json(trace(root, *(rest or [""]), place=place))])
    else:
        lines = export(root, *(rest or [""]), place=place)
    first = next(lines)  # before the file is made: there may be no such build
    target = open(args.output, "w", encoding="ascii") if args.output else nullcontext(sys.stdout)  # noqa: SIM115
    with target as file:
        for line in chain([first], lines):
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
    return 0


def _rm(args: Namespace, rest: list[str]) -> int:
    """Drop records."""
    from lamina.cli.environment import load_environment
    from lamina.engine.history import remove
    from lamina.engine.history_filter import parse_build_filter
    from lamina.errors import InputError

    some = bool(args.filter or args.older or args.keep)
    if bool(rest) + bool(args.all) + some != 1:
        raise InputError("history rm takes builds, or --all, or --filter, --older and --keep")
    meant = None if rest else parse_build_filter(args.filter, args.older, args.keep)
    count = remove(load_environment().root, rest, meant=meant)
    print(f"removed {count} record{'' if count == 1 else 's'}")
    return 0


def _image(args: Namespace, name: str) -> int:
    """Print the history of an image."""
    from time import time

    from lamina.cli.environment import load_environment
    from lamina.cli.output import print_json, short_digest
    from lamina.cli.terminal import age_text, size_text, table
    from lamina.engine.images import image_history

    rows = image_history(load_environment().root, name)
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


_VERBS = {"ls": (_ls, 0), "show": (_show, 1), "logs": (_logs, 2), "export": (_export, 1), "rm": (_rm, 1000)}
