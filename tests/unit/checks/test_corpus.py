"""Which lines BuildKit's rules find in a corpus of Dockerfiles (F1).

The table was recorded here and read line by line against the conditions in BuildKit's source (2026-08); no BuildKit has
judged it yet. Where we knowingly point elsewhere: `NoEmptyContinuation` at the empty line (BuildKit: the end of the
instruction); `COPY /tmp` counts as naming the ignored `tmp` (BuildKit compares with the slash); triggers that a stage
inherits are not judged again.
"""

import pytest

from lamina.checks.ruleset import RULES
from lamina.checks.run import run_checks
from lamina.checks.view import CheckOptions
from lamina.dockerfile.parser import parse
from lamina.oci.platform import Platform
from lamina.patterns import IgnoreRules, parse_ignore
from support.corpus import Case, cases, expected, written
from support.golden import assert_golden

AMD64 = Platform("linux", "amd64")


def found(case: Case) -> list[tuple[str, int]]:
    """Return what BuildKit's rules find, as `--check` looks for it."""
    options = CheckOptions(
        build_args=case.build_args,
        target=case.target,
        all_stages=not case.target,
        platform=AMD64,
        build_platform=AMD64,
        ignore=IgnoreRules(parse_ignore("\n".join(case.ignore).encode())) if case.ignore else None,
    )
    findings = run_checks(parse(case.text), options)
    return sorted({(finding.rule.id, finding.source.start) for finding in findings if finding.rule.buildkit})


def test_the_table() -> None:
    """F1: each case breaks the rules of the table, on its lines, and no others."""
    assert_golden("checks/findings.txt", written({case.name: found(case) for case in cases()}))


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.buildkit], ids=lambda rule: rule.id)
def test_each_rule_is_in_it(rule) -> None:
    """F1: the corpus has something for every rule that needs no base image."""
    if rule.id != "InvalidBaseImagePlatform":
        assert any(rule.id == name for pairs in expected().values() for name, _ in pairs)
