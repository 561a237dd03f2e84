"""What counts as a blank in a Dockerfile: Unicode white space, without the four separators that Python adds.

`str.strip()` and `str.split()` also take U+001C to U+001F for blanks; BuildKit does not, and a path may hold them.
Pure constants; nothing comes in. `BLANKS` itself lives where ignore files need it too.
"""

from __future__ import annotations

import re

from lamina.patterns import BLANKS

__all__ = ["BLANKS", "BLANK_RUN", "FIELD_GAP"]

BLANK_RUN = re.compile(f"[{BLANKS}]+")
"""One or more blanks."""

FIELD_GAP = re.compile(r"[\t\v\f\r ]+")
"""What separates a keyword from its arguments, and the fields of FROM, COPY, EXPOSE: ASCII blanks within a line."""
