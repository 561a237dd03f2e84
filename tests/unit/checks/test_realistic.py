"""What our own rules say of Dockerfiles as people write them (F1): official images, projects by language, old ones.

Every line of `golden/checks/realistic_findings.txt` was judged by eye: a false alarm is worse than a miss. Base images
are known as these images are: who runs in them, and a few variables.
"""

from __future__ import annotations

import pytest

from lamina.checks.ruleset import RULES
from lamina.checks.run import run_checks
from lamina.checks.values import WARNING
from lamina.checks.view import CheckOptions
from lamina.dockerfile.parser import parse
from lamina.oci.platform import Platform
from lamina.patterns import IgnoreRules, parse_ignore
from support.corpus import REALISTIC, Case, cases, written
from support.golden import assert_golden

AMD64 = Platform("linux", "amd64")
OWN = [rule for rule in RULES if not rule.buildkit]
ENV = ["PATH=/bin", "GOPATH=/go", "PHP_INI_DIR=/usr/local/etc/php", "APP_UID=1654"]


def base_config(name: str, _platform: Platform) -> dict[str, object]:
    user = "65532" if name.endswith("nonroot") else ""
    env = [*ENV, "GOSU_VERSION=1.17"] if name.startswith("mysql") else ENV
    return {"os": "linux", "architecture": "amd64", "config": {"Cmd": ["serve"], "User": user, "Env": env}}


def found(case: Case) -> list[tuple[str, int]]:
    """Return rules and lines, without BaseTagMoves: hardly anybody writes digests."""
    context = case.context
    options = CheckOptions(
        platform=AMD64,
        build_platform=AMD64,
        ignore=IgnoreRules(parse_ignore("\n".join(case.ignore).encode())) if case.ignore else None,
        base_config=base_config,
        list_context=None if context is None else lambda directory: [] if directory else list(context),
    )
    findings = run_checks(parse(case.text), options, OWN)
    return sorted({(f.rule.id, f.source.start) for f in findings if f.rule.id != "BaseTagMoves"})


def test_the_table() -> None:
    """F1: these findings and no others."""
    assert_golden("checks/realistic_findings.txt", written({case.name: found(case) for case in cases(REALISTIC)}))


@pytest.mark.parametrize("case", [c for c in cases(REALISTIC) if c.name.startswith("official")], ids=lambda c: c.name)
def test_official_images_are_mostly_left_alone(case: Case) -> None:
    """F1: who writes these knows what they do: at most the user and the health check are asked for, or SeveralRuns."""
    assert {name for name, _ in found(case)} <= {"RunsAsRoot", "HealthcheckMissing", "SeveralRuns"}


def test_only_credentials_make_a_build_fail() -> None:
    """F1: everything else that we add to BuildKit's rules is advice."""
    assert {rule.id for rule in OWN if rule.severity == WARNING} == {"CredentialsCopied"}
    hit = {case.name for case in cases(REALISTIC) if any(name == "CredentialsCopied" for name, _ in found(case))}
    assert hit == {"git-over-ssh", "mysql-tls"}
