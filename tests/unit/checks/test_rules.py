"""When rules speak and when they keep quiet, beyond the examples on their pages (F1)."""

import pytest

from lamina.checks.ruleset import RULES
from lamina.checks.run import run_checks
from lamina.checks.values import Edit
from lamina.checks.view import CheckOptions
from lamina.dockerfile.parser import parse
from lamina.oci.platform import Platform
from lamina.patterns import IgnoreRules

AMD64 = Platform("linux", "amd64")


def lines(text: str, rule: str, **options: object) -> list[int]:
    """Return the lines that `rule` finds."""
    options = {"platform": AMD64, "build_platform": AMD64, **options}
    findings = run_checks(parse(text), CheckOptions(**options))  # type: ignore[arg-type]
    return [finding.source.start for finding in findings if finding.rule.id == rule]


def base(env: list[str], **config: object):
    """Return a `BaseConfig` in which every image has this environment."""
    return lambda _name, _platform: {"os": "linux", "architecture": "amd64", "config": {"Env": env, **config}}


class TestUndefinedVar:
    """F1: UndefinedVar follows what a stage can see."""

    def test_arguments_count_from_their_line_on(self) -> None:
        assert lines("FROM scratch\nUSER $a\nARG a=1\nUSER $a\n", "UndefinedVar") == [2]

    def test_declared_without_a_value_is_defined(self) -> None:
        assert lines("FROM scratch\nARG a\nUSER x$a\n", "UndefinedVar") == []

    def test_global_arguments_do_not_count_in_stages(self) -> None:
        assert lines("ARG a=1\nFROM scratch\nUSER $a\n", "UndefinedVar") == [3]

    def test_env_of_one_line_does_not_see_itself(self) -> None:
        assert lines("FROM scratch\nENV a=1 b=$a\n", "UndefinedVar") == [2]

    def test_stages_inherit(self) -> None:
        text = "FROM scratch AS one\nARG a=1\nENV b=2\nFROM one\nUSER $a$b\nFROM scratch\nUSER $a$b\n"

        assert lines(text, "UndefinedVar") == [7, 7]

    def test_base_images_define(self) -> None:
        text = "FROM debian\nUSER $THERE\nUSER $GONE\n"

        assert lines(text, "UndefinedVar", base_config=base(["THERE=1"])) == [3]

    def test_triggers_of_the_base_define(self) -> None:
        triggers = ["ENV FROM_TRIGGER=1", "not an instruction"]
        text = "FROM debian\nUSER $FROM_TRIGGER\nUSER $GONE\n"

        assert lines(text, "UndefinedVar", base_config=base([], OnBuild=triggers)) == [3]
        inherited = "FROM scratch AS a\nONBUILD ARG b=1\nUSER $b\nFROM a\nUSER $b\n"
        assert lines(inherited, "UndefinedVar") == [3]

    def test_misshapen_configs_say_nothing(self) -> None:
        for config in ({}, {"config": 1}, {"config": {"Env": 1, "OnBuild": {"a": 1}, "User": 1}}):
            assert lines("FROM debian\nUSER $GONE\n", "UndefinedVar", base_config=lambda *_, c=config: c) == [2]

    def test_nothing_is_said_when_the_base_is_not_known(self) -> None:
        assert lines("FROM debian\nUSER $GONE\n", "UndefinedVar") == []

    def test_path_is_always_there(self) -> None:
        assert lines("FROM scratch\nENV PATH=/x:$PATH\n", "UndefinedVar") == []

    def test_the_shell_has_its_own(self) -> None:
        assert lines("FROM scratch\nRUN echo $HOME\nCMD echo $HOME\n", "UndefinedVar") == []

    @pytest.mark.parametrize(
        "line",
        ["COPY a $x", "COPY --chown=$x a /", "ADD $x /", "LABEL a=$x", "VOLUME $x", "STOPSIGNAL $x", "WORKDIR /$x",
         "RUN --mount=type=cache,target=$x true", "ARG y=$x", "COPY <<EOF /f\n$x\nEOF"],
    )  # fmt: skip
    def test_where_variables_are_put_in(self, line: str) -> None:
        assert lines(f"FROM scratch\n{line}\n", "UndefinedVar") == [2]

    @pytest.mark.parametrize("line", ["COPY <<'EOF' /f\n$x\nEOF", "LABEL a=\\$x", "LABEL a='$x'", "EXPOSE $x"])
    def test_where_they_are_not(self, line: str) -> None:
        assert lines(f"FROM scratch\n{line}\n", "UndefinedVar") == []

    def test_default_given_by_the_build_is_not_expanded(self) -> None:
        text = "FROM scratch\nARG a=$b\n"

        assert lines(text, "UndefinedVar") == [2]
        assert lines(text, "UndefinedVar", build_args={"a": "1"}) == []

    def test_it_suggests_what_was_meant(self) -> None:
        (finding,) = run_checks(parse("FROM scratch\nARG version=1\nUSER $verison\n"), CheckOptions())

        assert "did you mean version?" in finding.message


