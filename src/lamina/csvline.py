"""The `key=value,key=value` lists of docker's options: one CSV record, with quotes where a value holds a comma.

Pure. `"dest=a,b.tar",type=oci` is how a comma is written; a doubled quote inside quotes is a quote.
"""

from __future__ import annotations

from lamina.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def split_csv(text: str, option: str) -> list[str]:
    """Return the fields of one CSV record.

    Raises:
        InputError: a quote is not closed, or stands in the middle of a field.
    """
    if '"' not in text:
        return text.split(",")
    fields: list[str] = []
    position = 0
    while True:
        field, position = _field(text, position, option)
        fields.append(field)
        if position >= len(text):
            return fields
        if text[position] != ",":
            raise InputError(f"{option}: text after a closing quote in {text!r}")
        position += 1


def _field(text: str, position: int, option: str) -> tuple[str, int]:
    """Return the field that starts at `position`, and where it ends."""
    if not text.startswith('"', position):
        end = text.find(",", position)
        end = len(text) if end < 0 else end
        if '"' in text[position:end]:
            raise InputError(f"{option}: a quote in the middle of a field in {text!r}")
        return text[position:end], end
    parts = []
    position += 1
    while True:
        end = text.find('"', position)
        if end < 0:
            raise InputError(f"{option}: a quote is not closed in {text!r}")
        parts.append(text[position:end])
        if not text.startswith('"', end + 1):
            return "".join(parts), end + 1
        parts.append('"')
        position = end + 2


def parse_pairs(text: str, option: str) -> dict[str, str]:
    """Return the record's `key=value` fields, keys in lower case; a field without `=` has the value "".

    Raises:
        InputError: the record is malformed, or a key stands twice.
    """
    pairs: dict[str, str] = {}
    for field in split_csv(text, option):
        key, _, value = field.partition("=")
        key = key.strip().lower()
        if key in pairs:
            raise InputError(f"{option}: {key!r} is given twice in {text!r}")
        pairs[key] = value
    return pairs


def join_csv(fields: Iterable[str]) -> str:
    """Return fields as one CSV record that `split_csv` takes apart again."""
    return ",".join('"' + field.replace('"', '""') + '"' if set(field) & set(',"\n\r') else field for field in fields)
