"""Findings as text for people, and as JSON in the shape that `buildx build --call=check,format=json` prints.

In: a `Report`. Out: text. It quotes the user's files: whoever shows it on a terminal makes control characters visible
first. Pure.

The JSON departs from buildx in one thing: a finding also has `severity`, `warning` or `advice`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lamina.checks.values import WARNING, Finding
from lamina.errors import Error, SourceRange


@dataclass(frozen=True, slots=True)
class Report:
    """What the checks of one Dockerfile came to.

    Attributes:
        filename: how messages name the Dockerfile; `text`: its content.
        findings: by line.
        error: why it would not build at all, as far as that can be told without building.
        notes: what could not be looked at, and why; one line each.
    """

    filename: str
    text: str
    findings: tuple[Finding, ...] = ()
    error: Error | None = None
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether there is a warning or an error; advice does not count."""
        return self.error is not None or any(finding.rule.severity == WARNING for finding in self.findings)


def text_report(report: Report) -> str:
    """Return the report for people: a summary, then each finding with its page and its lines."""
    parts = [_summary(report)]
    parts += [_finding_text(finding) for finding in report.findings]
    parts += [f"note: {note}" for note in report.notes]
    if report.error is not None:
        parts.append(report.error.diagnostics())
    return "\n\n".join(parts) + "\n"


def _summary(report: Report) -> str:
    warnings = sum(finding.rule.severity == WARNING for finding in report.findings)
    advice = len(report.findings) - warnings
    found = [_count(warnings, "warning")] if warnings else []
    found += [f"{advice} piece{'' if advice == 1 else 's'} of advice"] if advice else []
    found += ["1 error"] if report.error is not None else []
    return f"{report.filename} checked: {', '.join(found) or 'nothing found'}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _finding_text(finding: Finding) -> str:
    head = "WARNING" if finding.rule.severity == WARNING else "ADVICE"
    lines = [f"{head}: {finding.rule.id} - {finding.rule.url}", finding.message, *finding.detail]
    if excerpt := finding.source.excerpt():
        lines.append(excerpt)
    if finding.fix is not None:
        lines.append(f"fix: {finding.fix.description}")
    return "\n".join(lines)


def json_report(report: Report) -> str:
    """Return the report in the shape of BuildKit's lint result."""
    result: dict[str, Any] = {
        "warnings": [_warning(finding) for finding in report.findings],
        "sources": [
            {
                "filename": report.filename,
                "data": base64.b64encode(report.text.encode("utf-8", "replace")).decode("ascii"),
                "language": "Dockerfile",
            }
        ],
    }
    if report.error is not None:
        location = _location(report.error.source) if report.error.source is not None else {}
        result["buildError"] = {"message": str(report.error), "location": location}
    return json.dumps(result, indent=2, ensure_ascii=False) + "\n"


def _warning(finding: Finding) -> dict[str, Any]:
    return {
        "ruleName": finding.rule.id,
        "description": finding.rule.description,
        "url": finding.rule.url,
        "detail": "\n".join([finding.message, *finding.detail]),
        "severity": finding.rule.severity,
        "location": _location(finding.source),
    }


def _location(source: SourceRange) -> dict[str, Sequence[Any]]:
    """Return one range for each line, as BuildKit has it; a source index of 0 is left out."""
    lines = range(source.start, source.end + 1)
    return {"ranges": [{"start": {"line": line}, "end": {"line": line}} for line in lines]}
