"""What authors ask of the checks: directive, build argument, comments (A1.4)."""

import pytest

from lamina.checks.pragmas import BUILD_ARG, Wishes, parse_wishes
from lamina.checks.ruleset import RULES
from lamina.checks.run import refusal, run_checks, wishes_of
from lamina.checks.values import ADVICE, Finding, Hit, Rule
from lamina.checks.view import CheckOptions
from lamina.dockerfile.parser import parse
from lamina.errors import InputError, SourceRange

SHELL_FORM = "FROM scratch\nCMD run me\n"
BOTH = "FROM scratch AS Upper\nCMD run me\n"


BUILDKITS = [rule for rule in RULES if rule.buildkit]


def found(text: str, build_arg: str | None = None) -> list[tuple[str, int]]:
    """Return (rule, line) of every finding."""
    build_args = {} if build_arg is None else {BUILD_ARG: build_arg}
    findings = run_checks(parse(text), CheckOptions(build_args=build_args), BUILDKITS)
    return [(finding.rule.id, finding.source.start) for finding in findings]


class TestDirective:
    """A1.4: `# check=` at the top."""

    def test_without_it_every_rule_applies(self) -> None:
        assert found(BOTH) == [("StageNameCasing", 1), ("JSONArgsRecommended", 2)]

    def test_skip_leaves_rules_out(self) -> None:
        assert found("# check=skip=JSONArgsRecommended\n" + BOTH) == [("StageNameCasing", 2)]

    def test_skip_takes_a_list_with_blanks(self) -> None:
        assert found("# check=skip=JSONArgsRecommended , StageNameCasing\n" + BOTH) == []

    def test_skip_all(self) -> None:
        assert found("# check=skip=all\n" + BOTH) == []

    @pytest.mark.parametrize("name", ["jsonargsrecommended", "json-args-recommended", "DL3025"])
    def test_skip_knows_slug_and_hadolints_number(self, name: str) -> None:
        assert found(f"# check=skip={name}\n{SHELL_FORM}") == []

    def test_experimental_rules_are_asked_for(self) -> None:
        text = "#\n# wrong words\nFROM scratch AS base\n"
        rule = "InvalidDefinitionDescription"

        assert found(text) == []
        assert found(f"# check=experimental={rule}\n{text}") == [(rule, 4)]
        assert found(f"# check=experimental=all\n{text}") == [(rule, 4)]
        assert found(f"# check=skip=all;experimental=all\n{text}") == [(rule, 4)]

    def test_other_case_and_blanks(self) -> None:
        assert found("#  Check = skip=all ; error=false\n" + BOTH) == []

    @pytest.mark.parametrize("text", ["skipp=all", "skip", "error=perhaps", "skip=a;nothing", "=x"])
    def test_what_is_wrong_is_said_with_its_line(self, text: str) -> None:
        with pytest.raises(InputError) as caught:
            found(f"# check={text}\n{SHELL_FORM}")

        assert caught.value.source is not None and caught.value.source.start == 1
        assert caught.value.hint


class TestBuildArgument:
    """A1.4: the build argument takes the directive's place."""

    def test_it_replaces_the_directive(self) -> None:
        assert found("# check=skip=all\n" + BOTH, "skip=StageNameCasing") == [("JSONArgsRecommended", 3)]

    def test_empty_asks_for_nothing(self) -> None:
        assert len(found("# check=skip=all\n" + BOTH, "")) == 2

    def test_an_error_names_it(self) -> None:
        with pytest.raises(InputError) as caught:
            found(SHELL_FORM, "skipp=x")

        assert BUILD_ARG in caught.value.where


class TestErrorOnWarnings:
    """A1.4: `error=true`."""

    def error(self, text: str, build_arg: str | None = None) -> InputError | None:
        options = CheckOptions(build_args={} if build_arg is None else {BUILD_ARG: build_arg})
        dockerfile = parse(text)
        return refusal(run_checks(dockerfile, options), wishes_of(dockerfile, options))

    def test_a_finding_becomes_an_error_with_its_line(self) -> None:
        error = self.error("# check=error=true\n" + SHELL_FORM)

        assert error is not None and error.source is not None and error.source.start == 3
        assert "JSONArgsRecommended" in error.what

    def test_without_findings_there_is_none(self) -> None:
        assert self.error("# check=error=true\nFROM scratch\n") is None

    def test_what_is_skipped_does_not_count(self) -> None:
        assert self.error("# check=skip=JSONArgsRecommended;error=true\n" + SHELL_FORM) is None

    def test_not_asked_for(self) -> None:
        assert self.error(SHELL_FORM) is None
        assert self.error("# check=error=true\n" + SHELL_FORM, "error=false") is None

    def test_advice_does_not_count(self) -> None:
        rule = Rule("Perhaps", "might be nicer", lambda _view: iter([Hit("x", SourceRange("f", 1))]), ADVICE)
        finding = Finding(rule, "x", SourceRange("f", 1))

        assert refusal([finding], Wishes(error=True)) is None


class TestComments:
    """A1.4: comments above an instruction speak for it alone."""

    def test_check_comment(self) -> None:
        text = "FROM scratch AS a\n# check=skip=JSONArgsRecommended\nCMD a\nFROM scratch\nCMD b\n"

        assert found(text) == [("JSONArgsRecommended", 5)]

    def test_hadolint_comment(self) -> None:
        text = "FROM scratch AS a\n# hadolint ignore=DL3006,DL3025\nCMD a\nFROM scratch\nCMD b\n"

        assert found(text) == [("JSONArgsRecommended", 5)]

    def test_hadolint_global_comment(self) -> None:
        text = "# hadolint global ignore=DL3025,SC2086\nFROM scratch AS a\nCMD a\nFROM scratch\nCMD b\n"

        assert found(text) == []

    def test_a_comment_about_something_else(self) -> None:
        assert found("FROM scratch\n# check this = skip=all\nCMD a\n") == [("JSONArgsRecommended", 3)]
        assert found("FROM scratch\n# hadolint ignores nothing\nCMD a\n") == [("JSONArgsRecommended", 3)]

    def test_a_wrong_comment_asks_for_nothing(self) -> None:
        assert found("FROM scratch\n# check=skipp=all\nCMD a\n") == [("JSONArgsRecommended", 3)]

    def test_it_can_ask_for_experimental_rules(self) -> None:
        text = "FROM scratch\n# check=experimental=all\n# wrong words\nARG a=1\n# wrong words\nARG b=1\n"

        assert found(text) == [("InvalidDefinitionDescription", 4)]


def test_wishes_as_a_value() -> None:
    """All options at once; repeated ones: the last counts."""
    wishes = parse_wishes("skip=A,b;error=T;experimental=all")

    assert wishes == Wishes(frozenset({"a", "b"}), False, frozenset(), True, True)
    assert parse_wishes("  ") == Wishes()
