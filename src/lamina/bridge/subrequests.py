"""What a client asks of a Dockerfile instead of a build (`requestid`): its checks, its outline, its targets.

Out: a result without files whose metadata hold the answer as text and as JSON, in the shapes of BuildKit's frontend.
"""

from __future__ import annotations

from dataclasses import replace

from lamina.bridge.values import Result
from lamina.checks.report import json_report, text_report
from lamina.checks.values import WARNING
from lamina.dockerfile.outline import list_targets, outline
from lamina.dockerfile.outline_shown import show_calls, show_outline, show_targets
from lamina.dockerfile.parser import parse
from lamina.engine.check import check
from lamina.engine.job import Job
from lamina.engine.options import BuildOptions
from lamina.errors import InputError

_VERSION = b"1.0.0"


def answer(request: str, options: BuildOptions, job: Job) -> Result:
    """Return what a client asks for.

    Raises:
        InputError: nothing of that name can be asked for; or the Dockerfile cannot be parsed.
    """
    name = request.removeprefix("frontend.")
    if name == "lint":
        return _lint(options, job)
    if name == "subrequests.describe":
        return _result(show_calls("text"), show_calls("json"))
    if name not in ("outline", "targets"):
        hint = "frontend.lint, frontend.outline, frontend.targets, frontend.subrequests.describe"
        raise InputError(f"unknown request to the frontend: {request[:80]!r}", hint=hint)
    dockerfile = parse(options.dockerfile, options.dockerfile_name)
    if name == "targets":
        targets = list_targets(dockerfile)
        return _result(*(show_targets(targets, options.dockerfile, form) for form in ("text", "json")))
    found = outline(dockerfile, options.target, options.build_args)
    return _result(*(show_outline(found, options.dockerfile, form) for form in ("text", "json")))


def _lint(options: BuildOptions, job: Job) -> Result:
    """Check the Dockerfile; advice that is ours alone stays with `lamina build --check`."""
    report = check(options, job.session, job.environment, job.cancel, job.gate)
    warnings = tuple(finding for finding in report.findings if finding.rule.severity == WARNING)
    report = replace(report, findings=warnings)
    result = _result(text_report(report), json_report(report))
    result.metadata["result.statuscode"] = str(int(report.failed)).encode()
    return result


def _result(text: str, data: str) -> Result:
    return Result(metadata={"result.txt": text.encode(), "result.json": data.encode(), "version": _VERSION})
