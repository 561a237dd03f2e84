"""Rules about variables that nothing defines."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from lamina.checks.values import Hit, rule
from lamina.checks.view import StageView, View
from lamina.checks.walk import expand
from lamina.dockerfile.suggest import did_you_mean
from lamina.dockerfile.words import Words
from lamina.errors import InputError
from lamina.oci.reference import Reference

_MAX_HINTS = 50
_MAX_NAMES = 1000


class _Hints:
    """Finds names that were perhaps meant. Comparing costs, so a file gets only so many answers."""

    def __init__(self) -> None:
        self._left = _MAX_HINTS

    def near(self, name: str, known: Collection[str]) -> str:
        """Return ` (did you mean X?)`, or ""."""
        if self._left <= 0 or len(known) > _MAX_NAMES:
            return ""
        self._left -= 1
        hint = did_you_mean(name, known)
        return f" ({hint})" if hint else ""


@rule("UndefinedArgInFrom", "FROM should use declared arguments only", buildkit=True)
def undefined_arg_in_from(view: View) -> Iterator[Hit]:
    """An argument that no ARG before the first FROM declares is empty there, and the image's name has a hole."""
    hints = _Hints()
    declared = {name for arg in view.dockerfile.global_args for name, _ in arg.pairs} | set(view.globals)
    for stage in view.stages:
        for name in sorted((stage.image.missing | stage.platform.missing) - declared):
            yield Hit(
                f"no ARG before the first FROM declares '{name}'{hints.near(name, declared)}: "
                f"write ARG {name} above it",
                stage.source,
            )


@rule("InvalidDefaultArgInFrom", "With the defaults of its arguments, FROM should name an image", buildkit=True)
def invalid_default_arg_in_from(view: View) -> Iterator[Hit]:
    """Who builds without `--build-arg` gets a name that is empty or none, and an error that does not say why."""
    if view.default_globals is None:
        return
    words = Words(view.dockerfile.escape)
    for stage in view.stages:
        found = expand(words, stage.image.text, view.default_globals)
        if found.failed:
            return
        if _is_reference(found.result):
            continue
        if stage.below is not None and stage.below.stage.name == found.result.lower():
            yield Hit(
                f"'{found.result}' is taken for the stage '{found.result.lower()}', but is no name of an image: "
                "write it in lower case",
                stage.source,
            )
        else:
            yield Hit(
                f"'{stage.image.text}' is {found.result!r} when no build argument is given, which names no image: "
                "give its ARG a default",
                stage.source,
            )


def _is_reference(text: str) -> bool:
    try:
        Reference.parse(text)
    except InputError:
        return False
    return True


@rule("UndefinedVar", "Variables should be defined before they are used", buildkit=True, needs_bases=True)
def undefined_var(view: View) -> Iterator[Hit]:
    """A variable that is not defined is empty, mostly because its name is misspelt or its ARG stands elsewhere.

    Nothing is said about stages whose base image is not known: it may define the variable.
    """
    hints = _Hints()
    for stage in view.stages:
        for step in stage.steps:
            for name in step.undefined:
                yield Hit(
                    f"the variable '${name}' is not defined here{hints.near(name, step.known)}"
                    f"{_global_hint(view, stage, name)}",
                    step.item.source,
                )


def _global_hint(view: View, stage: StageView, name: str) -> str:
    """Return what to do about an argument that is declared, but outside of the stage."""
    names: Iterable[str] = (name for arg in view.dockerfile.global_args for name, _ in arg.pairs)
    if name in names or name in view.globals:
        where = f" '{stage.stage.name}'" if stage.stage.name else ""
        return f": arguments from before the first FROM count in the stage{where} after a line ARG {name}"
    return ": define it with ARG or ENV"
