"""One stage: its instructions carried out on a graph node and an image config."""

from __future__ import annotations

import copy
import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lamina.dockerfile import instructions as ins
from lamina.dockerfile.convert_copy import convert_transfer
from lamina.dockerfile.convert_run import convert_run
from lamina.dockerfile.graph import GraphBuilder, Node, inputs_of
from lamina.dockerfile.parser import parse_instruction
from lamina.dockerfile.stages import earlier_stage
from lamina.dockerfile.suggest import did_you_mean
from lamina.dockerfile.words import Words
from lamina.errors import Error, InputError, NotYetError, SourceRange
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference

if TYPE_CHECKING:
    from lamina.dockerfile.convert import ConvertOptions, ResolveImage

COMMENT = "buildkit.dockerfile.v0"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROXY_ARGS = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
_NOT_INHERITED = (
    *("Image", "Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr"),
    *("Tty", "OpenStdin", "StdinOnce"),
)
_LAYER_MAKERS = (ins.Run, ins.Copy, ins.Add, ins.Workdir)


class Conversion:
    """What all stages of one conversion share."""

    def __init__(
        self, dockerfile: ins.Dockerfile, options: ConvertOptions, resolve: ResolveImage, graph: GraphBuilder
    ) -> None:
        self.dockerfile, self.options, self.resolve, self.graph = dockerfile, options, resolve, graph
        self.words = Words(dockerfile.escape)
        self.stages: dict[int, StageState] = {}
        self.warnings: list[tuple[str, str, SourceRange | None]] = []
        self.used_args: set[str] = set()
        self.global_args = self._global_args()
        self._images: dict[tuple[str, str], Any] = {}
        self._context: Node | None = None
        self.context_paths = _context_paths(self)

    def _global_args(self) -> dict[str, str]:
        values = platform_args(self.options)
        for arg in self.dockerfile.global_args:
            for name, default in arg.pairs:
                name = self.words.word(name, values, arg.source).text
                if name in self.options.build_args:
                    self.used_args.add(name)
                    values[name] = self.options.build_args[name]
                elif default is not None:
                    values[name] = self.words.word(default, values, arg.source).text
        return values

    def base_name(self, stage: ins.Stage) -> str:
        """Return what a stage's FROM names, variables put in."""
        return self.words.word(stage.base.image, self.global_args, stage.base.source).text

    def image(self, name: str, platform: Platform, source: SourceRange | None, title: str) -> tuple[Node, Any]:
        """Return the node and the config of an image, resolved once."""
        named = self.options.named_contexts.get(name)
        if named is not None and named.startswith("docker-image://"):
            name = named.removeprefix("docker-image://")
        elif named is not None:
            return self.local(name), {}
        key = (name, str(platform))
        if key not in self._images:
            try:
                self._images[key] = self.resolve(str(Reference.parse(name)), platform)
            except Error as error:
                error.source = error.source or source
                error.hint = self._stage_hint(name, source) or error.hint
                raise
        base = self._images[key]
        op = pb.Op(
            source=pb.SourceOp(identifier=f"docker-image://{base.reference}"),
            platform=pb.Platform(Architecture=platform.architecture, OS=platform.os, Variant=platform.variant),
        )
        return self.graph.add(op, f"{title} FROM {base.reference}", source), base.config

    def _stage_hint(self, name: str, source: SourceRange | None) -> str:
        """Return what to tell somebody whose image cannot be had and may have meant a stage."""
        names = [stage.name for stage in self.dockerfile.stages if stage.name]
        later = self.dockerfile.stage(name)
        if later is not None and source is not None and later.base.source.start > source.start:
            return f"{name!r} was taken for an image: the stage of that name comes later, FROM sees only earlier ones"
        suggestion = did_you_mean(name, names)
        return f"{name!r} is no stage, so it was taken for an image; {suggestion}" if suggestion else ""

    def context(self) -> Node:
        """Return the node of the build context."""
        if self._context is None:
            import json

            attrs = {"local.followpaths": json.dumps(self.context_paths)}
            if self.options.exclude_patterns:
                attrs["local.excludepatterns"] = json.dumps(list(self.options.exclude_patterns))
            op = pb.Op(source=pb.SourceOp(identifier="local://context", attrs=attrs))
            self._context = self.graph.add(op, "[internal] load build context")
        return self._context

    def local(self, name: str) -> Node:
        """Return the node of a named context that is a directory."""
        op = pb.Op(source=pb.SourceOp(identifier=f"local://{name}"))
        return self.graph.add(op, f"[context {name}] load from client")

    def source_of(self, name: str, state: StageState, source: SourceRange) -> Node:
        """Return what `--from=name` or `from=name` means.

        Raises:
            InputError: the stage itself, or a name that is neither stage nor image.
        """
        found = earlier_stage(self.dockerfile, name, state.stage, is_base=False)
        if found is not None and name not in self.options.named_contexts:
            return self.stages[found.number].node_or_empty()
        if name == "scratch":
            return self.empty()
        return self.image(name, self.options.platform, source, f"[{state.label}]")[0]

    def empty(self) -> Node:
        """Return a node without files, for where a node must be."""
        action = pb.FileAction(
            input=-1, secondaryInput=-1, output=0, mkdir=pb.FileActionMkDir(path="/", mode=0o755, makeParents=True)
        )
        return self.graph.add(pb.Op(file=pb.FileOp(actions=[action])), "scratch")


