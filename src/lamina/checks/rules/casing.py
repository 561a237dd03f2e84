"""Rules about upper and lower case, and about lines that only look right."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lamina.checks.values import Edit, Fix, Hit, rule
from lamina.checks.view import View
from lamina.dockerfile.instructions import From, Instruction, Onbuild
from lamina.dockerfile.statements import split_fields, split_statement

_FIRST_WORD = re.compile(r"\S+")


def _written(item: Instruction) -> str:
    """Return the keyword as it stands in the file."""
    match = _FIRST_WORD.match(item.original)
    return match[0] if match else item.keyword


def _from_fields(view: View, item: From) -> list[str]:
    """Return the words of a FROM after its flags: image, AS, name."""
    return split_fields(split_statement(item.original, view.dockerfile.escape).rest)


def _in_line(view: View, number: int, old: str, new: str, description: str) -> Fix | None:
    """Return the fix that puts `new` in place of the word `old` in a line; None when it is not there just once."""
    line = view.lines[number - 1]
    pattern = re.compile(rf"(?<!\S){re.escape(old)}(?!\S)")
    if len(pattern.findall(line)) != 1:
        return None
    return Fix(description, (Edit(number, number, pattern.sub(lambda _: new, line)),))


@rule("StageNameCasing", "Stage names should be in lower case", buildkit=True)
def stage_name_casing(view: View) -> Iterator[Hit]:
    """Stage names are compared without regard to case; written in lower case they look the same wherever they stand."""
    for stage in view.stages:
        fields = _from_fields(view, stage.stage.base)
        if len(fields) == 3 and fields[2] != fields[2].lower():
            name, lower = fields[2], fields[2].lower()
            fix = _in_line(view, stage.source.start, name, lower, f"write the stage name as {lower}")
            yield Hit(f"the stage name '{name}' has upper-case letters: write '{lower}'", stage.source, fix=fix)


@rule("FromAsCasing", "AS should be in the same case as FROM", buildkit=True)
def from_as_casing(view: View) -> Iterator[Hit]:
    """`FROM ... as` reads as if `as` belonged to the image's name; what belongs together is written alike."""
    for stage in view.stages:
        fields, keyword = _from_fields(view, stage.stage.base), _written(stage.stage.base)
        if len(fields) != 3 or keyword not in (keyword.lower(), keyword.upper()):
            continue
        wanted = "as" if keyword == keyword.lower() else "AS"
        if fields[1] != wanted:
            fix = _in_line(view, stage.source.start, fields[1], wanted, f"write {wanted}")
            yield Hit(f"'{fields[1]}' and '{keyword}' are in different case: write '{wanted}'", stage.source, fix=fix)


@rule("ConsistentInstructionCasing", "Instructions should all be in upper case, or all in lower case", buildkit=True)
def consistent_instruction_casing(view: View) -> Iterator[Hit]:
    """The case that most instructions have is the file's; upper case wins a draw."""
    items = [item for stage in view.dockerfile.stages for item in (stage.base, *stage.instructions)]
    words = [_written(item) for item in items]
    lower = sum(word == word.lower() for word in words)
    upper = sum(word == word.upper() and word != word.lower() for word in words)
    wanted, case = (str.lower, "lower") if lower > upper else (str.upper, "upper")
    for item, word in zip(items, words, strict=True):
        if word != wanted(word):
            fix = _in_line(view, item.source.start, word, wanted(word), f"write {wanted(word)}")
            yield Hit(
                f"'{word}' is not in the case of most instructions here ({case} case): write '{wanted(word)}'",
                item.source,
                fix=fix,
            )


@rule("NoEmptyContinuation", "There should be no empty line inside a continued line", buildkit=True)
def no_empty_continuation(view: View) -> Iterator[Hit]:
    """An empty line looks like the end of the instruction, but is not; a later syntax makes it an error."""
    for source in view.dockerfile.empty_continuations:
        fix = None
        if not view.lines[source.start - 1].strip():
            fix = Fix("remove the empty line", (Edit(source.start, source.start, ""),))
        yield Hit(
            "an empty line stands inside a continued instruction: remove it or make it a comment", source, fix=fix
        )


@rule(
    "MaintainerDeprecated",
    "MAINTAINER is deprecated: a label says who made the image",
    buildkit=True,
    aliases=("DL4000",),
)
def maintainer_deprecated(view: View) -> Iterator[Hit]:
    """`MAINTAINER` sets a field that few tools read; `org.opencontainers.image.authors` is where they look."""
    for item in view.instructions():
        if item.keyword == "MAINTAINER" and not isinstance(item, Onbuild):
            yield Hit('MAINTAINER is deprecated: write LABEL org.opencontainers.image.authors="..."', item.source)
