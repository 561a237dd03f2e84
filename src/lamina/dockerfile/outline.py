"""What a Dockerfile offers to its caller: targets, and the arguments, secrets and agents that a target takes.

Pure: no image is resolved and nothing is opened, so triggers of base images are not counted. The fields follow
BuildKit's subrequests `frontend.outline` and `frontend.targets`, version 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lamina.dockerfile import instructions as ins
from lamina.dockerfile.mounts import parse_mount
from lamina.dockerfile.stages import find_target, needed_stages
from lamina.dockerfile.words import Words
from lamina.errors import InputError, SourceRange


@dataclass(frozen=True, slots=True)
class Target:
    """One stage that can be asked for; `name` is "" for a last stage without one."""

    name: str
    description: str
    base: str
    platform: str
    default: bool
    source: SourceRange


@dataclass(frozen=True, slots=True)
class Taken:
    """An argument, secret or agent that a target takes.

    Attributes:
        value: of an argument: what it will be, "" when nothing is known.
        required: of a secret or agent: the build fails without it.
    """

    name: str
    source: SourceRange
    description: str = ""
    value: str = ""
    required: bool = False


@dataclass(slots=True)
class Outline:
    """What one target takes, each in the order of the file."""

    name: str
    description: str
    args: list[Taken] = field(default_factory=list)
    secrets: list[Taken] = field(default_factory=list)
    ssh: list[Taken] = field(default_factory=list)


def list_targets(dockerfile: ins.Dockerfile) -> list[Target]:
    """Return the stages that have a name, and the last one."""
    last = dockerfile.stages[-1]
    return [
        Target(
            stage.name,
            stage.description,
            stage.base.image,
            stage.base.platform,
            stage is last,
            stage.base.source,
        )
        for stage in dockerfile.stages
        if stage.name or stage is last
    ]


def outline(dockerfile: ins.Dockerfile, target: str, build_args: Mapping[str, str]) -> Outline:
    """Return what a target takes; "" is the last stage.

    Raises:
        InputError: no such stage, stages in a circle, a mount that is malformed.
    """
    reader = _Reader(dockerfile, build_args)
    stage = find_target(dockerfile, target)
    for needed in needed_stages(dockerfile, stage, reader):
        reader.read(needed)
    found = Outline(stage.name, stage.description)
    found.args = _in_order(reader.args)
    found.secrets = _in_order(reader.secrets)
    found.ssh = _in_order(reader.ssh)
    return found


def _in_order(taken: Mapping[str, Taken]) -> list[Taken]:
    return sorted(taken.values(), key=lambda one: (one.source.start, one.name))


class _Reader:
    """Collects what stages take."""

    def __init__(self, dockerfile: ins.Dockerfile, build_args: Mapping[str, str]) -> None:
        self._given, self._words = build_args, Words(dockerfile.escape)
        self._global: dict[str, Taken] = {}
        self._values: dict[str, str] = {}
        self.args: dict[str, Taken] = {}
        self.secrets: dict[str, Taken] = {}
        self.ssh: dict[str, Taken] = {}
        for arg in dockerfile.global_args:
            for taken in self._declared(arg, self._values):
                self._global[taken.name] = taken
                self._values[taken.name] = taken.value

    def base_name(self, stage: ins.Stage) -> str:
        """Return what a stage's FROM names; its arguments are taken."""
        for text in (stage.base.image, stage.base.platform):
            for name, taken in self._global.items():
                if f"${name}" in text or f"${{{name}" in text:
                    self.args.setdefault(name, taken)
        return self._expanded(stage.base.image, self._values, stage.base.source)

    def read(self, stage: ins.Stage) -> None:
        """Collect from one stage."""
        values: dict[str, str] = {}
        for item in stage.instructions:
            if isinstance(item, ins.Arg):
                for taken in self._declared(item, values):
                    values[taken.name] = taken.value
                    self._take(taken, item)
            elif isinstance(item, ins.Env):
                values |= {name: self._expanded(value, values, item.source) for name, value in item.pairs}
            elif isinstance(item, ins.Run):
                self._mounts(item, values)

    def _declared(self, arg: ins.Arg, values: Mapping[str, str]) -> Iterator[Taken]:
        for name, default in arg.pairs:
            value = self._given.get(name)
            if value is None and default is not None:
                value = self._expanded(default, values, arg.source)
            yield Taken(name, arg.source, arg.comment_about(name), value or "")

    def _take(self, taken: Taken, arg: ins.Arg) -> None:
        """Note an ARG; without a default the global one of that name tells more, and a built-in one is no news."""
        own = taken.name in self._given or dict(arg.pairs).get(taken.name) is not None
        if not own and taken.name in self._global:
            taken = self._global[taken.name]
        if not own and taken.name.startswith(("TARGET", "BUILD")) and taken.name not in self._global:
            return
        self.args.setdefault(taken.name, taken)

    def _mounts(self, run: ins.Run, values: Mapping[str, str]) -> None:
        for text in run.mounts:
            mount = parse_mount(text, run.source, lambda value: self._expanded(value, values, run.source))
            name = mount.id or (mount.source if mount.type == "secret" else "")
            if mount.type == "secret":
                name = name or mount.target.rpartition("/")[2]
                self.secrets.setdefault(name, Taken(name, run.source, required=mount.required))
            elif mount.type == "ssh":
                name = name or "default"
                self.ssh.setdefault(name, Taken(name, run.source, required=mount.required))

    def _expanded(self, text: str, values: Mapping[str, str], source: SourceRange) -> str:
        try:
            return self._words.word(text, values, source).text
        except InputError:
            return text  # `${x:?}` of something that only a build knows