def start_stage(stage: ins.Stage, conversion: Conversion) -> StageState:
    """Return a stage as its FROM leaves it, with the ONBUILD triggers of its base still to be run."""
    state = StageState(stage, conversion)
    name = conversion.base_name(stage)
    source = stage.base.source
    if not name:
        raise InputError(
            f"FROM has no image: {stage.base.image!r} is empty", source=source, hint="give its ARG a default"
        )
    platform = conversion.options.platform
    if stage.base.platform:
        text = conversion.words.word(stage.base.platform, conversion.global_args, source).text
        platform = Platform.parse(text)
    below = earlier_stage(conversion.dockerfile, name, stage, is_base=True)
    if below is not None and name not in conversion.options.named_contexts:
        state.inherit(conversion.stages[below.number])
    elif name == "scratch":
        state.fields = {"architecture": platform.architecture, "os": platform.os, "config": {}, "history": []}
        if platform.variant:
            state.fields["variant"] = platform.variant
        state.config["WorkingDir"] = "/"
    else:
        title = f"[{state.label} 1/{state.total}]"
        state.node, config = conversion.image(name, platform, source, title)
        state.take_config(config, platform)
    state.config.setdefault("Env", [])
    if not any(line.startswith("PATH=") for line in state.config["Env"]):
        state.config["Env"] = [f"PATH={DEFAULT_PATH}", *state.config["Env"]]
    state.take_triggers()
    return state


