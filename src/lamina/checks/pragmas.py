"""What the author asks of the checks: the `check` directive, its comment form, and hadolint's ignore comments.

In: the directive's text, comments. Out: `Wishes`. Forms taken:

    # check=skip=RuleA,RuleB;error=true;experimental=RuleC      at the top, for the file; `all` for every rule
    # check=skip=RuleA                                          above an instruction, for that instruction
    # hadolint ignore=DL3006,DL3025                             the same, in hadolint's words
    # hadolint global ignore=DL3006                             in the comments at the top, for the file

The build argument `BUILDKIT_DOCKERFILE_CHECK` takes the place of the directive. Departures from BuildKit: rules also go
by their slug and hadolint's numbers, in any case; a comment above an instruction silences every rule there, also those
that BuildKit applies to the file as a whole. Pure.

Reference: Dockerfile reference, "check"; hadolint's README, "Inline ignores".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lamina.checks.values import Rule
from lamina.dockerfile.blanks import BLANKS
from lamina.dockerfile.instructions import Dockerfile, Instruction
from lamina.dockerfile.suggest import did_you_mean
from lamina.errors import InputError, SourceRange

BUILD_ARG = "BUILDKIT_DOCKERFILE_CHECK"
"""The build argument that replaces the directive."""

_OPTIONS = ("skip", "error", "experimental")
_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")
_CHECK = re.compile(r"check[\t\n\f\r ]*=[\t\n\f\r ]*([^ ]+)", re.IGNORECASE)
_HADOLINT = re.compile(r"hadolint[ \t]+(global[ \t]+)?ignore[ \t]*=[ \t]*([A-Za-z0-9]+(?:[ \t]*,[ \t]*[A-Za-z0-9]+)*)")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What to leave out and what to add. Names are in lower case.

    Attributes:
        skip: rules not to apply; `skip_all`: none of those that are not experimental.
        experimental: experimental rules to apply; `experimental_all`: all of them.
        error: findings stop a build.
    """

    skip: frozenset[str] = frozenset()
    skip_all: bool = False
    experimental: frozenset[str] = frozenset()
    experimental_all: bool = False
    error: bool = False

    def wants(self, rule: Rule) -> bool:
        """Tell whether `rule` is to be applied. As in BuildKit, `skip` says nothing about experimental rules."""
        names = {name.lower() for name in rule.names}
        if rule.experimental:
            return self.experimental_all or not names.isdisjoint(self.experimental)
        return not self.skip_all and names.isdisjoint(self.skip)

    def joined(self, other: Wishes) -> Wishes:
        """Return both together; `error` is the first one's."""
        return Wishes(
            self.skip | other.skip,
            self.skip_all or other.skip_all,
            self.experimental | other.experimental,
            self.experimental_all or other.experimental_all,
            self.error,
        )


def parse_wishes(text: str, where: str = "", source: SourceRange | None = None) -> Wishes:
    """Return what `skip=A,B;error=true;experimental=C` asks for; nothing for "".

    Raises:
        InputError: an unknown option or a value that is none; the message names `where`.
    """
    given: dict[str, str] = {}
    for part in text.strip(BLANKS).split(";") if text.strip(BLANKS) else ():
        name, equals, value = part.partition("=")
        name = name.strip(BLANKS)
        if not equals or name not in _OPTIONS:
            hint = did_you_mean(name, _OPTIONS) if equals else ""
            hint = hint or "write skip=RULE,RULE;error=true;experimental=RULE"
            raise InputError(f"not an option of check: {part[:80]!r}", where=where, source=source, hint=hint)
        given[name] = value.strip(BLANKS)
    error = given.get("error", "false").lower()
    if error not in (*_TRUE, *_FALSE):
        raise InputError(
            f"check: error is true or false, not {error[:80]!r}", where=where, source=source, hint="write error=true"
        )
    skip, experimental = given.get("skip", ""), given.get("experimental", "")
    return Wishes(
        frozenset() if skip == "all" else _names(skip),
        skip == "all",
        frozenset() if experimental == "all" else _names(experimental),
        experimental == "all",
        error in _TRUE,
    )


def wishes_for_file(dockerfile: Dockerfile, build_arg: str | None) -> Wishes:
    """Return what is asked for the whole file.

    Args:
        dockerfile: for its directive and the comments at its top.
        build_arg: value of `BUILD_ARG`, None when not given.

    Raises:
        InputError: the directive or the build argument is wrong.
    """
    if build_arg is not None:
        wishes = parse_wishes(build_arg, f"--build-arg {BUILD_ARG}")
    elif directive := dockerfile.directives.get("check"):
        source = directive.source
        wishes = parse_wishes(directive.value, f"{source.file}:{source.start}", source)
    else:
        wishes = Wishes()
    ignored = [names for comment in _comments_of(dockerfile) if (names := _hadolint(comment, everywhere=True))]
    return wishes.joined(Wishes(skip=frozenset().union(*ignored))) if ignored else wishes


def wishes_by_line(dockerfile: Dockerfile) -> dict[int, Wishes]:
    """Return what comments ask for single instructions, by the line where the instruction begins."""
    found = {}
    for instruction in _instructions(dockerfile):
        if instruction.comments and (wishes := _wishes_of_comments(instruction.comments)) is not None:
            found[instruction.source.start] = wishes
    return found


def _wishes_of_comments(comments: Iterable[str]) -> Wishes | None:
    """Return what the comments above an instruction ask for; a wrong one asks for nothing, as in BuildKit."""
    wishes: Wishes | None = None
    for comment in comments:
        if match := _CHECK.match(comment):
            try:
                more = parse_wishes(match[1])
            except InputError:
                continue
        elif names := _hadolint(comment, everywhere=False):
            more = Wishes(skip=names)
        else:
            continue
        wishes = wishes.joined(more) if wishes else more
    return wishes


def _hadolint(comment: str, *, everywhere: bool) -> frozenset[str]:
    """Return the rules that one of hadolint's comments names; none when it is of the other kind."""
    match = _HADOLINT.match(comment)
    return _names(match[2]) if match and bool(match[1]) == everywhere else frozenset()


def _comments_of(dockerfile: Dockerfile) -> Iterator[str]:
    """Yield the comments at the top and those above instructions."""
    for line in dockerfile.text.split("\n", 1000)[:1000]:
        stripped = line.strip(BLANKS)
        if stripped and not stripped.startswith("#"):
            break
        yield stripped.lstrip("#").strip(BLANKS)
    for instruction in _instructions(dockerfile):
        yield from instruction.comments


def _instructions(dockerfile: Dockerfile) -> Iterator[Instruction]:
    """Yield every instruction of the file in order."""
    yield from dockerfile.global_args
    for stage in dockerfile.stages:
        yield stage.base
        yield from stage.instructions


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip(BLANKS).lower() for name in text.split(",") if name.strip(BLANKS))
