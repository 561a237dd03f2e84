"""One stage: its instructions carried out on a graph node and an image config."""

from __future__ import annotations

import copy
import posixpath
from collections.abc import Callable, Mapping
from typing import Any

from lamina.dockerfile import convert_config as config
from lamina.dockerfile import instructions as ins
from lamina.dockerfile.convert_copy import convert_transfer, owner_of
from lamina.dockerfile.convert_run import convert_run
from lamina.dockerfile.convert_sources import Conversion
from lamina.dockerfile.graph import Node, inputs_of
from lamina.dockerfile.parser import parse_instruction
from lamina.dockerfile.stages import earlier_stage
from lamina.errors import InputError, SourceRange
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.platform import Platform

COMMENT = "buildkit.dockerfile.v0"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MAX_PATH = 4096
"""PATH_MAX of Linux; also keeps chains of relative directories from growing without bound."""
MAX_VARIABLE, MAX_ENVIRONMENT = 128 << 10, 1 << 20
"""Most characters of one variable (MAX_ARG_STRLEN: no process could be given more), and of all together."""
_NOT_INHERITED = (
    *("Image", "Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr"),
    *("Tty", "OpenStdin", "StdinOnce"),
)
_LAYER_MAKERS = (ins.Run, ins.Copy, ins.Add, ins.Workdir)


def start_stage(stage: ins.Stage, conversion: Conversion) -> StageState:
    """Return a stage as its FROM leaves it, with the ONBUILD triggers of its base still to be run.

    A named context of the stage's own name takes the place of the whole stage: `finished` is set then.
    """
    source = stage.base.source
    name = conversion.base_name(stage)
    if not name:
        raise InputError(
            f"FROM has no image: {stage.base.image!r} is empty", source=source, hint="give its ARG a default"
        )
    platform = _platform(stage, conversion)
    state = StageState(stage, conversion, platform)
    context = conversion.named_context(stage.name, platform) if stage.name else None
    below = earlier_stage(conversion.dockerfile, name, stage, is_base=True)
    if context is not None:
        state.finished = True
        state.start_from(*conversion.named_source(stage.name, context, platform, f"[{state.label}]"))
    elif below is not None:
        state.inherit(conversion.stages[below.number])
    elif name == "scratch":
        state.take_config({}, platform)
    else:
        state.total += 1
        context = conversion.named_context(name, platform)
        title = state.title("").rstrip()
        if context is not None:
            state.start_from(*conversion.named_source(name, context, platform, title))
        else:
            state.start_from(*conversion.image(name, platform, source, title))
    if not state.finished:
        state.complete()
    return state


def _platform(stage: ins.Stage, conversion: Conversion) -> Platform:
    if not stage.base.platform:
        return conversion.options.platform
    text = conversion.words.word(stage.base.platform, conversion.global_args, stage.base.source).text
    if not text:
        raise InputError(
            f"FROM --platform={stage.base.platform} is empty",
            source=stage.base.source,
            hint="only ARGs from before the first FROM and the platform ARGs are known here",
        )
    try:
        return Platform.parse(text)
    except InputError as error:
        error.source, error.hint = stage.base.source, error.hint or "write it as linux/amd64 or linux/arm/v7"
        raise


