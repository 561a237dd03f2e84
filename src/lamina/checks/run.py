"""All checks on one Dockerfile.

In: the parsed file, `view.CheckOptions`. Out: findings in the order of the file. What the author asked to be left
alone (`pragmas`) is left out here, so rules need not know of it. Pure.

    findings = run_checks(parse(text), CheckOptions(ignore=IgnoreRules(patterns)))
"""

from __future__ import annotations

from collections.abc import Iterable

from lamina.checks.pragmas import BUILD_ARG, Wishes, wishes_by_line, wishes_for_file
from lamina.checks.ruleset import RULES
from lamina.checks.values import WARNING, Finding, Rule
from lamina.checks.view import CheckOptions
from lamina.checks.walk import look_at
from lamina.dockerfile.instructions import Dockerfile
from lamina.errors import InputError

MAX_FINDINGS = 200
"""Most findings of one rule in one file: more would not be read, and a hostile file could make millions."""


def run_checks(
    dockerfile: Dockerfile, options: CheckOptions, rules: Iterable[Rule] | None = None
) -> tuple[Finding, ...]:
    """Apply `rules` (all, by default) and return what they find, by line.

    Raises:
        InputError: the `check` directive or build argument is wrong.
    """
    view = look_at(dockerfile, options)
    whole = wishes_for_file(dockerfile, options.build_args.get(BUILD_ARG))
    by_line = {line: whole.joined(wishes) for line, wishes in wishes_by_line(dockerfile).items()}
    found: list[Finding] = []
    for rule in RULES if rules is None else rules:
        if not any(wishes.wants(rule) for wishes in (whole, *by_line.values())):
            continue
        kept: dict[tuple[int, str], Finding] = {}
        for hit in rule.look(view):
            if by_line.get(hit.source.start, whole).wants(rule):
                kept.setdefault(
                    (hit.source.start, hit.message), Finding(rule, hit.message, hit.source, hit.detail, hit.fix)
                )
                if len(kept) >= MAX_FINDINGS:
                    break
        found += kept.values()
    return tuple(sorted(found, key=lambda finding: finding.order))


def wishes_of(dockerfile: Dockerfile, options: CheckOptions) -> Wishes:
    """Return what is asked for the whole file, `error=true` above all. Raises as `run_checks`."""
    return wishes_for_file(dockerfile, options.build_args.get(BUILD_ARG))


def refusal(findings: Iterable[Finding], wishes: Wishes) -> InputError | None:
    """Return the error of a build that asked for one (`error=true`) when a warning was found; else None."""
    counted = [finding for finding in findings if finding.rule.severity == WARNING]
    if not wishes.error or not counted:
        return None
    first = counted[0]
    names = ", ".join(sorted({finding.rule.id for finding in counted}))
    return InputError(
        f"the checks found what the Dockerfile asks to be an error (error=true): {names}",
        where=f"{first.source.file}:{first.source.start}",
        source=first.source,
        hint=f"{first.message}; `lamina build --check` lists all {len(counted)}" if len(counted) > 1 else first.message,
    )
