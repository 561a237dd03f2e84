"""What counts as a blank in a Dockerfile: Unicode white space, without the four separators that Python adds.

`str.strip()` and `str.split()` also take U+001C to U+001F for blanks; BuildKit does not, and a path may hold them.
Pure constants; nothing comes in.
"""

from __future__ import annotations

import re

BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"  # noqa: E501
"""Every blank, for `str.strip`."""

BLANK_RUN = re.compile(f"[{BLANKS}]+")
"""One or more blanks."""

FIELD_GAP = re.compile(r"[\t\v\f\r ]+")
"""What separates a keyword from its arguments, and the fields of FROM, COPY, EXPOSE: ASCII blanks within a line."""
