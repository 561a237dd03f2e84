"""Here-document marks: which words of a line announce one (`<<EOF`, `<<-EOF`, `3<<"EOF"`).

In: a logical line, or one word of it. Out: `Heredoc` values without content; the scanner reads the content. Reference:
Dockerfile reference, "Here-documents". Pure.

Invariant: the same word is judged alike wherever it stands, so COPY finds among its sources what the scanner announced.
"""

from __future__ import annotations

import re

from lamina.dockerfile.instructions import Heredoc
from lamina.dockerfile.words import raw_words
from lamina.errors import InputError

_MARK = re.compile(r"([0-9]*)<<(-?)[\t\n\f\r ]*([^<]*)\Z")
MAX_PER_LINE = 1000
"""Most here-documents that one line may announce."""


def heredoc_of_word(word: str) -> Heredoc | None:
    """Return the here-document that `word` announces, its content still empty; None when it announces none.

    Raises:
        InputError: the word behind `<<` has an open quote or brace.
    """
    match = _MARK.match(word)
    if match is None or not match[3]:
        return None
    number, dash, rest = match.groups()
    plain = raw_words(rest, keep_escapes=False, keep_quotes=False)
    if len(plain) != 1:
        return None
    quoted = raw_words(rest, keep_escapes=False)
    expand = _quotes(plain[0]) == _quotes(quoted[0])
    return Heredoc(plain[0], "", expand=expand, strip_tabs=bool(dash), fd=int(number[:9] or 0))


def heredocs_of_line(line: str) -> list[Heredoc]:
    """Return the here-documents that a logical line announces, in order, their contents still empty.

    A line whose quotes do not close announces none: the shell may know what to make of it.

    Raises:
        InputError: a word behind `<<` cannot be read, or there are more than `MAX_PER_LINE`.
    """
    if "<<" not in line:
        return []
    try:
        words = raw_words(line, keep_escapes=True)
    except InputError:
        return []
    found = [heredoc for word in words if "<<" in word and (heredoc := heredoc_of_word(word)) is not None]
    if len(found) > MAX_PER_LINE:
        raise InputError(
            f"{len(found)} here-documents on one line, at most {MAX_PER_LINE} are taken",
            hint="spread them over several instructions",
        )
    return found


def _quotes(text: str) -> int:
    """Count the quotes in `text`."""
    return text.count("'") + text.count('"')
