"""The comma-separated fields in the value of a flag such as `--mount` or `--device`.

In: the flag's text. Out: its fields, and the booleans that they spell. Pure. One CSV record, as in BuildKit.
"""

from __future__ import annotations

from lamina.errors import InputError

_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


def split_fields(flag: str, text: str) -> list[str]:
    """Return the fields of one CSV record; a field in double quotes may hold commas, `""` is a quote inside it.

    Raises:
        InputError: a quote that is not closed, or in the middle of a field.
    """
    fields: list[str] = []
    position = 0
    while True:
        if text.startswith('"', position):
            value, position = _quoted_field(flag, text, position)
        else:
            end = text.find(",", position)
            end = len(text) if end < 0 else end
            value, position = text[position:end], end
            if '"' in value:
                raise InputError(f"{flag}: a quote inside {value!r}", hint="put the whole KEY=VALUE in quotes")
        fields.append(value)
        if position >= len(text):
            return fields
        position += 1


def _quoted_field(flag: str, text: str, position: int) -> tuple[str, int]:
    """Return the quoted field at `position`, and where the comma behind it stands."""
    parts: list[str] = []
    position += 1
    while True:
        end = text.find('"', position)
        if end < 0:
            raise InputError(f"{flag}: a quote is not closed in {text[:80]!r}", hint='add the missing "')
        parts.append(text[position:end])
        position = end + 1
        if not text.startswith('"', position):
            break
        parts.append('"')
        position += 1
    if position < len(text) and text[position] != ",":
        raise InputError(
            f"{flag}: a comma is missing behind a quote in {text[:80]!r}", hint="put the whole KEY=VALUE in quotes"
        )
    return "".join(parts), position


def parse_boolean(flag: str, key: str, value: str) -> bool:
    """Return the boolean that `value` spells.

    Raises:
        InputError: it spells none.
    """
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise InputError(f"{flag}: {key} is true or false, got {value!r}", hint=f"write {key} or {key}=false")
