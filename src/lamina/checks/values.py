"""The words of the checks: a `Rule` looks at a `View` and yields `Hit`s, which leave this room as `Finding`s.

    @rule(
        "StageNameCasing",
        "Stage names should be in lower case",
    )
    def stage_name_casing(view: View) -> Iterator[Hit]:
        '''What it looks for, and why.'''
        yield Hit("the stage 'Build' ...: write 'build'", stage.base.source)

The decorator makes the function a `Rule`. Beside it, all that is needed is that `ruleset` lists its module of `rules/`,
and the page `docs/checks/<slug>.md`. Pure values.

Invariants: a message says what is wrong and how to mend it in one line; a fix changes nothing in the image, unless
it is marked as one that is about the config.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamina.errors import SourceRange

if TYPE_CHECKING:
    from lamina.checks.view import View

WARNING = "warning"
"""Counts: `--check` ends with a code that is not 0, `error=true` stops the build."""
ADVICE = "advice"
"""Is only said: a matter of taste, or a guess."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*|[a-z0-9]+")
_DOCKER_PAGES = "https://docs.docker.com/go/dockerfile/rule/"
_OWN_PAGES = "docs/checks/"


@dataclass(frozen=True, slots=True)
class Edit:
    """Lines `start` to `end` (from 1, inclusive) become `text`, without a line feed at its end; "" removes them.

    Lines end in a line feed; a carriage return before it belongs to the line, and so to `text`.
    """

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Fix:
    """How to mend a finding without changing what is in the image's files.

    Attributes:
        description: what the edits do, as a sentence in the imperative.
        edits: do not overlap, in the order of the file.
        config: the image's author, labels or commands are written otherwise; else the config stays as it is.
    """

    description: str
    edits: tuple[Edit, ...]
    config: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """One place that breaks a rule.

    Attributes:
        message: what is wrong and how to mend it, one line, no full stop at its end.
        source: the lines it is about.
        detail: more lines for those who want to know: what was seen, an example.
        fix: how to mend it mechanically, where that is safe.
    """

    message: str
    source: SourceRange
    detail: tuple[str, ...] = ()
    fix: Fix | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that is checked.

    Attributes:
        id: its name, in BuildKit's fashion (`StageNameCasing`); what `skip=` takes.
        description: what it asks for, one sentence.
        look: finds what breaks it.
        severity: `WARNING` or `ADVICE`.
        aliases: numbers of hadolint's rules that mean the same.
        buildkit: one of BuildKit's own rules.
        experimental: checked only when `experimental=` names it.
        needs_bases: knows less while base images are unknown; those who check without a network are told.
    """

    id: str
    description: str
    look: Callable[[View], Iterator[Hit]]
    severity: str = WARNING
    aliases: tuple[str, ...] = ()
    buildkit: bool = False
    experimental: bool = False
    needs_bases: bool = False

    @property
    def slug(self) -> str:
        """The id in lower case with dashes, the name of its page: `JSONArgsRecommended` is `json-args-recommended`."""
        return "-".join(_WORD.findall(self.id)).lower()

    @property
    def page(self) -> str:
        """Where its page lies in this project."""
        return f"{_OWN_PAGES}{self.slug}.md"

    @property
    def url(self) -> str:
        """Where to read more: the address that BuildKit's users know for its rules, our page for the others."""
        return f"{_DOCKER_PAGES}{self.slug}/" if self.buildkit else self.page

    @property
    def names(self) -> tuple[str, ...]:
        """Every name it goes by in `skip=` and ignore comments."""
        return (self.id, self.slug, *self.aliases)


def rule(
    id_: str,
    description: str,
    *,
    severity: str = WARNING,
    aliases: tuple[str, ...] = (),
    buildkit: bool = False,
    experimental: bool = False,
    needs_bases: bool = False,
) -> Callable[[Callable[[View], Iterator[Hit]]], Rule]:
    """Return a decorator that makes a function a `Rule`; the arguments are its attributes."""

    def make(look: Callable[[View], Iterator[Hit]]) -> Rule:
        return Rule(id_, description, look, severity, aliases, buildkit, experimental, needs_bases)

    return make


@dataclass(frozen=True, slots=True)
class Finding:
    """A hit with the rule that it breaks."""

    rule: Rule
    message: str
    source: SourceRange
    detail: tuple[str, ...] = ()
    fix: Fix | None = None

    @property
    def order(self) -> tuple[int, int, str]:
        """What findings are sorted by: the lines, then the rule."""
        return (self.source.start, self.source.end, self.rule.id)

    def line(self) -> str:
        """Return the finding in one line: rule, message, place."""
        return f"{self.rule.id}: {self.message} ({self.source.file}:{self.source.start})"
