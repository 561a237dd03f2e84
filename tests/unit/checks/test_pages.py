"""Every rule has a page that teaches it: bad, good, why; and what the page says is so.

A page may give its examples surroundings: a block `dockerignore` is the ignore file, a block `context` lists what lies
in the build context (one path a line), each for the example it stands with.
"""

import re
from pathlib import Path

import pytest

from lamina.checks import ruleset
from lamina.checks.result import RESULT_RULES
from lamina.checks.run import run_checks
from lamina.checks.values import ADVICE, WARNING, Rule
from lamina.checks.view import CheckOptions
from lamina.dockerfile.parser import parse
from lamina.oci.platform import Platform
from lamina.patterns import IgnoreRules, parse_ignore

ROOT = Path(__file__).parents[3]
PAGES = ROOT / "docs" / "checks"
RULES = Path(ruleset.__file__).parent / "rules"
SECTION = re.compile(r"^## (.+)\n((?:(?!## ).*\n)*)", re.MULTILINE)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BASES = {"example/only-arm64:1": "arm64"}


def sections(rule: Rule) -> dict[str, str]:
    return dict(SECTION.findall((ROOT / rule.page).read_text("utf8")))


def findings_in(section: str, rule: Rule) -> int:
    """Return how often `rule` is broken by the example in a section of its page."""
    blocks = dict(BLOCK.findall(section))
    context = blocks.get("context", "").split()
    options = CheckOptions(
        platform=Platform("linux", "amd64"),
        build_platform=Platform("linux", "amd64"),
        ignore=IgnoreRules(parse_ignore(blocks["dockerignore"].encode())) if "dockerignore" in blocks else None,
        base_config=base_config,
        list_context=(lambda directory: list_paths(context, directory)) if "context" in blocks else None,
    )
    text = blocks["dockerfile"]
    if rule.experimental:
        text = f"# check=experimental={rule.id}\n{text}"
    return sum(finding.rule is rule for finding in run_checks(parse(text), options))


def base_config(name: str, _platform: Platform) -> dict[str, object]:
    return {"os": "linux", "architecture": BASES.get(name, "amd64"), "config": {"Env": ["PATH=/bin"]}}


def list_paths(paths: list[str], directory: str) -> list[str]:
    """Return the names in `directory` when these paths are all there is; names of directories end in a slash."""
    prefix = f"{directory}/" if directory else ""
    rest = [path.removeprefix(prefix) for path in paths if path.startswith(prefix)]
    return sorted({head + slash for head, slash, _ in (path.partition("/") for path in rest) if head})


@pytest.mark.parametrize("rule", ruleset.RULES, ids=lambda rule: rule.id)
class TestPage:
    """F1: each rule's page."""

    def test_has_its_parts(self, rule: Rule) -> None:
        """A title, the rule's name and aliases, Bad, Good, Why."""
        text = (ROOT / rule.page).read_text("utf8")

        assert text.startswith("# ")
        assert f"`{rule.id}`" in text
        assert all(alias in text for alias in rule.aliases)
        assert {"Bad", "Good", "Why"} <= set(sections(rule))

    def test_bad_example_is_found(self, rule: Rule) -> None:
        """The rule finds something in the bad example."""
        assert findings_in(sections(rule)["Bad"], rule) > 0

    def test_good_example_is_not(self, rule: Rule) -> None:
        """The rule finds nothing in the good example."""
        assert findings_in(sections(rule)["Good"], rule) == 0


@pytest.mark.parametrize("rule", RESULT_RULES, ids=lambda rule: rule.id)
def test_a_rule_about_results_has_its_page(rule: Rule) -> None:
    """L9: title, name, Bad, Good, Why; both examples are Dockerfiles; test_result.py builds their like."""
    text = (ROOT / rule.page).read_text("utf8")

    assert text.startswith("# ") and f"`{rule.id}`" in text and rule.description
    assert {"Bad", "Good", "Why"} <= set(sections(rule))
    for name in ("Bad", "Good"):
        assert parse(dict(BLOCK.findall(sections(rule)[name]))["dockerfile"]).stages


def test_every_page_is_of_a_rule() -> None:
    """No page is left behind when a rule goes; the index is no rule."""
    assert {path.name for path in PAGES.glob("*.md")} - {"README.md"} == {
        f"{rule.slug}.md" for rule in (*ruleset.RULES, *RESULT_RULES)
    }


def test_every_theme_is_listed() -> None:
    """A module of rules that nobody lists would never run."""
    files = {path.stem for path in RULES.glob("*.py")} - {"__init__"}

    assert files == {module.__name__.rpartition(".")[2] for module in ruleset.THEMES}


def test_names_are_unique_and_complete() -> None:
    """Ids are unique, every rule has a description, a docstring and a known severity."""
    ids = [rule.id for rule in (*ruleset.RULES, *RESULT_RULES)]

    assert len(ids) == len(set(ids))
    for rule in ruleset.RULES:
        assert rule.description and rule.look.__doc__, rule.id
        assert rule.severity in (WARNING, ADVICE), rule.id


def test_all_of_buildkits_rules_are_there() -> None:
    """F1: the 22 rules of BuildKit, by their names."""
    assert sum(rule.buildkit for rule in ruleset.RULES) == 22


@pytest.mark.parametrize("rule", (*ruleset.RULES, *RESULT_RULES), ids=lambda rule: rule.id)
def test_the_index_lists_every_rule(rule: Rule) -> None:
    """F1: docs/checks/README.md has a row for each rule, with its page and its aliases."""
    text = (PAGES / "README.md").read_text("utf8")
    (row,) = [line for line in text.splitlines() if line.startswith(f"| [{rule.id}]({rule.slug}.md) |")]

    assert rule.description in row
    assert all(alias in row for alias in rule.aliases)
