"""Which request means what: paths of docker's Engine API, with and without a version in front. Pure.

routes = Routes()
routes.add("GET", "/images/{name:path}/json", show)
found = routes.find("GET", "/v1.41/images/app/json")
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from lamina.daemon.docker.failures import ApiError

if TYPE_CHECKING:
    from lamina.daemon.docker.exchange import Exchange

API_VERSION, MIN_API_VERSION = (1, 47), (1, 24)
_VERSIONED = re.compile(r"/v([0-9]{1,3})\.([0-9]{1,4})(/.*)\Z", re.DOTALL)
_PLACE = re.compile(r"\{([a-z]+)(:path)?\}")
_NO = frozenset({"", "0", "no", "false", "none"})
MAX_FIELDS = 10_000
MAX_FILTERS = 256 << 10

Filters = Mapping[str, tuple[str, ...]]


class Query:
    """The fields of a request line; a field may stand there several times."""

    def __init__(self, text: str) -> None:
        try:
            pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS)
        except ValueError as error:
            raise ApiError(400, f"the query is not understood: {error}") from error
        self._fields: dict[str, list[str]] = {}
        for name, value in pairs:
            self._fields.setdefault(name, []).append(value)

    def text(self, name: str, default: str = "") -> str:
        """Return a field's first value."""
        return self._fields.get(name, [default])[0]

    def texts(self, name: str) -> list[str]:
        """Return all values of a field."""
        return list(self._fields.get(name, ()))

    def flag(self, name: str, default: bool = False) -> bool:
        """Tell whether a field is on, as docker reads it: anything but nothing, 0, no, false, none."""
        return self.text(name).strip().lower() not in _NO if name in self._fields else default

    def number(self, name: str) -> int:
        """Return a field that is a number, 0 when it is not there.

        Raises:
            ApiError: it is no number.
        """
        text = self.text(name) or "0"
        if not re.fullmatch(r"-?[0-9]{1,19}", text, re.ASCII):
            raise ApiError(400, f"{name}: expected a number, got {text[:80]!r}")
        return int(text)

    def json(self, name: str) -> Any:
        """Return a field that is a JSON document, None when it is not there or empty.

        Raises:
            ApiError: it is no JSON.
        """
        text = self.text(name)
        if not text:
            return None
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ApiError(400, f"{name} is not JSON: {text[:80]!r}") from error

    def filters(self, known: frozenset[str]) -> Filters:
        """Return the field `filters`: names to values; of old clients lists, of new ones objects.

        Raises:
            ApiError: it is something else, or a filter is not known.
        """
        found = self.json("filters")
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise ApiError(400, "filters must be an object")
        result: dict[str, tuple[str, ...]] = {}
        for name, values in found.items():
            if name not in known:
                raise ApiError(400, f"invalid filter {name[:80]!r}")
            if isinstance(values, dict):
                values = [value for value, counts in values.items() if counts]
            if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                raise ApiError(400, f"filter {name!r}: expected a list of texts")
            result[name] = tuple(values)
        return result


@dataclass(frozen=True, slots=True)
class Request:
    """A request that has a handler.

    Attributes:
        exchange: where its body comes from and its answer goes.
        version: of the API that the client speaks.
        names: what stood in the places of the path.
    """

    exchange: Exchange
    version: tuple[int, int]
    names: Mapping[str, str]
    query: Query


Handler = Callable[[Request], None]


class Routes:
    """A table of handlers; the first that fits is taken."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, re.Pattern[str], Handler]] = []

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Add a handler. `{name}` stands for one part of a path, `{name:path}` for several."""
        pattern, end = "", 0
        for place in _PLACE.finditer(path):
            pattern += re.escape(path[end : place.start()])
            pattern += f"(?P<{place[1]}>{'.+' if place[2] else '[^/]+'})"
            end = place.end()
        self._rows.append((method, re.compile(pattern + re.escape(path[end:]) + r"\Z", re.DOTALL), handler))

    def find(self, method: str, target: str) -> tuple[Handler, tuple[int, int], dict[str, str], Query]:
        """Return handler, version, names and query for a request line.

        Raises:
            ApiError: there is no such page, or the version is not spoken.
        """
        path, _, query = target.partition("?")
        version = API_VERSION
        versioned = _VERSIONED.match(path)
        if versioned:
            version, path = (int(versioned[1]), int(versioned[2])), versioned[3]
            _check(version)
        for wanted, pattern, handler in self._rows:
            if wanted == method and (match := pattern.match(path)):
                names = {name: unquote(value) for name, value in match.groupdict().items()}
                return handler, version, names, Query(query)
        raise ApiError(404, "page not found")


def _check(version: tuple[int, int]) -> None:
    shown = f"{version[0]}.{version[1]}"
    if version > API_VERSION:
        raise ApiError(
            400, f"client version {shown} is too new. Maximum supported API version is {version_text(API_VERSION)}"
        )
    if version < MIN_API_VERSION:
        raise ApiError(
            400,
            f"client version {shown} is too old. Minimum supported API version is {version_text(MIN_API_VERSION)}, "
            "please upgrade your client to a newer version",
        )


def version_text(version: tuple[int, int]) -> str:
    """Return a version as docker writes it."""
    return f"{version[0]}.{version[1]}"
