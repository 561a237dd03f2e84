"""One logical line taken apart: keyword, flags, and the argument shapes that the instructions share.

In: a logical line and the escape character. Out: plain strings. Which flags and how many arguments an instruction
takes is `parser`'s business. Reference: Dockerfile reference, "Format", "Shell and exec form"; the word rules are
BuildKit's: quotes stay in the words of ENV, LABEL and ARG (they are resolved when the word is expanded), and are taken
off flags.

Invariant: time is linear in the line.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from lamina.dockerfile.blanks import BLANKS, FIELD_GAP
from lamina.errors import InputError


@dataclass(frozen=True, slots=True)
class Statement:
    """A logical line in three parts: keyword as written, flags without their quotes, the rest without outer blanks."""

    keyword: str
    flags: tuple[str, ...]
    rest: str


def split_statement(line: str, escape: str) -> Statement:
    """Return the parts of a logical line."""
    keyword, *after = FIELD_GAP.split(line.strip(BLANKS), maxsplit=1)
    flags, rest = _split_flags(after[0], escape) if after else ([], "")
    return Statement(keyword, tuple(flags), rest.strip(BLANKS))


def _split_flags(text: str, escape: str) -> tuple[list[str], str]:
    """Return the leading words that begin with `--`, and what follows them; a lone `--` ends them."""
    flags: list[str] = []
    position, end = 0, len(text)
    while True:
        while position < end and text[position] in BLANKS:
            position += 1
        if not text.startswith("--", position):
            return flags, text[position:]
        word, position = _flag_word(text, position, escape)
        if word == "--":
            return flags, text[position:]
        flags.append(word)


def _flag_word(text: str, position: int, escape: str) -> tuple[str, int]:
    """Return the word at `position` without quotes and escapes, and where it ends."""
    out: list[str] = []
    start, quote = position, ""
    while position < len(text):
        ch = text[position]
        if not quote and ch in BLANKS:
            break
        position += 1
        if quote and ch == quote:
            quote = ""
        elif not quote and ch in "'\"":
            quote = ch
        elif ch == escape:
            out.append(text[position : position + 1])
            position += 1
        else:
            out.append(ch)
    if quote:
        # All that follows is in the quotes, so nothing is left for the instruction.
        flag = text[start:position].split("=", 1)[0][:40]
        raise InputError(f"the flag {flag} opens a quote that is not closed", hint=f"add the missing {quote}")
    return "".join(out), position


def split_words(text: str, escape: str) -> list[str]:
    """Split `text` at blanks outside quotes; quotes and escapes stay in the words. An open quote ends with the text."""
    words: list[str] = []
    current: list[str] = []
    quote = ""
    position, end = 0, len(text)
    while position < end:
        ch = text[position]
        position += 1
        if not quote and ch in BLANKS:
            if current:
                words.append("".join(current))
                current = []
            continue
        if ch == escape and quote != "'":
            if position == end:
                break
            current.append(ch)
            ch = text[position]
            position += 1
        elif quote:
            quote = "" if ch == quote else quote
        elif ch in "'\"":
            quote = ch
        current.append(ch)
    if current:
        words.append("".join(current))
    return words


def split_fields(text: str) -> list[str]:
    """Split `text` at blanks, whatever quotes it has."""
    return FIELD_GAP.split(text) if text else []


def split_pairs(text: str, escape: str, keyword: str) -> tuple[list[tuple[str, str]], bool]:
    """Return the pairs of ENV or LABEL, and whether they stand in the old form `NAME VALUE`.

    Raises:
        InputError: a word without `=`, an empty name, or a name without a value.
    """
    words = split_words(text, escape)
    if not words:
        raise InputError(f"{keyword} needs at least one NAME=VALUE", hint=f"write {keyword} NAME=VALUE")
    if "=" not in words[0]:
        parts = FIELD_GAP.split(text, maxsplit=1)
        if len(parts) < 2:
            raise InputError(f"{keyword} needs a value for {text!r}", hint=f"write {keyword} {text}=VALUE")
        return [(parts[0], parts[1])], True
    pairs: list[tuple[str, str]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise InputError(
                f"{keyword} expects NAME=VALUE, got {word!r}", hint="put quotes around a value that has blanks"
            )
        if not name:
            raise InputError(f"{keyword} has an empty name in {word!r}", hint=f"write {keyword} NAME=VALUE")
        pairs.append((name, value))
    return pairs, False


def json_list(text: str) -> list[str] | None:
    """Return the strings of a JSON array; None when `text` is no JSON array and so stands in shell form.

    Raises:
        InputError: it is a JSON array, but holds something else than strings, or a NUL.
    """
    text = text.lstrip(BLANKS)
    if not text.startswith("["):
        return None
    try:
        values = json.loads(text, parse_constant=_no_constant, parse_int=float)
    except ValueError:
        return None
    except RecursionError:
        values = [[]]
    if not all(isinstance(value, str) for value in values):
        raise InputError(
            "a JSON array here may hold strings only", hint='put every argument in double quotes: ["program", "1"]'
        )
    if any("\0" in value for value in values):
        raise InputError(
            "a string in this JSON array has a NUL character, which no argument and no path can hold",
            hint="remove \\u0000",
        )
    return [value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for value in values]


def _no_constant(name: str) -> float:
    """Refuse what Python's JSON reader takes beyond the standard."""
    raise ValueError(name)