class StageState:
    """A stage under way: graph node, image config, variables in scope."""

    def __init__(self, stage: ins.Stage, conversion: Conversion, platform: Platform) -> None:
        self.stage, self.conversion, self.platform = stage, conversion, platform
        self.label = stage.name or f"stage-{stage.number}"
        self.step, self.total = 0, sum(isinstance(item, _LAYER_MAKERS) for item in stage.instructions)
        self.node: Node | None = None
        self.fields: dict[str, Any] = {"config": {}, "history": []}
        self.declared: dict[str, str] = {}
        self.cmd_set = self.finished = False
        self.triggers: list[ins.Instruction] = []
        self._variables: dict[str, str] = {}
        filters = [name.lower() for name in conversion.options.no_cache_filter]
        self.ignore_cache = conversion.options.no_cache or stage.name in filters or str(stage.number) in filters

    # -- the config

    @property
    def config(self) -> dict[str, Any]:
        """The config object that the image will run with."""
        config: dict[str, Any] = self.fields.setdefault("config", {})
        return config

    def inherit(self, other: StageState) -> None:
        """Go on where another stage ended, its ARGs included."""
        self.node, self.fields, self.platform = other.node, copy.deepcopy(other.fields), other.platform
        self.declared, self._variables = dict(other.declared), dict(other._variables)

    def start_from(self, node: Node | None, config: Mapping[str, Any]) -> None:
        """Start from an image, or from files without a config."""
        self.node = node
        self.take_config(config, self.platform)

    def take_config(self, config: Mapping[str, Any], platform: Platform) -> None:
        """Start from a base's config; {} for none."""
        self.fields = copy.deepcopy({key: value for key, value in config.items() if key not in ("rootfs", "created")})
        self.fields.setdefault("architecture", platform.architecture)
        self.fields.setdefault("os", platform.os)
        if platform.variant and not config:
            self.fields["variant"] = platform.variant
        if not self.fields.get("config"):
            self.fields["config"] = {}
        self.fields["history"] = list(self.fields.get("history") or [])
        self.fields.pop("container_config", None)
        self.fields.pop("container", None)
        self.config["WorkingDir"] = posixpath.normpath("/" + (self.config.get("WorkingDir") or "/").lstrip("/"))
        for key in _NOT_INHERITED:
            self.config.pop(key, None)

    def complete(self) -> None:
        """Give the config what every image has, and take the base's variables and triggers."""
        env = self.config.setdefault("Env", []) or []
        if not any(line.startswith("PATH=") for line in env):
            env = [*env, f"PATH={DEFAULT_PATH}"]
        self.config["Env"] = env
        self._variables.update(line.split("=", 1) if "=" in line else (line, "") for line in env)
        self.take_triggers()

    def take_triggers(self) -> None:
        """Take the base's ONBUILD instructions out of the config, to run them first."""
        for text in self.config.pop("OnBuild", None) or []:
            trigger = parse_instruction(text, self.stage.base.source)
            self.triggers.append(trigger)
            self.total += isinstance(trigger, _LAYER_MAKERS)

    def variables(self) -> dict[str, str]:
        """Return what variables mean now: what ENV or ARG said last, and the base's environment."""
        return self._variables

    def declare(self, name: str, value: str | None) -> None:
        """Take an ARG: part of the environment of steps from here on, not of the image."""
        if value is not None:
            self._check_size(name, value)
            self._variables.pop(name, None)
            self._variables[name] = value
        self.declared[name] = value or ""

    def _check_size(self, name: str, value: str) -> None:
        """Refuse variables that no process could be started with."""
        if len(name) + len(value) > MAX_VARIABLE:
            raise InputError(
                f"the variable {name[:80]} has {len(value):,} characters; at most {MAX_VARIABLE:,} work",
                hint="put large values into a file and COPY it",
            )
        total = sum(len(key) + len(text) for key, text in self._variables.items()) + len(value)
        if total > MAX_ENVIRONMENT:
            raise InputError(
                f"all variables together have more than {MAX_ENVIRONMENT:,} characters",
                hint="put large values into a file and COPY it",
            )

    def expand(self, text: str, source: SourceRange) -> str:
        """Return one word with its variables put in."""
        return self.conversion.words.word(text, self.variables(), source).text

    def split(self, text: str, source: SourceRange) -> tuple[str, ...]:
        """Return the words that a text becomes."""
        return self.conversion.words.word(text, self.variables(), source).words

    def set_env(self, name: str, value: str) -> None:
        """Set a variable of the image, in place where it was set before."""
        self._check_size(name, value)
        self._variables = {**self._variables, name: value}
        lines = self.config.setdefault("Env", [])
        for number, line in enumerate(lines):
            if line.partition("=")[0] == name:
                lines[number] = f"{name}={value}"
                return
        lines.append(f"{name}={value}")

    def workdir(self) -> str:
        """Return the working directory."""
        return str(self.config.get("WorkingDir") or "/")

    def absolute(self, path: str) -> str:
        """Return a path of the image, relative ones below WORKDIR; a slash at the end is kept."""
        joined = "/" + posixpath.normpath(posixpath.join(self.workdir(), path)).lstrip("/")
        if len(joined) > MAX_PATH:
            raise InputError(
                f"a path of {len(joined):,} characters; Linux knows at most {MAX_PATH:,}",
                hint="start with a slash to leave WORKDIR behind",
            )
        is_folder = path.endswith(("/", "/.")) or path in (".", "")
        return joined + "/" if is_folder and joined != "/" else joined

    def history(self, text: str, *, layer: bool) -> None:
        """Add a row of history."""
        row: dict[str, Any] = {"created_by": text, "comment": COMMENT}
        if not layer:
            row["empty_layer"] = True
        self.fields.setdefault("history", []).append(row)

    def title(self, text: str) -> str:
        """Return the next step's name for the display."""
        self.step += 1
        platform = f"{self.platform} " if self.conversion.options.several_platforms else ""
        return f"[{platform}{self.label} {self.step}/{self.total}] {text}"

    def node_or_empty(self) -> Node:
        """Return the stage's node; a stage without layers is an empty directory."""
        return self.node if self.node is not None else self.conversion.empty()

    def add(self, op: pb.Op, name: str, source: SourceRange, *, build_args: tuple[str, ...] = ()) -> None:
        """Make the op's first output the stage's root."""
        graph = self.conversion.graph
        self.node = graph.add(op, name, source, ignore_cache=self.ignore_cache, build_args=build_args)

    def finish(self, labels: Mapping[str, str]) -> dict[str, Any]:
        """Return the image config."""
        if labels:
            self.config["Labels"] = {**(self.config.get("Labels") or {}), **labels}
        return self.fields

    # -- instructions

    def dispatch(self, item: ins.Instruction) -> None:
        """Carry one instruction out."""
        try:
            _HANDLERS[type(item)](item, self)
        except InputError as error:
            error.source = error.source or item.source
            raise