class TestReach:
    """F2: a build is told of what it builds, `--check` of the whole file."""

    TEXT = "FROM scratch AS one\nCMD a\nFROM scratch AS two\nCMD b\nFROM one\nCOPY --from=2 / /\nCMD c\n"

    def test_all_stages(self) -> None:
        assert lines(self.TEXT.replace("=2", "=two"), "JSONArgsRecommended") == [2, 4, 7]

    def test_what_the_target_needs(self) -> None:
        text = self.TEXT.replace("COPY --from=2 / /\n", "")

        assert lines(text, "JSONArgsRecommended", all_stages=False) == [2, 6]
        assert lines(text, "JSONArgsRecommended", all_stages=False, target="two") == [4]

    def test_copies_and_mounts_need(self) -> None:
        for needs in ("COPY --from=two / /", "COPY --from=1 / /", "RUN --mount=from=two,target=/x true"):
            text = self.TEXT.replace("COPY --from=2 / /", needs)

            assert lines(text, "JSONArgsRecommended", all_stages=False) == [2, 4, 7]


class TestCasing:
    """F1: casing rules."""

    def test_upper_case_wins_a_draw(self) -> None:
        assert lines("from scratch\nUSER a\n", "ConsistentInstructionCasing") == [1]

    def test_mixed_case_is_never_right(self) -> None:
        assert lines("From scratch\nuser a\nuser b\n", "ConsistentInstructionCasing") == [1]

    def test_as_follows_from(self) -> None:
        assert lines("from scratch as a\n", "FromAsCasing") == []
        assert lines("from scratch AS a\n", "FromAsCasing") == [1]
        assert lines("From scratch as a\n", "FromAsCasing") == []

    def test_fixes_change_just_the_word(self) -> None:
        findings = run_checks(parse("FROM scratch as Base  \n"), CheckOptions())
        fixes = {finding.rule.id: finding.fix for finding in findings}

        assert fixes["FromAsCasing"] is not None and fixes["StageNameCasing"] is not None
        assert fixes["FromAsCasing"].edits == (Edit(1, 1, "FROM scratch AS Base  "),)
        assert fixes["StageNameCasing"].edits == (Edit(1, 1, "FROM scratch as base  "),)


class TestPlatforms:
    """F1: rules about --platform."""

    def test_const(self) -> None:
        rule = "FromPlatformFlagConstDisallowed"
        assert lines("FROM --platform=linux/arm64 debian\n", rule) == [1]
        assert lines("FROM --platform=$BUILDPLATFORM debian\n", rule) == []
        assert lines("FROM --platform=linux/arm64 debian AS on-arm64\n", rule) == []
        assert lines("FROM --platform=linux/arm64 debian AS linux\n", rule) == []

    def test_redundant_only_when_it_is_all(self) -> None:
        rule = "RedundantTargetPlatform"
        assert lines("FROM --platform=${TARGETPLATFORM} debian\n", rule) == [1]
        assert lines("FROM --platform=$TARGETPLATFORM$nothing debian\n", rule) == []
        assert lines("FROM --platform=linux/$TARGETARCH debian\n", rule) == []

    def test_wrong_base(self) -> None:
        rule, arm = "InvalidBaseImagePlatform", lambda *_: {"os": "linux", "architecture": "arm64", "config": {}}
        assert lines("FROM debian\n", rule, base_config=arm) == [1]
        assert lines("FROM --platform=linux/arm64 debian\n", rule, base_config=arm) == []
        assert lines("FROM debian\n", rule, base_config=base([])) == []


