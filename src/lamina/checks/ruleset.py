"""Which rules there are: those of the modules listed here. A new module of `rules/` is added to `THEMES`."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from lamina.checks.rules import (
    bases,
    casing,
    commands,
    context,
    dependencies,
    descriptions,
    packages,
    platforms,
    ports,
    secrets,
    shipping,
    stages,
    variables,
)
from lamina.checks.values import Rule

THEMES = (
    casing,
    stages,
    variables,
    platforms,
    commands,
    ports,
    secrets,
    context,
    descriptions,
    bases,
    packages,
    dependencies,
    shipping,
)


def rules_of(module: ModuleType) -> Iterator[Rule]:
    """Yield the rules that a module defines, in order."""
    return (value for value in vars(module).values() if isinstance(value, Rule))


RULES: tuple[Rule, ...] = tuple(rule for module in THEMES for rule in rules_of(module))
"""Every rule, by theme."""
