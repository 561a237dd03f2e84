"""Findings as SARIF 2.1.0, which code hosts show beside the lines.

In: a `report.Report`. Out: JSON text. Reference: OASIS SARIF 2.1.0 (3.13 log, 3.14 run, 3.27 result, 3.49 rule).
Only rules that found something are described. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from lamina.checks.report import Report
from lamina.checks.values import WARNING, Finding, Rule
from lamina.errors import Error, SourceRange

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {WARNING: "warning"}


def sarif_report(report: Report, version: str) -> str:
    """Return the report as a SARIF log; `version` is ours."""
    rules = list(dict.fromkeys(finding.rule for finding in report.findings))
    lines = report.text.split("\n")
    numbers = {rule.id: number for number, rule in enumerate(rules)}
    driver = {"name": "lamina", "version": version, "rules": [_rule(rule) for rule in rules]}
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, numbers[finding.rule.id], report.filename, lines) for finding in report.findings],
        "invocations": [_invocation(report)],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _rule(rule: Rule) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": rule.id,
        "name": rule.id,
        "shortDescription": {"text": rule.description},
        "help": {"text": f"See {rule.page}"},
        "defaultConfiguration": {"level": _level(rule)},
    }
    if "://" in rule.url:
        found["helpUri"] = rule.url
    if rule.aliases:
        found["properties"] = {"aliases": list(rule.aliases)}
    return found


def _level(rule: Rule) -> str:
    return _LEVELS.get(rule.severity, "note")


def _result(finding: Finding, number: int, filename: str, lines: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ruleId": finding.rule.id,
        "ruleIndex": number,
        "level": _level(finding.rule),
        "message": {"text": "\n".join([finding.message, *finding.detail])},
        "locations": [_location(finding.source)],
        "partialFingerprints": {"lamina/v1": _fingerprint(finding, lines)},
    }
    if finding.fix is not None:
        found["fixes"] = [_fix(finding, filename)]
    return found


def _location(source: SourceRange) -> dict[str, Any]:
    region = {"startLine": source.start, "endLine": source.end}
    return {"physicalLocation": {"artifactLocation": {"uri": _uri(source.file)}, "region": region}}


def _fix(finding: Finding, filename: str) -> dict[str, Any]:
    """Return the fix; whole lines are replaced, each with its line end."""
    assert finding.fix is not None
    replacements = [
        {
            "deletedRegion": {"startLine": edit.start, "startColumn": 1, "endLine": edit.end + 1, "endColumn": 1},
            "insertedContent": {"text": f"{edit.text}\n" if edit.text else ""},
        }
        for edit in finding.fix.edits
    ]
    change = {"artifactLocation": {"uri": _uri(filename)}, "replacements": replacements}
    return {"description": {"text": finding.fix.description}, "artifactChanges": [change]}


def _fingerprint(finding: Finding, lines: Sequence[str]) -> str:
    """Return what stays equal when lines are added elsewhere: the rule and the text of the lines."""
    about = lines[finding.source.start - 1 : finding.source.end]
    return hashlib.sha256("\n".join([finding.rule.id, *about]).encode("utf-8", "replace")).hexdigest()


def _invocation(report: Report) -> dict[str, Any]:
    notes = [{"level": "note", "message": {"text": note}} for note in report.notes]
    error = [_notification(report.error)] if report.error is not None else []
    found: dict[str, Any] = {"executionSuccessful": report.error is None}
    if notes or error:
        found["toolExecutionNotifications"] = [*error, *notes]
    return found


def _notification(error: Error) -> dict[str, Any]:
    found: dict[str, Any] = {"level": "error", "message": {"text": str(error)}}
    if error.source is not None:
        found["locations"] = [_location(error.source)]
    return found


def _uri(file: str) -> str:
    """Return a relative reference for a file name."""
    return quote(file.encode("utf-8", "surrogateescape"))
