"""Which lines BuildKit's rules find in a corpus of Dockerfiles (F1).

The table was recorded here and is compared with what a BuildKit of 2026 said of each case. Where we knowingly point
elsewhere, `golden/checks/differences.json` has the reason.
"""

import json
from collections import Counter

import pytest

from lamina.checks.ruleset import RULES
from lamina.checks.run import run_checks
from lamina.checks.view import CheckOptions
from lamina.dockerfile.parser import parse
from lamina.oci.platform import Platform
from lamina.patterns import IgnoreRules, parse_ignore
from support.corpus import BUILDKIT, DIFFERENCES, Case, cases, expected, written
from support.golden import assert_golden

AMD64 = Platform("linux", "amd64")
THEIRS = json.loads(BUILDKIT.read_text("utf8"))
KNOWN = json.loads(DIFFERENCES.read_text("utf8"))


def every(case: Case) -> list[tuple[str, int]]:
    """Return rule and line of all that BuildKit's rules find, as `--check` looks for it."""
    options = CheckOptions(
        build_args=case.build_args,
        target=case.target,
        all_stages=not case.target,
        platform=AMD64,
        build_platform=AMD64,
        ignore=IgnoreRules(parse_ignore("\n".join(case.ignore).encode())) if case.ignore else None,
    )
    findings = run_checks(parse(case.text), options)
    return sorted((finding.rule.id, finding.source.start) for finding in findings if finding.rule.buildkit)


def found(case: Case) -> list[tuple[str, int]]:
    """Return the same, each rule once a line."""
    return sorted(set(every(case)))


def test_the_table() -> None:
    """F1: each case breaks the rules of the table, on its lines, and no others."""
    assert_golden("checks/findings.txt", written({case.name: found(case) for case in cases()}))


def test_every_case_was_shown_to_buildkit() -> None:
    assert list(THEIRS) == [case.name for case in cases()]


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_as_buildkit_finds_it(case: Case) -> None:
    """F1: a current BuildKit warns of the same rules on the same lines, as often, but for differences with a reason."""
    ours, theirs = Counter(every(case)), Counter((rule, line) for rule, line in THEIRS[case.name])
    known = KNOWN.get(case.name, {"buildkit": [], "ours": [], "why": ""})

    assert sorted((theirs - ours).elements()) == [(rule, line) for rule, line in known["buildkit"]]
    assert sorted((ours - theirs).elements()) == [(rule, line) for rule, line in known["ours"]]


def test_every_difference_has_a_case_and_a_reason() -> None:
    names = {case.name for case in cases()}

    assert all(name in names and known["why"] for name, known in KNOWN.items())


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.buildkit], ids=lambda rule: rule.id)
def test_each_rule_is_in_it(rule) -> None:
    """F1: the corpus has something for every rule that needs no base image."""
    if rule.id != "InvalidBaseImagePlatform":
        assert any(rule.id == name for pairs in expected().values() for name, _ in pairs)
