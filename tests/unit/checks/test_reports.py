"""What is printed: for people, for buildx's readers, for code hosts (A7.2, F1)."""

import base64
import json
from pathlib import Path
from typing import Any

from lamina.checks.report import Report, json_report, text_report
from lamina.checks.ruleset import RULES
from lamina.checks.run import run_checks
from lamina.checks.sarif import sarif_report
from lamina.checks.values import ADVICE, Edit, Finding, Fix, Rule
from lamina.checks.view import CheckOptions
from lamina.dockerfile.parser import parse
from lamina.errors import InputError, SourceRange
from support.golden import assert_golden

TEXT = "FROM scratch as base\nENV A=$GONE\nCMD echo a \\\n  b\n"
OWN = Rule("OwnRule", "Something of ours", lambda _view: iter(()), ADVICE, aliases=("DL9999",))


def report() -> Report:
    """A report with everything in it."""
    findings = run_checks(parse(TEXT), CheckOptions(), [rule for rule in RULES if rule.buildkit])
    source = SourceRange("Dockerfile", 2, 2, TEXT)
    own = Finding(OWN, "could be nicer", source, ("a detail",), Fix("make it nicer", (Edit(2, 2, "ENV A=1"),)))
    error = InputError("no such stage: 'x'", where="Dockerfile:2", source=source, hint="name one that exists")
    return Report("Dockerfile", TEXT, (*findings, own), error, ("the base image x is not known",))


def test_text() -> None:
    """F1: rule, page, what and how to mend, the lines."""
    assert_golden(Path("checks/report.txt"), text_report(report()))


def test_nothing_found() -> None:
    """F1: a clean file is said to be one."""
    clean = Report("Dockerfile", "FROM scratch\n")

    assert text_report(clean) == "Dockerfile checked: nothing found\n"
    assert not clean.failed


def test_advice_is_no_failure() -> None:
    """F1: only warnings and errors make the command fail."""
    advice = Report("Dockerfile", TEXT, report().findings[-1:])

    assert not advice.failed
    assert report().failed


class TestJson:
    """A7.2: the JSON that buildx prints."""

    def loaded(self) -> dict[str, Any]:
        return dict(json.loads(json_report(report())))

    def test_warnings(self) -> None:
        warning = self.loaded()["warnings"][0]

        assert warning["ruleName"] == "FromAsCasing"
        assert warning["url"] == "https://docs.docker.com/go/dockerfile/rule/from-as-casing/"
        assert warning["description"] and "'as'" in warning["detail"]
        assert warning["location"] == {"ranges": [{"start": {"line": 1}, "end": {"line": 1}}]}

    def test_each_line_is_a_range(self) -> None:
        (json_args,) = [item for item in self.loaded()["warnings"] if item["ruleName"] == "JSONArgsRecommended"]

        assert [item["start"]["line"] for item in json_args["location"]["ranges"]] == [3, 4]

    def test_source(self) -> None:
        (source,) = self.loaded()["sources"]

        assert source["filename"] == "Dockerfile"
        assert base64.b64decode(source["data"]).decode() == TEXT

    def test_error(self) -> None:
        error = self.loaded()["buildError"]

        assert error["message"] == "Dockerfile:2: no such stage: 'x'"
        assert error["location"]["ranges"][0]["start"]["line"] == 2
        assert "buildError" not in json.loads(json_report(Report("Dockerfile", TEXT)))


class TestSarif:
    """F1: SARIF 2.1.0, by the clauses of the standard that the shape hangs on."""

    def run_of(self, given: Report | None = None) -> dict[str, Any]:
        log = json.loads(sarif_report(given or report(), "1.2.3"))
        assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-schema-2.1.0.json")
        (run,) = log["runs"]
        return dict(run)

    def test_tool(self) -> None:
        """3.19: a driver with a name; each rule once, its id unique."""
        driver = self.run_of()["tool"]["driver"]
        ids = [rule["id"] for rule in driver["rules"]]

        assert (driver["name"], driver["version"]) == ("lamina", "1.2.3")
        assert len(set(ids)) == len(ids)
        assert all(rule["shortDescription"]["text"] for rule in driver["rules"])
        assert all(rule["defaultConfiguration"]["level"] in ("warning", "note") for rule in driver["rules"])

    def test_results(self) -> None:
        """3.27: rule, index, level, message, place; an index points at its rule."""
        run = self.run_of()
        for result in run["results"]:
            assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
            assert result["level"] in ("error", "warning", "note")
            assert result["message"]["text"]
            (location,) = result["locations"]
            physical = location["physicalLocation"]
            assert physical["artifactLocation"]["uri"] == "Dockerfile"
            assert 1 <= physical["region"]["startLine"] <= physical["region"]["endLine"]
            assert result["partialFingerprints"]["lamina/v1"]

    def test_fixes(self) -> None:
        """3.55: whole lines, from the first column to the line after."""
        (fix,) = self.run_of()["results"][-1]["fixes"]
        (change,) = fix["artifactChanges"]

        assert fix["description"]["text"] == "make it nicer"
        assert change["replacements"] == [
            {
                "deletedRegion": {"startLine": 2, "startColumn": 1, "endLine": 3, "endColumn": 1},
                "insertedContent": {"text": "ENV A=1\n"},
            }
        ]

    def test_help_is_an_address_or_left_out(self) -> None:
        """3.49.12: helpUri is absolute; our own rules name their page in `help`."""
        rules = {rule["id"]: rule for rule in self.run_of()["tool"]["driver"]["rules"]}

        assert "helpUri" not in rules["OwnRule"]
        assert rules["OwnRule"]["help"]["text"] == "See docs/checks/own-rule.md"
        assert rules["FromAsCasing"]["helpUri"].startswith("https://")

    def test_invocation(self) -> None:
        """3.20: an error and what could not be looked at are notifications."""
        (invocation,) = self.run_of()["invocations"]
        levels = [note["level"] for note in invocation["toolExecutionNotifications"]]

        assert invocation["executionSuccessful"] is False
        assert levels == ["error", "note"]
        assert self.run_of(Report("Dockerfile", TEXT))["invocations"] == [{"executionSuccessful": True}]

    def test_file_names_become_uris(self) -> None:
        """3.4.3: a name with blanks is escaped."""
        source = SourceRange("my files/Dockerfile", 1, 1, TEXT)
        run = self.run_of(Report("my files/Dockerfile", TEXT, (Finding(OWN, "x", source),)))

        location = run["results"][0]["locations"][0]["physicalLocation"]
        assert location["artifactLocation"]["uri"] == "my%20files/Dockerfile"
