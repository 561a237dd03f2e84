"""Checks as a user meets them: beside a build, and alone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from support.command import Lamina
from support.elves import write_elf

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for the store's trees"),
]

BAD = "FROM scratch as base\nCOPY app /app\nUSER 7\nCMD /app\n"
GOOD = 'FROM scratch AS base\nCOPY app /app\nUSER 7\nCMD ["/app"]\n'


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A context with a program, and a Dockerfile that two rules have to say something about."""
    folder = tmp_path / "context"
    folder.mkdir()
    write_elf(folder / "app")
    (folder / "Dockerfile").write_text(BAD)
    return folder


class TestAlone:
    """F1, A7.2: `--check` and `--call=check` build nothing."""

    def test_findings_make_it_fail(self, lamina: Lamina, context: Path) -> None:
        """Each finding is said with rule, page and line; the exit code is 1; nothing is stored."""
        done = lamina("build", "--check", "-t", "x", context, check=False)

        assert done.returncode == 1
        assert "Dockerfile checked: 2 warnings" in done.stdout
        assert "WARNING: JSONArgsRecommended - https://" in done.stdout
        assert "   4 | >>> CMD /app" in done.stdout
        assert lamina("images", "-q").stdout == ""

    def test_a_clean_file_passes(self, lamina: Lamina, context: Path) -> None:
        """Exit code 0, and a line that says so."""
        (context / "Dockerfile").write_text(GOOD)

        assert lamina("build", "--check", context).stdout == "Dockerfile checked: nothing found\n"

    def test_json(self, lamina: Lamina, context: Path) -> None:
        """The JSON that buildx has; ignorestatus keeps the exit code 0."""
        done = lamina("build", "--call=check,format=json,ignorestatus=true", context)

        assert [item["ruleName"] for item in json.loads(done.stdout)["warnings"]] == [
            "FromAsCasing",
            "JSONArgsRecommended",
        ]

    def test_sarif(self, lamina: Lamina, context: Path) -> None:
        """SARIF for code hosts."""
        done = lamina("build", "--call=check,format=sarif", context, check=False)
        (run,) = json.loads(done.stdout)["runs"]

        assert done.returncode == 1
        assert [result["ruleId"] for result in run["results"]] == ["FromAsCasing", "JSONArgsRecommended"]

    def test_what_does_not_build_is_told(self, lamina: Lamina, context: Path) -> None:
        """Errors of the language and of stages come with their line."""
        (context / "Dockerfile").write_text("FROM scratch\nCOPPY a b\n")
        broken = lamina("build", "--check", context, check=False)
        (context / "Dockerfile").write_text("FROM scratch\nEXPOSE none\n")
        unusable = lamina("build", "--check", context, check=False)

        assert broken.returncode == 1 and "unknown instruction: COPPY" in broken.stdout
        assert unusable.returncode == 1 and "EXPOSE" in unusable.stdout and "1 error" in unusable.stdout

    def test_without_a_network_less_is_known(self, lamina: Lamina, context: Path) -> None:
        """A base image that cannot be had is a note, not a failure, and nobody guesses at its variables."""
        (context / "Dockerfile").write_text("FROM 127.0.0.1:9/none\nUSER $FROM_BASE\n")
        done = lamina("build", "--check", context)

        assert "note: the base image 127.0.0.1:9/none:latest could not be looked up" in done.stdout

    def test_ignored_files(self, lamina: Lamina, context: Path) -> None:
        """The ignore file is taken into account."""
        (context / ".dockerignore").write_text("app\n")
        done = lamina("build", "--check", context, check=False)

        assert "CopyIgnoredFile" in done.stdout


