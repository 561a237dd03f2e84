"""Which stages a build needs, and in which order: the target, what it stands on, what it copies from."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Protocol

from lamina.dockerfile.instructions import Copy, Dockerfile, Onbuild, Run, Stage
from lamina.dockerfile.mounts import mount_origin
from lamina.dockerfile.suggest import did_you_mean
from lamina.errors import InputError, SourceRange


class BaseNames(Protocol):
    """Whoever knows the values of global arguments."""

    def base_name(self, stage: Stage) -> str:
        """Return what a stage's FROM names, variables put in."""


def find_target(dockerfile: Dockerfile, name: str) -> Stage:
    """Return the stage asked for, the last one by default.

    Raises:
        InputError: no such stage.
    """
    if not name:
        return dockerfile.stages[-1]
    found = dockerfile.stage(name)
    if found is None:
        names = [stage.name or str(stage.number) for stage in dockerfile.stages]
        hint = did_you_mean(name, names) or f"the stages are: {', '.join(names)}"
        if not any(stage.name for stage in dockerfile.stages):
            hint = f"stages without a name are asked for by number: {', '.join(names)}"
        raise InputError(f"there is no stage {name!r} to build", where=dockerfile.filename, hint=hint)
    return found


def needed_stages(dockerfile: Dockerfile, target: Stage, names: BaseNames, done: Container[int] = ()) -> list[Stage]:
    """Return the stages below the target and itself, each after those it needs; without the numbers in `done`.

    Raises:
        InputError: stages that need each other.
    """
    order: list[Stage] = []
    if target.number in done:
        return order
    state: dict[int, str] = {}
    stack: list[tuple[Stage, Iterator[Stage]]] = [(target, iter(_below(dockerfile, target, names)))]
    state[target.number] = "open"
    while stack:
        stage, rest = stack[-1]
        for below in rest:
            if state.get(below.number) == "open":
                raise circle(stage, below)
            if below.number not in state and below.number not in done:
                state[below.number] = "open"
                stack.append((below, iter(_below(dockerfile, below, names))))
                break
        else:
            state[stage.number] = "done"
            order.append(stage)
            stack.pop()
    return order


def circle(stage: Stage, below: Stage) -> InputError:
    """Return the error for stages that need each other, or for one that needs itself, at the line that says so."""
    if stage.number == below.number:
        return InputError(
            f"stage {_label(stage)} takes files from itself",
            source=_line(stage, below),
            hint="leave --from out to take them from the build context; to copy within the stage, write RUN cp",
        )
    return InputError(
        f"stages need each other in a circle: {_label(stage)} needs {_label(below)}",
        source=_line(stage, below),
        hint="a stage may take files only from stages that do not need it: move what both need into a third",
    )


def _line(stage: Stage, below: Stage) -> SourceRange:
    """Return the lines of the first instruction of `stage` that names `below`, of its FROM when none does."""
    names = {below.name, str(below.number)}
    for instruction in stage.instructions:
        if isinstance(instruction, Copy) and instruction.from_.lower() in names:
            return instruction.source
        if isinstance(instruction, Run) and any(mount_origin(text).lower() in names for text in instruction.mounts):
            return instruction.source
    return stage.base.source


def _below(dockerfile: Dockerfile, stage: Stage, base_names: BaseNames) -> list[Stage]:
    """Return the stages that `stage` names: as its base, as a source of COPY, in a mount."""
    names = [base_names.base_name(stage)]
    for instruction in stage.instructions:
        actual = instruction.trigger if isinstance(instruction, Onbuild) else instruction
        if isinstance(actual, Copy) and actual.from_ and actual is instruction:
            names.append(actual.from_)
        if isinstance(actual, Run) and actual is instruction:
            names += [mount_origin(text) for text in actual.mounts]
    found = []
    for position, name in enumerate(names):
        below = earlier_stage(dockerfile, name, stage, is_base=position == 0) if name else None
        if below is not None:
            found.append(below)
    return found


def earlier_stage(dockerfile: Dockerfile, name: str, stage: Stage, *, is_base: bool) -> Stage | None:
    """Return the stage that `name` means in `stage`: FROM sees earlier ones only, COPY also sees numbers."""
    if is_base:
        for candidate in reversed(dockerfile.stages[: stage.number]):
            if candidate.name and candidate.name == name.lower():
                return candidate
        return None
    return dockerfile.stage(name)


def _label(stage: Stage) -> str:
    return repr(stage.name) if stage.name else f"stage {stage.number}"