def _convert_workdir(item: ins.Workdir, state: StageState) -> None:
    """WORKDIR: made for the user of that moment where it is missing."""
    path = state.absolute(state.expand(item.path, item.source)).rstrip("/") or "/"
    state.config["WorkingDir"] = path
    if path == "/":
        state.step += 1
        state.history("WORKDIR /", layer=False)
        return
    epoch = state.conversion.epoch
    timestamp = epoch * 10**9 if epoch is not None else -1
    mkdir = pb.FileActionMkDir(path=path, mode=0o755, makeParents=True, timestamp=timestamp)
    base = [state.node] if state.node is not None else []
    if state.config.get("User"):
        mkdir.owner.CopyFrom(owner_of(str(state.config["User"]), has_base=bool(base)))
    action = pb.FileAction(input=0 if base else -1, secondaryInput=-1, output=0, mkdir=mkdir)
    op = pb.Op(inputs=inputs_of(base), file=pb.FileOp(actions=[action]))
    state.add(op, state.title(f"WORKDIR {path}"), item.source)
    state.history(f"WORKDIR {path}", layer=True)


_HANDLERS: dict[type, Callable[..., None]] = {
    ins.Run: convert_run,
    ins.Copy: convert_transfer,
    ins.Add: convert_transfer,
    ins.Workdir: _convert_workdir,
    ins.Arg: config.convert_arg,
    ins.Env: config.convert_env,
    ins.Label: config.convert_label,
    ins.Maintainer: config.convert_maintainer,
    ins.User: config.convert_user,
    ins.Expose: config.convert_expose,
    ins.Volume: config.convert_volume,
    ins.StopSignal: config.convert_stopsignal,
    ins.Shell: config.convert_shell,
    ins.Cmd: config.convert_cmd,
    ins.Entrypoint: config.convert_entrypoint,
    ins.Healthcheck: config.convert_healthcheck,
    ins.Onbuild: config.convert_onbuild,
}