class TestFix:
    """F1: `--check --fix` mends what is safe and shows the diff; the exit code is that of `--check` on what is left."""

    def test_it_mends_the_file(self, lamina: Lamina, context: Path) -> None:
        """The diff, the count, the report on the new file; a second time there is nothing to do."""
        done = lamina("build", "--check", "--fix", context)

        assert (context / "Dockerfile").read_text() == GOOD
        assert done.stdout == (
            "--- Dockerfile\n+++ Dockerfile\n@@ -1,4 +1,4 @@\n-FROM scratch as base\n+FROM scratch AS base\n"
            ' COPY app /app\n USER 7\n-CMD /app\n+CMD ["/app"]\n'
            "2 findings mended in Dockerfile\n\nDockerfile checked: nothing found\n"
        )
        assert lamina("build", "--check", "--fix", context).stdout.startswith("nothing that --fix could mend\n")
        assert (context / "Dockerfile").read_text() == GOOD

    def test_the_diff_alone(self, lamina: Lamina, context: Path) -> None:
        """`--fix=diff` writes nothing, and fails like `--check`."""
        done = lamina("build", "--check", "--fix=diff", context, check=False)

        assert done.returncode == 1
        assert done.stdout.startswith("--- Dockerfile\n+++ Dockerfile\n@@ -1,4 +1,4 @@\n")
        assert done.stdout.endswith("2 findings can be mended in Dockerfile; --fix does it\n")
        assert (context / "Dockerfile").read_text() == BAD

    def test_what_cannot_be_mended_is_left(self, lamina: Lamina, context: Path) -> None:
        """And reported; the exit code is 1."""
        (context / "Dockerfile").write_text(BAD + "ENV PASSWORD=x\n")
        done = lamina("build", "--check", "--fix", context, check=False)

        assert done.returncode == 1 and "2 findings mended" in done.stdout
        assert "Dockerfile checked: 1 warning" in done.stdout and "SecretsUsedInArgOrEnv" in done.stdout

    def test_beside_a_report_for_programs(self, lamina: Lamina, context: Path) -> None:
        """The diff goes to standard error, so that standard output stays JSON."""
        done = lamina("build", "--call=check,format=json", "--fix", context)

        assert json.loads(done.stdout)["warnings"] == []
        assert "+FROM scratch AS base" in done.stderr

    def test_a_named_dockerfile_elsewhere(self, lamina: Lamina, context: Path, tmp_path: Path) -> None:
        """`-f` names the file that is mended."""
        (tmp_path / "own.Dockerfile").write_text(BAD)
        lamina("build", "--check", "--fix", "-f", tmp_path / "own.Dockerfile", context)

        assert (tmp_path / "own.Dockerfile").read_text() == GOOD
        assert (context / "Dockerfile").read_text() == BAD

    def test_a_file_that_cannot_be_read_stays(self, lamina: Lamina, context: Path) -> None:
        """Its error is told as without --fix."""
        (context / "Dockerfile").write_text("FROM scratch as base\nCOPPY a b\n")
        done = lamina("build", "--check", "--fix", context, check=False)

        assert done.returncode == 1 and "unknown instruction: COPPY" in done.stdout
        assert (context / "Dockerfile").read_text().startswith("FROM scratch as")

    def test_not_for_what_is_no_file_of_the_users(self, lamina: Lamina, context: Path) -> None:
        """Standard input, servers; and not with a build."""
        stdin = lamina("build", "--check", "--fix", "-f", "-", context, check=False, input=BAD)
        remote = lamina("build", "--check", "--fix", "http://127.0.0.1:9/x.git", check=False)
        building = lamina("build", "--fix", context, check=False)

        assert stdin.returncode == remote.returncode == building.returncode == 2
        assert "mends a file, not standard input" in stdin.stderr
        assert "not one on a server" in remote.stderr
        assert "lamina build --check --fix" in building.stderr


class TestBesideABuild:
    """F2: every build tells its author what to improve."""

    def test_warnings_at_the_end(self, lamina: Lamina, context: Path) -> None:
        """Rule, line, excerpt, page; the build succeeds."""
        done = lamina.build(context, "-t", "x")
        end = done.stderr[done.stderr.index(" warnings:") :]

        assert " - JSONArgsRecommended: CMD in shell form" in end
        assert " - ShellMissing: CMD is written in shell form but the image has no /bin/sh" in end
        assert "(Dockerfile:4)" in end
        assert "4 | CMD /app" in end
        assert "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/" in end

    def test_a_fully_cached_build_repeats_them(self, lamina: Lamina, context: Path) -> None:
        """What was found is kept with the build's result."""
        lamina.build(context, "-t", "x")
        again = lamina.build(context, "-t", "x")

        assert "CACHED" in again.stderr
        assert " - JSONArgsRecommended: CMD in shell form" in again.stderr

    def test_only_what_is_built_counts(self, lamina: Lamina, context: Path) -> None:
        """Stages that the target does not need are left alone."""
        (context / "Dockerfile").write_text("FROM scratch AS other\nCMD /app\n" + GOOD)

        assert "JSONArgsRecommended" not in lamina.build(context).stderr

    def test_error_true_stops_before_any_step(self, lamina: Lamina, context: Path) -> None:
        """A1.4: `# check=error=true`: the error has the line; no step was begun."""
        (context / "Dockerfile").write_text("# check=error=true\n" + BAD)
        done = lamina.build(context, "-t", "x", check=False)

        assert done.returncode == 2
        assert "error=true): FromAsCasing, JSONArgsRecommended" in done.stderr
        assert "COPY app /app" not in done.stderr.split("error:")[0].split("warnings:")[0]
        assert lamina("images", "-q").stdout == ""

    def test_build_argument(self, lamina: Lamina, context: Path) -> None:
        """A1.4: BUILDKIT_DOCKERFILE_CHECK takes the directive's place and is no unused argument."""
        (context / "Dockerfile").write_text("# check=error=true\n" + BAD)
        done = lamina.build(context, "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=JSONArgsRecommended")

        assert "FromAsCasing" in done.stderr
        assert "JSONArgsRecommended" not in done.stderr
        assert "BUILDKIT_DOCKERFILE_CHECK" not in done.stderr
