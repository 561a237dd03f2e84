"""JSON from outside, taken apart with every type and bound checked. Pure."""

from __future__ import annotations

import math
from typing import Any

from lamina.errors import InputError
from lamina.oci.digest import Digest


class Checked:
    """Checks the values of one document; `where` names it in messages."""

    def __init__(self, where: str) -> None:
        self.where = where

    def table(self, value: Any) -> dict[str, Any]:
        """Return a JSON object."""
        if not isinstance(value, dict):
            raise self._wrong(value, "an object")
        return value

    def items(self, value: Any, most: int) -> list[Any]:
        """Return an array of at most `most` items."""
        if not isinstance(value, list):
            raise self._wrong(value, "an array")
        if len(value) > most:
            raise InputError(f"an array of {len(value)} items, at most {most} are taken", where=self.where)
        return value

    def text(self, value: Any, most: int) -> str:
        """Return a text of at most `most` characters."""
        if not isinstance(value, str) or len(value) > most:
            raise self._wrong(value, f"a text of at most {most} characters")
        return value

    def digest(self, value: Any) -> Digest:
        """Return a digest."""
        return Digest(self.text(value, 200))

    def whole(self, value: Any, least: int, most: int) -> int:
        """Return a whole number within bounds."""
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._wrong(value, f"a whole number from {least} to {most}")
        return value

    def number(self, value: Any) -> float:
        """Return a number that is not negative."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise self._wrong(value, "a number")
        return float(value)

    def _wrong(self, value: Any, wanted: str) -> InputError:
        return InputError(f"{str(value)[:60]!r} stands where {wanted} must be", where=self.where)