class StageState:
    """A stage under way: graph node, image config, variables in scope."""

    def __init__(self, stage: ins.Stage, conversion: Conversion) -> None:
        self.stage, self.conversion = stage, conversion
        self.label = stage.name or f"stage-{stage.number}"
        self.step, self.total = 1, 1 + sum(isinstance(item, _LAYER_MAKERS) for item in stage.instructions)
        self.node: Node | None = None
        self.fields: dict[str, Any] = {"config": {}, "history": []}
        self.args: dict[str, str] = {}
        self.shell: list[str] | None = None
        self.cmd_set = False
        self.triggers: list[ins.Instruction] = []
        filters = conversion.options.no_cache_filter
        self.ignore_cache = conversion.options.no_cache or stage.name in filters or str(stage.number) in filters

    # -- the config

    @property
    def config(self) -> dict[str, Any]:
        """The config object that the image will run with."""
        config: dict[str, Any] = self.fields.setdefault("config", {})
        return config

    def inherit(self, other: StageState) -> None:
        """Go on where another stage ended."""
        self.node, self.fields = other.node, copy.deepcopy(other.fields)
        self.shell = list(other.shell) if other.shell else None

    def take_config(self, config: Mapping[str, Any], platform: Platform) -> None:
        """Start from a base image's config."""
        self.fields = copy.deepcopy({key: value for key, value in config.items() if key not in ("rootfs", "created")})
        self.fields.setdefault("architecture", platform.architecture)
        self.fields.setdefault("os", platform.os)
        if not self.fields.get("config"):
            self.fields["config"] = {}
        self.fields["history"] = list(self.fields.get("history") or [])
        self.fields.pop("container_config", None)
        self.fields.pop("container", None)
        self.config.setdefault("WorkingDir", "/")
        if not self.config["WorkingDir"]:
            self.config["WorkingDir"] = "/"
        self.shell = list(self.config.get("Shell") or []) or None
        for key in _NOT_INHERITED:
            self.config.pop(key, None)

    def take_triggers(self) -> None:
        """Take the base's ONBUILD instructions out of the config, to run them first."""
        for text in self.config.pop("OnBuild", None) or []:
            trigger = parse_instruction(text, self.stage.base.source)
            if isinstance(trigger, ins.Onbuild | ins.From | ins.Maintainer):
                raise InputError(f"the base image has an ONBUILD that is not allowed: {text}", source=trigger.source)
            self.triggers.append(trigger)
            self.total += isinstance(trigger, _LAYER_MAKERS)

    def env(self) -> dict[str, str]:
        """Return the environment of the image so far."""
        return dict(line.split("=", 1) if "=" in line else (line, "") for line in self.config.get("Env") or [])

    def variables(self) -> dict[str, str]:
        """Return what variables mean now: ENV wins over ARG."""
        return {**self.args, **self.env()}

    def expand(self, text: str, source: SourceRange) -> str:
        """Return one word with its variables put in."""
        return self.conversion.words.word(text, self.variables(), source).text

    def split(self, text: str, source: SourceRange) -> tuple[str, ...]:
        """Return the words that a text becomes."""
        return self.conversion.words.word(text, self.variables(), source).words

    def set_env(self, name: str, value: str) -> None:
        """Set a variable of the image, in place where it was set before."""
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
        joined = posixpath.normpath(posixpath.join(self.workdir(), path))
        joined = "/" + joined.lstrip("/")
        return (
            joined + "/"
            if (path.endswith(("/", "/.")) and joined != "/") or (path == "." and joined != "/")
            else joined
        )

    def history(self, text: str, *, layer: bool) -> None:
        """Add a row of history."""
        row: dict[str, Any] = {"created_by": text, "comment": COMMENT}
        if not layer:
            row["empty_layer"] = True
        self.fields.setdefault("history", []).append(row)

    def title(self, text: str) -> str:
        """Return the next step's name for the display."""
        self.step += 1
        return f"[{self.label} {self.step}/{self.total}] {text}"

    def node_or_empty(self) -> Node:
        """Return the stage's node; a stage without layers is an empty directory."""
        return self.node if self.node is not None else self.conversion.empty()

    def add(self, op: pb.Op, name: str, source: SourceRange) -> None:
        """Make the op's first output the stage's root."""
        self.node = self.conversion.graph.add(op, name, source, ignore_cache=self.ignore_cache)

    def finish(self, labels: Mapping[str, str]) -> dict[str, Any]:
        """Return the image config."""
        if labels:
            self.config.setdefault("Labels", {}).update(labels)
        return self.fields

    # -- instructions

    def dispatch(self, item: ins.Instruction) -> None:
        """Carry one instruction out."""
        handler = getattr(self, f"_{type(item).__name__.lower()}", None)
        if handler is None:
            raise NotYetError(f"the instruction {item.keyword}", source=item.source)
        try:
            handler(item)
        except InputError as error:
            error.source = error.source or item.source
            raise

    def _run(self, item: ins.Run) -> None:
        convert_run(item, self)

    def _copy(self, item: ins.Copy) -> None:
        convert_transfer(item, self)

    def _add(self, item: ins.Add) -> None:
        convert_transfer(item, self)

    def _workdir(self, item: ins.Workdir) -> None:
        path = self.absolute(self.expand(item.path, item.source)).rstrip("/") or "/"
        self.config["WorkingDir"] = path
        mkdir = pb.FileActionMkDir(path=path, mode=0o755, makeParents=True, timestamp=self._timestamp())
        base = [self.node] if self.node is not None else []
        action = pb.FileAction(input=0 if base else -1, secondaryInput=-1, output=0, mkdir=mkdir)
        op = pb.Op(inputs=inputs_of(base), file=pb.FileOp(actions=[action]))
        self.add(op, self.title(f"WORKDIR {path}"), item.source)
        self.history(f"WORKDIR {path}", layer=True)

    def _timestamp(self) -> int:
        epoch = self.conversion.options.source_date_epoch
        return epoch * 10**9 if epoch is not None else -1

    def _arg(self, item: ins.Arg) -> None:
        shown = []
        for name, default in item.pairs:
            name = self.expand(name, item.source)
            given = self.conversion.options.build_args.get(name)
            value: str | None = given
            if given is not None:
                self.conversion.used_args.add(name)
            elif default is not None:
                value = self.expand(default, item.source)
            else:
                value = self.conversion.global_args.get(name)
            if value is not None:
                self.args[name] = value
            shown.append(name if value is None else f"{name}={value}")
        self.history(f"ARG {' '.join(shown)}", layer=False)

    def _env(self, item: ins.Env) -> None:
        before = self.variables()
        words = self.conversion.words
        shown = []
        for name, value in item.pairs:
            name = words.word(name, before, item.source).text
            value = words.word(value, before, item.source).text
            self.set_env(name, value)
            shown.append(f"{name}={value}")
        self.history(f"ENV {' '.join(shown)}", layer=False)

    def _label(self, item: ins.Label) -> None:
        labels = self.config.setdefault("Labels", {})
        if labels is None:
            labels = self.config["Labels"] = {}
        shown = []
        for name, value in item.pairs:
            name, value = self.expand(name, item.source), self.expand(value, item.source)
            labels[name] = value
            shown.append(f"{name}={value}")
        self.history(f"LABEL {' '.join(shown)}", layer=False)

    def _maintainer(self, item: ins.Maintainer) -> None:
        self.fields["author"] = item.name
        self.history(f"MAINTAINER {item.name}", layer=False)

    def _user(self, item: ins.User) -> None:
        self.config["User"] = self.expand(item.user, item.source)
        self.history(f"USER {self.config['User']}", layer=False)

    def _expose(self, item: ins.Expose) -> None:
        ports = self.config.get("ExposedPorts") or {}
        shown = [word for text in item.ports for word in self.split(text, item.source)]
        for word in shown:
            for port in expand_ports(word, item.source):
                ports[port] = {}
        self.config["ExposedPorts"] = ports
        self.history(f"EXPOSE {ports_shown(shown)}", layer=False)

    def _volume(self, item: ins.Volume) -> None:
        volumes = self.config.get("Volumes") or {}
        paths = [self.expand(path, item.source) for path in item.paths]
        if not all(paths):
            raise InputError("VOLUME needs a path that is not empty", source=item.source)
        volumes.update({path: {} for path in paths})
        self.config["Volumes"] = volumes
        self.history(f"VOLUME [{' '.join(paths)}]", layer=False)

    def _stopsignal(self, item: ins.StopSignal) -> None:
        self.config["StopSignal"] = self.expand(item.signal, item.source)
        self.history(f"STOPSIGNAL {self.config['StopSignal']}", layer=False)

    def _shell(self, item: ins.Shell) -> None:
        self.shell = list(item.args)
        self.config["Shell"] = list(item.args)
        self.history(f"SHELL [{' '.join(item.args)}]", layer=False)

    def command(self, command: ins.ShellForm | ins.ExecForm) -> list[str]:
        """Return the arguments of a command; the shell form goes through the shell."""
        if isinstance(command, ins.ExecForm):
            return list(command.args)
        return [*(self.shell or ["/bin/sh", "-c"]), command.full_text()]

    def _cmd(self, item: ins.Cmd) -> None:
        self.config["Cmd"] = self.command(item.command)
        self.cmd_set = True
        self.history(f"CMD {_shown(self.config['Cmd'])}", layer=False)

    def _entrypoint(self, item: ins.Entrypoint) -> None:
        self.config["Entrypoint"] = self.command(item.command)
        if not self.cmd_set:
            self.config.pop("Cmd", None)
        self.history(f"ENTRYPOINT {_shown(self.config['Entrypoint'])}", layer=False)

    def _healthcheck(self, item: ins.Healthcheck) -> None:
        check: dict[str, Any] = {"Test": ["NONE"]}
        if isinstance(item.command, ins.ExecForm):
            check = {"Test": ["CMD", *item.command.args]}
        elif isinstance(item.command, ins.ShellForm):
            check = {"Test": ["CMD-SHELL", item.command.text]}
        for key, value in (
            ("Interval", item.interval_ns), ("Timeout", item.timeout_ns), ("StartPeriod", item.start_period_ns),
            ("StartInterval", item.start_interval_ns), ("Retries", item.retries),
        ):  # fmt: skip
            if value:
                check[key] = value
        self.config["Healthcheck"] = check
        self.history(item.original, layer=False)

    def _onbuild(self, item: ins.Onbuild) -> None:
        self.config.setdefault("OnBuild", []).append(item.expression)
        self.history(f"ONBUILD {item.expression}", layer=False)


