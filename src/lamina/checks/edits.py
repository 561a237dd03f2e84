"""How rules write their fixes: single lines of an instruction changed in place, everything else left as it is.

In: a `View`, an instruction of its file. Out: `Edit`s. Comments and empty lines inside an instruction, here-documents
and line ends are never touched: `LineEdits` changes only what the parser joined to the logical line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from lamina.checks.values import Edit, Fix
from lamina.checks.view import View
from lamina.dockerfile.blanks import BLANKS
from lamina.dockerfile.instructions import Copy, Instruction, Onbuild, Run, Transfer


def code_lines(view: View, item: Instruction) -> list[int]:
    """Return the numbers of the lines that an instruction's logical line was joined from."""
    end = item.source.end - _heredoc_lines(item)
    numbers = range(item.source.start, min(end, len(view.lines)) + 1)
    return [
        number
        for number in numbers
        if (text := view.lines[number - 1].strip(BLANKS)) and (not text.startswith("#") or number == item.source.start)
    ]


def _heredoc_lines(item: Instruction) -> int:
    """Return how many lines the here-documents of an instruction take, their closing words included."""
    if isinstance(item, Onbuild):
        return _heredoc_lines(item.trigger)
    if isinstance(item, Run):
        return sum(doc.content.count("\n") + 1 for doc in item.heredocs)
    if isinstance(item, Transfer):
        return sum(doc.data.count("\n") + 1 for doc in item.inline)
    return 0


def word(text: str) -> re.Pattern[str]:
    """Return a pattern for `text` with blanks, or the line's ends, around it."""
    return re.compile(rf"(?<!\S){re.escape(text)}(?!\S)")


class LineEdits:
    """Changes to lines, gathered; the same line may be changed several times."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._changed: dict[int, str] = {}

    def line(self, number: int) -> str:
        """Return a line as it is by now, a carriage return at its end included."""
        return self._changed.get(number, self._view.lines[number - 1])

    def put(self, number: int, text: str) -> None:
        """Change a line; `text` has the carriage return that the line had."""
        self._changed[number] = text

    def replace(self, item: Instruction, pattern: re.Pattern[str], new: str) -> int:
        """Put `new` in place of all that matches in an instruction's lines; return how often that was."""
        count = 0
        for number in code_lines(self._view, item):
            text, found = pattern.subn(lambda _: new, self.line(number))
            if found:
                self.put(number, text)
                count += found
        return count

    def edits(self) -> tuple[Edit, ...]:
        """Return the changes, in the order of the file."""
        return tuple(Edit(number, number, text) for number, text in sorted(self._changed.items()))


def replace_once(view: View, item: Instruction, old: re.Pattern[str], new: str, description: str) -> Fix | None:
    """Return the fix that puts `new` in place of `old`; None when that is not there just once."""
    changed = LineEdits(view)
    return Fix(description, changed.edits()) if changed.replace(item, old, new) == 1 else None


def rewrite_rest(
    view: View, item: Instruction, keyword: str, rest: str, description: str, *, config: bool = False
) -> Fix | None:
    """Return the fix that makes an instruction `keyword rest`; None when it takes more than one line."""
    number = item.source.start
    line = view.lines[number - 1]
    if item.source.end != number or _is_continued(view, line):
        return None
    lead = line[: len(line) - len(line.lstrip(BLANKS))]
    tail = line[len(line.rstrip(BLANKS)) :]
    return Fix(description, (Edit(number, number, f"{lead}{keyword} {rest}{tail}"),), config)


def _is_continued(view: View, line: str) -> bool:
    return line.rstrip(BLANKS).endswith(view.dockerfile.escape)


def remove_empty_lines(view: View, start: int) -> tuple[Edit, ...]:
    """Return the edits that remove the empty lines from line `start` to the end of the continued line around it."""
    edits: list[Edit] = []
    for number in range(start, len(view.lines) + 1):
        line = view.lines[number - 1]
        text = line.strip(BLANKS)
        if not text:
            if number < len(view.lines):  # what follows the last line feed is no line
                edits.append(Edit(number, number, ""))
        elif not text.startswith("#") and not _is_continued(view, line):
            break
    return tuple(edits)


def written(item: Instruction) -> str:
    """Return an instruction's keyword as it stands in the file."""
    match = re.match(r"\S+", item.original)
    return match[0] if match else item.keyword


def in_case_of(item: Instruction, keyword: str) -> str:
    """Return `keyword` in the case in which the instruction's own is written."""
    return keyword.lower() if written(item).islower() else keyword


def references(view: View, name: str) -> Iterable[tuple[Instruction, re.Pattern[str]]]:
    """Yield the instructions that name a stage in another case than `name` (in lower case), and what to look for."""
    for stage in view.dockerfile.stages:
        image = stage.base.image
        if image != name and image.lower() == name:
            yield stage.base, word(image)
        for item in stage.instructions:
            if isinstance(item, Copy) and item.from_ != name and item.from_.lower() == name:
                yield item, re.compile(rf"(?<=--from=){re.escape(item.from_)}(?!\S)")
            elif isinstance(item, Run):
                for spelt in sorted({found for mount in item.mounts for found in _froms(mount)}):
                    if spelt != name and spelt.lower() == name:
                        yield item, re.compile(rf"(?<=[=,]from=){re.escape(spelt)}(?![^\s,])")


def _froms(mount: str) -> list[str]:
    return [part.partition("=")[2] for part in mount.split(",") if part.startswith("from=")]
