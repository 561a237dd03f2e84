"""What a list of policies says of one source: it may be used, it is another one, or it is denied.

In: policies and a source. Out: the source that is to be used; `SourceDeniedError`. As BuildKit judges: policies are
asked in their order; within one the rules in theirs, the last ALLOW or DENY that matches decides, and no match allows.
The first CONVERT that changes something ends the round: everything is asked again about what came out, 20 times at
most.

Strangers write patterns: each is bounded in length, expressions are matched in linear time, and all patterns
together have a budget of steps for each source.
"""

from __future__ import annotations

from collections.abc import Sequence

from lamina.errors import InputError
from lamina.patterns.regex import Budget, Regex, compile_pattern, compile_wildcard
from lamina.policy.normal import normal_source
from lamina.policy.values import MAX_IDENTIFIER, Constraint, Policy, PolicyError, Rule, Source, SourceDeniedError

MAX_CONVERSIONS = 20
"""How often one source may become another."""


def evaluate(policies: Sequence[Policy], source: Source) -> Source:
    """Return what is to be used in the place of a source; itself where nothing is said.

    Raises:
        SourceDeniedError: it is denied; PolicyError: it is converted in circles, or a rule cannot be judged.
    """
    if len(source.identifier) > MAX_IDENTIFIER:
        raise PolicyError(f"the identifier of a source has more than {MAX_IDENTIFIER} characters")
    budget, seen = Budget(), [source]
    while True:
        changed = _round(policies, source, budget)
        if changed is None:
            return source
        source = changed
        if len(seen) > MAX_CONVERSIONS:
            told = " -> ".join(repr(one.shown) for one in seen[-3:])
            raise PolicyError(
                f"too many conversions of one source by policy: {told} -> ...",
                denied=seen[0].shown,
                hint="rules with CONVERT must not lead to one another",
            )
        seen.append(source)


def _round(policies: Sequence[Policy], source: Source, budget: Budget) -> Source | None:
    for policy in policies:
        denied = -1
        for number, rule in enumerate(policy.rules):
            try:
                if not matches(rule, source, budget):
                    continue
                if rule.action == "CONVERT":
                    changed = _converted(rule, source, budget)
                    if changed is not None:
                        return changed
                else:
                    denied = number if rule.action == "DENY" else -1
            except PolicyError:
                raise
            except InputError as error:
                raise PolicyError(f"{policy.told(number)}: {error.what}", hint=error.hint) from error
        if denied >= 0:
            raise SourceDeniedError(source, policy.told(denied))
    return None


def matches(rule: Rule, source: Source, budget: Budget) -> bool:
    """Tell whether a rule speaks of a source.

    Raises:
        InputError: its pattern is none, or takes too long.
    """
    budget.spend(1)
    if not all(_holds(one, source.attrs.get(one.key, ""), budget) for one in rule.constraints):
        return False
    if rule.pattern == source.identifier:
        return True
    if rule.match == "EXACT":
        return False
    return _compiled(rule).search(source.identifier, budget) is not None


def _holds(constraint: Constraint, value: str, budget: Budget) -> bool:
    if constraint.condition == "MATCHES":
        return compile_pattern(constraint.value).search(value, budget) is not None
    return (value == constraint.value) == (constraint.condition == "EQUAL")


def _converted(rule: Rule, source: Source, budget: Budget) -> Source | None:
    """Return what a source becomes; None when that is what it is."""
    if not rule.updates:
        raise InputError("a CONVERT without 'updates'", hint='"updates": {"identifier": ...}')
    identifier = _formatted(rule, source.identifier, budget) or source.identifier
    if len(identifier) > MAX_IDENTIFIER:
        raise InputError(f"what it converts to has more than {MAX_IDENTIFIER} characters")
    attrs = {**source.attrs, **rule.attrs}
    if identifier != source.identifier and "git.fullurl" not in rule.attrs:
        attrs.pop("git.fullurl", None)  # it would still be fetched from where it was
    if identifier == source.identifier and attrs == dict(source.attrs):
        return None
    return normal_source(Source(identifier, attrs))


def _formatted(rule: Rule, identifier: str, budget: Budget) -> str:
    template = rule.to or rule.pattern
    if rule.match == "EXACT":
        return template
    if rule.match == "REGEX":
        return _compiled(rule).replace_all(identifier, template, budget)
    found = _compiled(rule).search(identifier, budget)
    return found.expand(template) if found is not None else identifier


def _compiled(rule: Rule) -> Regex:
    return compile_pattern(rule.pattern) if rule.match == "REGEX" else compile_wildcard(rule.pattern)
