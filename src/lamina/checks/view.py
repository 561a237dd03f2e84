"""A Dockerfile as rules look at it: every stage walked once, in order, with what is known at each instruction.

`walk.look_at` makes a `View` from the parsed file and `CheckOptions`. These are the values only. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lamina.dockerfile import instructions as ins
from lamina.errors import SourceRange
from lamina.oci.platform import Platform, host_platform
from lamina.patterns import IgnoreRules

BaseConfig = Callable[[str, Platform], Mapping[str, Any] | None]
"""Answers with the config of a base image as JSON object, None when it is not known."""
ListContext = Callable[[str], Sequence[str]]
"""Answers with the names in a directory of the build context ("" for its top), ignored ones too; a directory's name
ends in `/`. Nothing for what is no directory."""


def no_base(_name: str, _platform: Platform) -> None:
    """A `BaseConfig` that knows no image."""


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What checks may know beside the Dockerfile.

    Attributes:
        build_args: as given for the build.
        target: stage to build, "" for the last.
        all_stages: look into stages that the target does not need too.
        platform: what is built for; `build_platform`: where steps run.
        ignore: rules of the ignore file, None when there is none.
        named_contexts: names of `--build-context`.
        base_config: what base images say; by default none is known.
        list_context: what lies in the build context, None when nobody can tell.
    """

    build_args: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    all_stages: bool = True
    platform: Platform = field(default_factory=host_platform)
    build_platform: Platform = field(default_factory=host_platform)
    ignore: IgnoreRules | None = None
    named_contexts: frozenset[str] = frozenset()
    base_config: BaseConfig = no_base
    list_context: ListContext | None = None


@dataclass(frozen=True, slots=True)
class Expanded:
    """A text with its variables put in.

    Attributes:
        text: as written.
        result: expanded; "" when that fails.
        used, missing: names of variables that are set, and that are not.
        failed: expansion raised; conversion will tell.
    """

    text: str
    result: str = ""
    used: frozenset[str] = frozenset()
    missing: frozenset[str] = frozenset()
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction in its place.

    Attributes:
        item: the instruction.
        values: what it names, expanded: the path of WORKDIR, the user of USER, the sources of COPY and ADD, the words
            of EXPOSE and VOLUME, the names of ENV and ARG; nothing for others.
        undefined: variables that it uses and nothing has defined, in order.
        known: names of variables that are in scope; only where something is undefined, and not in endless files.
        user: who runs here, "" for the base's default (unknown base: root).
        workdir: the working directory, as far as it is known; "" when it hangs on an unknown base.
        workdir_set: a WORKDIR came before, in this stage or those below.
        shell_set: SHELL, here or in the base, has chosen the shell.
    """

    item: ins.Instruction
    values: tuple[str, ...] = ()
    undefined: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    workdir_set: bool = False
    shell_set: bool = False


@dataclass(slots=True)
class State:
    """What a stage hands to those based on it. `sure` is False while the base image's environment is unknown."""

    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    declared: set[str] = field(default_factory=set)
    user: str = ""
    workdir: str = ""
    workdir_set: bool = False
    shell_set: bool = False
    sure: bool = True
    config: Mapping[str, Any] | None = None

    def copy(self) -> State:
        """Return a state that can go its own way."""
        return State(
            dict(self.env), dict(self.args), set(self.declared), self.user, self.workdir, self.workdir_set,
            self.shell_set, self.sure, self.config,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class StageView:
    """One stage.

    Attributes:
        stage: as parsed.
        image: what FROM names; `platform`: its `--platform` ("" when not given).
        below: the stage that it is based on, None for an image, a named context or scratch.
        config: config of the image at the bottom, None when not known (or not asked, or scratch).
        sure: the environment of the image at the bottom is known.
        reachable: the target needs it, or all stages are wanted. Others have no steps.
        steps: its instructions.
        end: what is known after the last.
    """

    stage: ins.Stage
    image: Expanded
    platform: Expanded
    below: StageView | None
    reachable: bool
    steps: tuple[Step, ...]
    end: State

    @property
    def source(self) -> SourceRange:
        """The lines of its FROM."""
        return self.stage.base.source

    @property
    def config(self) -> Mapping[str, Any] | None:
        """The config of the image at the bottom."""
        return self.end.config

    @property
    def sure(self) -> bool:
        """Whether the environment of the image at the bottom is known."""
        return self.end.sure

    def items(self, *kinds: type[ins.Instruction]) -> Iterator[Step]:
        """Yield the steps of these kinds."""
        return (step for step in self.steps if isinstance(step.item, kinds))


@dataclass(frozen=True, slots=True)
class View:
    """The whole file.

    Attributes:
        dockerfile: as parsed.
        options: what else is known.
        stages: all of them, in order; `reachable` says which matter.
        target: the stage that is built, None when the name asked for is none.
        globals: values of the arguments before the first FROM, and of the built-in ones.
        default_globals: the same without any build argument; None when they cannot be expanded.
        lines: the file's lines; line n is `lines[n - 1]`.
    """

    dockerfile: ins.Dockerfile
    options: CheckOptions
    stages: tuple[StageView, ...]
    target: StageView | None
    globals: Mapping[str, str]
    default_globals: Mapping[str, str] | None
    lines: tuple[str, ...]

    def steps(self, *kinds: type[ins.Instruction]) -> Iterator[Step]:
        """Yield the steps of these kinds, of every stage that matters."""
        for stage in self.stages:
            yield from stage.items(*kinds)

    def instructions(self) -> Iterator[ins.Instruction]:
        """Yield every instruction of the file in order, reachable or not, `FROM` and global `ARG` too."""
        yield from self.dockerfile.global_args
        for stage in self.dockerfile.stages:
            yield stage.base
            yield from stage.instructions