class TestCommands:
    """F1: rules about single instructions."""

    def test_shell_chosen_by_the_base(self) -> None:
        text = "FROM debian\nCMD a\n"
        assert lines(text, "JSONArgsRecommended", base_config=base([], Shell=["/bin/bash", "-c"])) == []
        assert lines(text, "JSONArgsRecommended", base_config=base([])) == [2]

    def test_the_one_without_effect_is_told(self) -> None:
        text = "FROM scratch\nCMD []\nENTRYPOINT []\nCMD []\nCMD []\n"
        assert lines(text, "MultipleInstructionsDisallowed") == [2, 4]

    def test_stages_count_on_their_own(self) -> None:
        text = "FROM scratch AS a\nCMD []\nFROM a\nCMD []\n"
        assert lines(text, "MultipleInstructionsDisallowed") == []

    def test_relative_workdir_once(self) -> None:
        assert lines("FROM scratch\nWORKDIR a\nWORKDIR b\n", "WorkdirRelativePath") == [2]
        assert lines("FROM scratch AS a\nWORKDIR /a\nFROM a\nWORKDIR b\n", "WorkdirRelativePath") == []
        assert lines("FROM scratch\nARG d=/x\nWORKDIR $d\n", "WorkdirRelativePath") == []


@pytest.mark.parametrize(
    ("name", "secret"),
    [("TOKEN", True), ("api_key", True), ("AUTH_URL", True), ("GIT_auth_TOKEN", True), ("KEYBOARD", False),
     ("PUBLIC_KEY", False), ("KEY_FILE", False), ("TOKEN_VERSION", False), ("MONKEY", False)],
)  # fmt: skip
def test_secret_names(name: str, secret: bool) -> None:
    """F1: SecretsUsedInArgOrEnv goes by whole words of a name."""
    expected = [2, 3] if secret else []
    assert lines(f"FROM scratch\nARG {name}\nENV {name}=1\n", "SecretsUsedInArgOrEnv") == expected


@pytest.mark.parametrize(
    ("patterns", "line", "hit"),
    [
        (["tmp"], "COPY tmp /", True),
        (["tmp"], "COPY tmp/a b /x/", True),
        (["tmp"], "COPY --from=one tmp /", False),
        (["tmp"], "COPY . /", False),
        (["*"], "COPY . /", True),
        (["tmp", "!tmp/a"], "COPY tmp /", False),
        (["**/*.log"], "ADD a.log /", True),
        (["tmp"], "ADD https://example.org/tmp /", False),
    ],
)
def test_ignored_files(patterns: list[str], line: str, hit: bool) -> None:
    """F1: CopyIgnoredFile looks at what the ignore file says for sure."""
    text = f"FROM scratch AS one\nFROM scratch\n{line}\n"
    assert lines(text, "CopyIgnoredFile", ignore=IgnoreRules(patterns)) == ([3] if hit else [])


def test_findings_are_in_the_order_of_the_file() -> None:
    """F1: by line, then by rule; the same thing is said once."""
    text = "FROM scratch as A\nCMD a\nENV B=$c D=$c\n"
    findings = run_checks(parse(text), CheckOptions(), [rule for rule in RULES if rule.buildkit])

    assert [(finding.source.start, finding.rule.id) for finding in findings] == [
        (1, "FromAsCasing"),
        (1, "StageNameCasing"),
        (2, "JSONArgsRecommended"),
        (3, "UndefinedVar"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "FROM scratch AS a\n" + "ONBUILD USER x\n" * 3000 + "FROM a\n" * 3000,
        "FROM scratch AS s0\n" + "".join(f"FROM s{i} AS s{i + 1}\nENV a{i}=1 b{i}=1\n" for i in range(5000)),
        "FROM scratch\n" + "".join(f"ENV a{i}=$u{i}\n" for i in range(10000)),
    ],
    ids=["triggers", "inherited", "undefined"],
)
def test_hostile_files_are_bounded(text: str) -> None:
    """F1: what grows with the square of the file is cut short (the suite's time limit is the judge)."""
    assert len(run_checks(parse(text), CheckOptions())) <= 200
