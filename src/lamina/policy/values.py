"""What source policies are made of, as values; and the errors that they end a build with.

A policy is a list of rules; a rule has an action for the sources that its selector matches. The names are BuildKit's
(`moby.buildkit.v1.sourcepolicy`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lamina.errors import InputError

ACTIONS = ("ALLOW", "DENY", "CONVERT")
MATCH_TYPES = ("WILDCARD", "EXACT", "REGEX")
CONDITIONS = ("EQUAL", "NOTEQUAL", "MATCHES")
MAX_RULES = 10_000
"""Most rules of one policy."""
MAX_IDENTIFIER = 4096
"""Most characters of an identifier, of a pattern that is no regular expression, and of an attribute that is matched."""
_USERINFO = re.compile(r"//[^/@\s]*@")


@dataclass(frozen=True, slots=True)
class Source:
    """A source as an op names it.

    Attributes:
        identifier: with its scheme, `docker-image://docker.io/library/alpine:latest`.
        attrs: what else the op says of it.
    """

    identifier: str
    attrs: Mapping[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """The identifier without credentials."""
        return _USERINFO.sub("//", self.identifier)[:400]


@dataclass(frozen=True, slots=True)
class Constraint:
    """What an attribute must be: `condition` is one of `CONDITIONS`; an attribute that is not there is ""."""

    key: str
    value: str
    condition: str = "EQUAL"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        action: one of `ACTIONS`.
        pattern: of identifiers, with a meaning that `match` (one of `MATCH_TYPES`) says.
        to: the identifier that a converted source gets, with `${1}` for parts that matched; "" for the pattern itself.
        attrs: attributes that a converted source gets; `updates` tells whether either was given.
        line: where it stands in its file, 0 where there is none.
    """

    action: str
    pattern: str
    match: str = "WILDCARD"
    constraints: tuple[Constraint, ...] = ()
    to: str = ""
    attrs: Mapping[str, str] = field(default_factory=dict)
    updates: bool = False
    line: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules in the order in which they are looked at; `name` is how messages call their file."""

    rules: tuple[Rule, ...]
    name: str = "the build's policy"

    def told(self, number: int) -> str:
        """Return how messages call the rule of that number, counted from 0."""
        rule = self.rules[number]
        where = f"{self.name}:{rule.line}" if rule.line else f"rule {number + 1} of {self.name}"
        return f"{where} ({rule.action} {rule.match} {_USERINFO.sub('//', rule.pattern)[:200]!r})"


class PolicyError(InputError):
    """A policy keeps a build from going on; `source_denied` names the source."""

    def __init__(self, what: str, *, denied: str = "", hint: str = "") -> None:
        super().__init__(what, hint=hint)
        self.source_denied = denied


class SourceDeniedError(PolicyError):
    """A source that a policy denies.

    Attributes:
        messages: what the policy's author says of it.
    """

    def __init__(self, source: Source, why: str, messages: Sequence[str] = ()) -> None:
        said = "".join(f"; {message}" for message in messages)
        super().__init__(f"source {source.shown!r} denied by policy: {why}{said}", denied=source.shown)
        self.messages = tuple(messages)
