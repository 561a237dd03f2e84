"""Policies from files (JSON, as buildctl and buildx read them) and from messages of clients.

In: text, or a `moby.buildkit.v1.sourcepolicy.Policy`. Out: a `Policy` whose every pattern has been compiled once, so
that a rule nobody can match is found before the build. Names in files may be written `match_type` or `matchType`;
values of enumerations as words or numbers; a name that means nothing is an error, since a rule that is not there
protects nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lamina.errors import InputError
from lamina.patterns.regex import compile_pattern, compile_wildcard
from lamina.policy.json_text import Value, parse_json
from lamina.policy.values import (
    ACTIONS,
    CONDITIONS,
    MATCH_TYPES,
    MAX_IDENTIFIER,
    MAX_RULES,
    Constraint,
    Policy,
    Rule,
)

MAX_BYTES = 4 << 20
"""Largest file."""


def parse_policy(text: str, name: str) -> Policy:
    """Return the policy that a file holds.

    Args:
        name: of the file, for messages.

    Raises:
        InputError: it is none; says the line.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"a source policy has at most {MAX_BYTES >> 20} MiB", where=name)
    return _File(name).policy(parse_json(text, name))


def policy_of(message: Any, name: str) -> Policy:
    """Return the policy that a client's message holds.

    Raises:
        InputError: a rule of it has no meaning.
    """
    if len(message.rules) > MAX_RULES:
        raise InputError(f"{name} has {len(message.rules)} rules; at most {MAX_RULES} are taken")
    rules = []
    for number, one in enumerate(message.rules):
        try:
            if not one.HasField("selector"):
                raise InputError("a rule without a selector")
            rule = Rule(
                _numbered(ACTIONS, one.action, "action"),
                one.selector.identifier,
                _numbered(MATCH_TYPES, one.selector.match_type, "match_type"),
                tuple(
                    Constraint(held.key, held.value, _numbered(CONDITIONS, held.condition, "condition"))
                    for held in one.selector.constraints
                ),
                one.updates.identifier,
                dict(one.updates.attrs),
                one.HasField("updates"),
            )
            check_rule(rule)
        except InputError as error:
            raise InputError(f"rule {number + 1} of {name}: {error.what}", hint=error.hint) from error
        rules.append(rule)
    return Policy(tuple(rules), name)


def check_rule(rule: Rule) -> None:
    """Refuse a rule that could never be judged.

    Raises:
        InputError: what is wrong with it.
    """
    if len(rule.pattern) > MAX_IDENTIFIER or len(rule.to) > MAX_IDENTIFIER:
        raise InputError(f"an identifier has at most {MAX_IDENTIFIER} characters")
    if rule.match == "REGEX":
        compile_pattern(rule.pattern)
    elif rule.match == "WILDCARD":
        compile_wildcard(rule.pattern)
    for one in rule.constraints:
        if one.condition == "MATCHES":
            compile_pattern(one.value)
    if rule.action == "CONVERT" and not rule.updates:
        raise InputError("a CONVERT without 'updates'", hint='"updates": {"identifier": ...}')


def _numbered(names: Sequence[str], number: int, what: str) -> str:
    if not 0 <= number < len(names):
        raise InputError(f"unknown {what} {number}", hint=", ".join(names))
    return names[number]


class _File:
    """Reads one file; messages name its lines."""

    def __init__(self, name: str) -> None:
        self._name = name

    def policy(self, top: Value) -> Policy:
        members = self._members(top, "a source policy", "version", "rules")
        version = members.get("version")
        if version is not None and (isinstance(version.value, bool) or version.value not in (0, 1)):
            raise self._error(version, f"unknown version {version.value!r:.40} of source policies", hint="1")
        listed = self._list(members.get("rules"), "rules")
        if len(listed) > MAX_RULES:
            raise self._error(top, f"{len(listed)} rules; at most {MAX_RULES} are taken")
        return Policy(tuple(self._rule(one) for one in listed), self._name)

    def _rule(self, found: Value) -> Rule:
        members = self._members(found, "a rule", "action", "selector", "updates")
        if "selector" not in members:
            raise self._error(found, "a rule without a selector", hint='"selector": {"identifier": ...}')
        selector = self._members(members["selector"], "a selector", "identifier", "match_type", "constraints")
        updates = members.get("updates")
        to = self._members(updates, "updates", "identifier", "attrs") if updates and updates.value is not None else {}
        rule = Rule(
            self._word(members.get("action"), ACTIONS, "action"),
            self._text(selector.get("identifier"), "identifier"),
            self._word(selector.get("match_type"), MATCH_TYPES, "match_type"),
            tuple(map(self._constraint, self._list(selector.get("constraints"), "constraints"))),
            self._text(to.get("identifier"), "identifier"),
            self._attrs(to.get("attrs")),
            updates is not None and updates.value is not None,
            found.line,
        )
        try:
            check_rule(rule)
        except InputError as error:
            raise self._error(members["selector"], error.what, hint=error.hint) from error
        return rule

    def _constraint(self, found: Value) -> Constraint:
        members = self._members(found, "a constraint", "key", "value", "condition")
        key, value = (self._text(members.get(name), name) for name in ("key", "value"))
        return Constraint(key, value, self._word(members.get("condition"), CONDITIONS, "condition"))

    def _attrs(self, found: Value | None) -> dict[str, str]:
        if found is None or found.value is None:
            return {}
        if not isinstance(found.value, dict):
            raise self._error(found, "'attrs' must be an object of texts")
        return {name: self._text(value, name) for name, value in found.value.items()}

    def _members(self, found: Value, what: str, *names: str) -> dict[str, Value]:
        """Return an object's members by their names, however these are spelled."""
        if not isinstance(found.value, dict):
            raise self._error(found, f"{what} must be an object")
        spelled = {name.replace("_", ""): name for name in names}
        members: dict[str, Value] = {}
        for written, value in found.value.items():
            name = spelled.get(written.lower().replace("_", ""))
            if name is None:
                raise self._error(value, f"{what} has no {written[:80]!r}", hint=f"known: {', '.join(names)}")
            if name in members:
                raise self._error(value, f"{name!r} is there twice")
            members[name] = value
        return members

    def _list(self, found: Value | None, what: str) -> list[Value]:
        if found is None or found.value is None:
            return []
        if not isinstance(found.value, list):
            raise self._error(found, f"{what!r} must be a list")
        return found.value

    def _text(self, found: Value | None, what: str) -> str:
        if found is None or found.value is None:
            return ""
        if not isinstance(found.value, str):
            raise self._error(found, f"{what!r:.80} must be a text")
        return found.value

    def _word(self, found: Value | None, words: Sequence[str], what: str) -> str:
        """Return a member of an enumeration; its first where nothing is said."""
        if found is None:
            return words[0]
        value = found.value
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(words):
            return words[value]
        if value not in words:
            raise self._error(found, f"unknown {what} {value!r:.80}", hint=", ".join(words))
        return str(value)

    def _error(self, at: Value, what: str, *, hint: str = "") -> InputError:
        return InputError(what, where=f"{self._name}:{at.line}", hint=hint)
