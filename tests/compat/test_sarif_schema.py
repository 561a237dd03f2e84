"""Our SARIF against the official JSON schema of 2.1.0, as the package fluidattacks-core-sarif has it.

The package's models are generated from OASIS' sarif-schema-2.1.0.json: every field with its type and bounds, and none
that the schema does not know. That they refuse what the schema refuses, the last test shows on broken logs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from fluidattacks_core.sarif import SarifLog
from pydantic import ValidationError

from lamina.checks.report import Report
from lamina.checks.run import run_checks
from lamina.checks.sarif import sarif_report
from lamina.checks.values import ADVICE, Edit, Finding, Fix, Rule
from lamina.checks.view import CheckOptions
from lamina.dockerfile.parser import parse
from lamina.errors import InputError, SourceRange
from support.corpus import Case, cases

TEXT = "FROM scratch as base\nENV A=$GONE\nCMD echo a\n"


def everything() -> str:
    """A log with every part that we write: findings, a fix, aliases, notes, an error."""
    source = SourceRange("my Dockerfile", 2, 2, TEXT)
    rule = Rule("OwnRule", "Something of ours", lambda _view: iter(()), ADVICE, aliases=("DL9999",))
    own = Finding(rule, "could be nicer", source, ("a detail",), Fix("make it nicer", (Edit(2, 2, "ENV A=1"),)))
    error = InputError("no such stage: 'x'", source=source)
    findings = (*run_checks(parse(TEXT), CheckOptions()), own)
    return sarif_report(Report("my Dockerfile", TEXT, findings, error, ("the base image x is not known",)), "1.2.3")


def test_everything() -> None:
    """F1"""
    SarifLog.model_validate_json(everything(), strict=True)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_the_corpus(case: Case) -> None:
    """F1"""
    findings = run_checks(parse(case.text), CheckOptions(build_args=case.build_args, target=case.target))

    SarifLog.model_validate_json(sarif_report(Report("Dockerfile", case.text, findings), "1.0"), strict=True)


def _region(log: dict[str, Any]) -> dict[str, Any]:
    place: dict[str, Any] = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    region: dict[str, Any] = place["region"]
    return region


@pytest.mark.parametrize(
    "spoil",
    [
        lambda log: log.update(version="2.2.0"),
        lambda log: log.pop("runs"),
        lambda log: log.update(comment="x"),
        lambda log: log["runs"][0]["tool"]["driver"].pop("name"),
        lambda log: log["runs"][0]["results"][0].pop("message"),
        lambda log: log["runs"][0]["results"][0].update(level="advice"),
        lambda log: _region(log).update(startLine=0),
        lambda log: _region(log).update(endLine="2"),
    ],
)
def test_a_broken_log_is_refused(spoil: Callable[[dict[str, Any]], object]) -> None:
    log = json.loads(everything())
    spoil(log)

    with pytest.raises(ValidationError):
        SarifLog.model_validate_json(json.dumps(log), strict=True)
