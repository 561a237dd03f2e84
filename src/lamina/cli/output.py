"""What verbs share when they print: `--format`, JSON for programs, short digests for people."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from typing import Any


def add_format(parser: ArgumentParser, default: str = "table") -> None:
    """Declare `--format`."""
    parser.add_argument("--format", choices=[default, "json"], default=default, help=f"{default} for people, or JSON")


def print_json(value: Any) -> None:
    """Print `value` as indented JSON; bytes that are not UTF-8 in names become escapes."""
    import json

    print(json.dumps(value, indent=2, ensure_ascii=True))


def short_digest(digest: str) -> str:
    """Return the first twelve characters of a digest's hex part."""
    return digest.rpartition(":")[2][:12]
