"""What must not be told: credentials in URLs and values that somebody marked as secret are blanked in JSON. Pure.

Applied to a whole predicate once, at its end, so that no field can be forgotten. Invariant: no hidden value, and no
user information of a URL, is a part of any text that comes out, nor of base64 data that was decoded for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

HIDDEN = "(hidden)"
_SHORTEST = 4
_CREDENTIALS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,20}://)[^/?#\s\"']{0,4096}@")
_GIT_USER = re.compile(r"^(ssh|git\+ssh)://$")


class Hiding:
    """Blanks texts.

    Args:
        values: secrets. What is shorter than four characters is only hidden where it is the whole of a text, or of
            what follows `=`: as a part of others it would hide everything and tell what it is.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        given = sorted({value for value in values if value}, key=len, reverse=True)
        self._short = frozenset(value for value in given if len(value) < _SHORTEST)
        long = [value for value in given if len(value) >= _SHORTEST]
        self._long = re.compile("|".join(map(re.escape, long))) if long else None

    def text(self, text: str) -> str:
        """Return a text without what must not be told."""
        if self._short:
            name, equals, value = text.partition("=")
            if text in self._short:
                return HIDDEN
            if equals and value in self._short:
                return f"{name}={HIDDEN}"
        if self._long is not None:
            text = self._long.sub(HIDDEN, text)
        return _CREDENTIALS.sub(_without_user, text) if "@" in text else text

    def json(self, value: Any) -> Any:
        """Return a JSON value with every text in it blanked; keys too."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key): self.json(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.json(item) for item in value]
        return value


def _without_user(found: re.Match[str]) -> str:
    """Return the scheme alone; of ssh addresses the user stays who is everybody (`git@`)."""
    scheme = found.group(1)
    if _GIT_USER.match(scheme) and found.group(0) == f"{scheme}git@":
        return found.group(0)
    return scheme
