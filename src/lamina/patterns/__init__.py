"""Which paths a pattern means: the rules of `.dockerignore` (`ignore`), and the globs of COPY (`globs`). Pure."""

from __future__ import annotations

from lamina.patterns.globs import MAX_PATTERN, glob_regex, has_glob
from lamina.patterns.ignore import BLANKS, MAX_IGNORE_BYTES, MAX_WILD, IgnoreRules, parse_ignore, parse_ignore_lines

__all__ = [
    "BLANKS",
    "MAX_IGNORE_BYTES",
    "MAX_PATTERN",
    "MAX_WILD",
    "IgnoreRules",
    "glob_regex",
    "has_glob",
    "parse_ignore",
    "parse_ignore_lines",
]
