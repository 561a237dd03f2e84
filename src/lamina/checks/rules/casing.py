"""Rules about upper and lower case, and about lines that only look right."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from lamina.checks.edits import (
    LineEdits,
    code_lines,
    in_case_of,
    references,
    remove_empty_lines,
    replace_once,
    rewrite_rest,
    word,
    written,
)
from lamina.checks.values import Fix, Hit, rule
from lamina.checks.view import View
from lamina.dockerfile.blanks import BLANKS
from lamina.dockerfile.instructions import From, Instruction, Label, Maintainer
from lamina.dockerfile.statements import split_fields, split_statement, split_words
from lamina.dockerfile.words import Words
from lamina.errors import InputError

AUTHORS = "org.opencontainers.image.authors"
"""The label that says who made an image."""


def _from_fields(view: View, item: From) -> list[str]:
    """Return the words of a FROM after its flags: image, AS, name."""
    return split_fields(split_statement(item.original, view.dockerfile.escape).rest)


@rule("StageNameCasing", "Stage names should be in lower case", buildkit=True)
def stage_name_casing(view: View) -> Iterator[Hit]:
    """Stage names are compared without regard to case; written in lower case they look the same wherever they stand."""
    for stage in view.stages:
        fields = _from_fields(view, stage.stage.base)
        if len(fields) == 3 and fields[2] != fields[2].lower():
            name, lower = fields[2], fields[2].lower()
            fix = _rename_stage(view, stage.stage.base, name)
            yield Hit(f"the stage name '{name}' has upper-case letters: write '{lower}'", stage.source, fix=fix)


def _rename_stage(view: View, base: From, name: str) -> Fix | None:
    """Return the fix that writes a stage's name in lower case, where it is given and where others mention it."""
    lower, changed = name.lower(), LineEdits(view)
    alias = re.compile(rf"(?<!\S)(?P<as>(?i:as)\s+){re.escape(name)}(?!\S)")
    lines = [number for number in code_lines(view, base) if alias.search(changed.line(number))]
    if len(lines) != 1:
        return None
    changed.put(lines[0], alias.sub(lambda match: match["as"] + lower, changed.line(lines[0])))
    for item, pattern in references(view, lower):
        changed.replace(item, pattern, lower)
    return Fix(f"write the stage name as {lower}, wherever it stands", changed.edits())


@rule("FromAsCasing", "AS should be in the same case as FROM", buildkit=True)
def from_as_casing(view: View) -> Iterator[Hit]:
    """`FROM ... as` reads as if `as` belonged to the image's name; what belongs together is written alike."""
    for stage in view.stages:
        fields, keyword = _from_fields(view, stage.stage.base), written(stage.stage.base)
        if len(fields) != 3 or keyword not in (keyword.lower(), keyword.upper()):
            continue
        wanted = "as" if keyword == keyword.lower() else "AS"
        if fields[1] != wanted:
            fix = replace_once(view, stage.stage.base, word(fields[1]), wanted, f"write {wanted}")
            yield Hit(f"'{fields[1]}' and '{keyword}' are in different case: write '{wanted}'", stage.source, fix=fix)


@rule("ConsistentInstructionCasing", "Instructions should all be in upper case, or all in lower case", buildkit=True)
def consistent_instruction_casing(view: View) -> Iterator[Hit]:
    """The case that most instructions have is the file's; upper case wins a draw."""
    items = [item for stage in view.dockerfile.stages for item in (stage.base, *stage.instructions)]
    words = [written(item) for item in items]
    lower = sum(text == text.lower() for text in words)
    upper = sum(text == text.upper() and text != text.lower() for text in words)
    wanted, case = (str.lower, "lower") if lower > upper else (str.upper, "upper")
    for item, text in zip(items, words, strict=True):
        if text != wanted(text):
            yield Hit(
                f"'{text}' is not in the case of most instructions here ({case} case): write '{wanted(text)}'",
                item.source,
                fix=_keyword_as(view, item, text, wanted(text)),
            )


def _keyword_as(view: View, item: Instruction, old: str, new: str) -> Fix | None:
    """Return the fix that writes an instruction's keyword otherwise; None when it goes on in the next line."""
    line = view.lines[item.source.start - 1]
    rest = line.lstrip(BLANKS)
    if not rest.startswith(old):
        return None
    changed = LineEdits(view)
    changed.put(item.source.start, line[: len(line) - len(rest)] + new + rest[len(old) :])
    return Fix(f"write {new}", changed.edits())


@rule("NoEmptyContinuation", "There should be no empty line inside a continued line", buildkit=True)
def no_empty_continuation(view: View) -> Iterator[Hit]:
    """An empty line looks like the end of the instruction, but is not; a later syntax makes it an error."""
    for source in view.dockerfile.empty_continuations:
        edits = remove_empty_lines(view, source.start)
        fix = Fix("remove the empty lines", edits) if edits else None
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
    found = [item for item in view.instructions() if isinstance(item, Maintainer)]
    for item in found:
        yield Hit(
            'MAINTAINER is deprecated: write LABEL org.opencontainers.image.authors="..."',
            item.source,
            fix=_authors_label(view, item) if len(found) == 1 else None,
        )


def _authors_label(view: View, item: Maintainer) -> Fix | None:
    """Return the fix that makes MAINTAINER a label; None when there is such a label, or the name cannot be quoted."""
    labels = (label for label in view.instructions() if isinstance(label, Label))
    if any(AUTHORS in name for label in labels for name, _ in label.pairs) or not item.name.isprintable():
        return None
    escape = view.dockerfile.escape
    quoted = json.dumps(item.name, ensure_ascii=False) if escape == "\\" else f'"{item.name}"'
    quoted = quoted.replace("$", escape + "$")
    try:
        if len(split_words(quoted, escape)) != 1 or Words(escape).word(quoted, {}).text != item.name:
            return None
    except InputError:
        return None
    return rewrite_rest(
        view, item, in_case_of(item, "LABEL"), f"{AUTHORS}={quoted}", "write it as a label", config=True
    )