def _shown(args: list[str]) -> str:
    return "[" + " ".join(f'"{arg}"' for arg in args) + "]"


def ports_shown(words: list[str]) -> str:
    """Return ports as docker's history shows them."""
    return "[" + " ".join(word if "/" in word else f"{word}/tcp" for word in words) + "]"


def expand_ports(text: str, source: SourceRange) -> list[str]:
    """Return `port/protocol` for each port of a range.

    Raises:
        InputError: not a port, or a range that goes backwards.
    """
    ports, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    first, dash, last = ports.rpartition(":")[2].partition("-")
    last = last if dash else first
    numbers_ok = first.isdigit() and last.isdigit() and 0 < int(first) <= int(last) <= 65535
    if not numbers_ok or protocol not in ("tcp", "udp", "sctp"):
        raise InputError(f"EXPOSE: {text!r} is not a port", source=source, hint="write 80, 80/udp or 8000-8010")
    return [f"{number}/{protocol}" for number in range(int(first), int(last) + 1)]


def platform_args(options: ConvertOptions) -> dict[str, str]:
    """Return the ARGs that are there by themselves."""
    found: dict[str, str] = {}
    for prefix, platform in (("TARGET", options.platform), ("BUILD", options.build_platform)):
        found |= {
            f"{prefix}PLATFORM": str(platform),
            f"{prefix}OS": platform.os,
            f"{prefix}ARCH": platform.architecture,
            f"{prefix}VARIANT": platform.variant,
        }
    return found


def _context_paths(conversion: Conversion) -> list[str]:
    """Return the paths of the build context that any instruction may read, roughly: variables mean everything."""
    found: set[str] = set()
    for stage in conversion.dockerfile.stages:
        for item in stage.instructions:
            if isinstance(item, ins.Copy) and item.from_:
                continue
            if isinstance(item, ins.Onbuild):
                return ["."]
            if isinstance(item, ins.Copy | ins.Add):
                found.update(item.sources)
            elif isinstance(item, ins.Run) and any("bind" in text or "type" not in text for text in item.mounts):
                return ["."]
    cleaned = {posixpath.normpath("/" + path).lstrip("/") or "." for path in found}
    if "." in cleaned or any("$" in path for path in cleaned):
        return ["."]
    return sorted(cleaned)
