"""What all stages of one conversion share: variables from outside, and where files come from.

A name after FROM, `--from=` or `from=` means, in this order: a named context of the user's, a stage, an image.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lamina.dockerfile import instructions as ins
from lamina.dockerfile.graph import GraphBuilder, Node
from lamina.dockerfile.stages import circle, earlier_stage, needed_stages
from lamina.dockerfile.suggest import did_you_mean
from lamina.dockerfile.words import Words
from lamina.errors import Error, InputError, SourceRange
from lamina.git_url import GitOptions, parse_git_url, to_source
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference

if TYPE_CHECKING:
    from lamina.dockerfile.convert import ConvertOptions, ResolveImage
    from lamina.dockerfile.convert_stage import StageState

_CREDENTIALS = re.compile(r"//[^/@]*@")
BUILT_IN_ARGS = (
    *("BUILDKIT_BUILD_NAME", "BUILDKIT_CACHE_MOUNT_NS", "BUILDKIT_CONTEXT_KEEP_GIT_DIR", "BUILDKIT_INLINE_CACHE"),
    *("BUILDKIT_MULTI_PLATFORM", "BUILDKIT_SANDBOX_HOSTNAME", "BUILDKIT_SYNTAX", "BUILDKIT_DOCKERFILE_CHECK"),
    *("BUILDKIT_SBOM_SCAN_STAGE", "BUILDKIT_SBOM_SCAN_CONTEXT", "SOURCE_DATE_EPOCH"),
)
"""Build arguments that mean something to the builder, whether an ARG takes them or not."""
MAX_EPOCH = (1 << 33) - 1
"""Latest time that the builder stamps, in seconds."""


class Conversion:
    """What all stages of one conversion share."""

    def __init__(
        self,
        dockerfile: ins.Dockerfile,
        options: ConvertOptions,
        resolve: ResolveImage,
        graph: GraphBuilder,
        convert_stage: Callable[[ins.Stage, Conversion], StageState],
    ) -> None:
        self.dockerfile, self.options, self.resolve, self.graph = dockerfile, options, resolve, graph
        self._convert_stage = convert_stage
        self._open: set[int] = set()
        self.words = Words(dockerfile.escape)
        self.stages: dict[int, StageState] = {}
        self.warnings: list[tuple[str, str, SourceRange | None]] = []
        self.used_args: set[str] = set()
        self.global_args = self._global_args()
        self.epoch = self._epoch()
        self._images: dict[tuple[str, str], Any] = {}
        self._context: Node | None = None
        self._paths: set[str] = set()

    def _global_args(self) -> dict[str, str]:
        given = self.options.build_args
        self.used_args.update(name for name in BUILT_IN_ARGS if name in given)
        values = platform_args(self.options)
        for name in values.keys() & given.keys():
            self.used_args.add(name)
            values[name] = given[name]
        for arg in self.dockerfile.global_args:
            for name, default in arg.pairs:
                name = self.words.word(name, values, arg.source).text
                if name in given:
                    self.used_args.add(name)
                    values[name] = given[name]
                elif default is not None:
                    values[name] = self.words.word(default, values, arg.source).text
        return values

    def _epoch(self) -> int | None:
        """Return SOURCE_DATE_EPOCH: the option, else what a global ARG says."""
        text = self.global_args.get("SOURCE_DATE_EPOCH", "")
        if self.options.source_date_epoch is not None or not text:
            return self.options.source_date_epoch
        if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > MAX_EPOCH:
            source = next(
                arg.source
                for arg in self.dockerfile.global_args
                for name, _ in arg.pairs
                if name == "SOURCE_DATE_EPOCH"
            )
            raise InputError(
                f"SOURCE_DATE_EPOCH={text!r} is not a number of seconds",
                source=source,
                hint="write the seconds since 1970, as `date +%s` prints them",
            )
        return int(text)

    def stage(self, stage: ins.Stage) -> StageState:
        """Return a stage carried out, and first all that it needs; each once.

        Raises:
            InputError: stages that need each other, also by an ONBUILD of a base.
        """
        for needed in needed_stages(self.dockerfile, stage, self, self.stages):
            if needed.number in self._open:
                found = circle(stage, needed)
                # What the file itself says was looked at before: this comes from elsewhere.
                found.hint = "an ONBUILD of a base image asks for the stage that stands on it: use another base there"
                raise found
            self._open.add(needed.number)
            self.stages[needed.number] = self._convert_stage(needed, self)
            self._open.remove(needed.number)
        return self.stages[stage.number]

    def base_name(self, stage: ins.Stage) -> str:
        """Return what a stage's FROM names, variables put in."""
        return self.words.word(stage.base.image, self.global_args, stage.base.source).text

    def named_context(self, name: str, platform: Platform) -> str | None:
        """Return the source of the context that stands for `name`, None when the user gave none.

        Names are compared as docker writes images: `alpine`, `alpine:latest` and `docker.io/library/alpine` are
        one. A context named `NAME::PLATFORM` is for that platform alone.
        """
        if not self.options.named_contexts:
            return None
        familiar = _familiar(name)
        given = {_familiar(key): value for key, value in self.options.named_contexts.items()}
        return given.get(f"{familiar}::{platform}", given.get(familiar))

    def named_source(self, name: str, source: str, platform: Platform, title: str) -> tuple[Node | None, Any]:
        """Return the node and config of a named context; None for `docker-image://scratch`."""
        if source.startswith("docker-image://"):
            wanted = source.removeprefix("docker-image://")
            return (None, {}) if wanted == "scratch" else self.image(wanted, platform, None, f"[context {name}]")
        if source.startswith("oci-layout://"):
            base = self.resolve(source, platform)
            op = pb.Op(source=pb.SourceOp(identifier=f"oci-layout://{base.reference}"), platform=platform_pb(platform))
            op.source.attrs["oci.store"] = source.removeprefix("oci-layout://").partition("@")[0]
            return self.graph.add(op, f"[context {name}] OCI load from client"), base.config
        if source.startswith("input:"):
            return self._input(name, source.removeprefix("input:"))
        if source.startswith("local:"):
            return self.local(source.removeprefix("local:")), {}
        repository = parse_git_url(source)
        if repository is not None:
            identifier, attrs = to_source(repository, GitOptions())
            return self.graph.add(pb.Op(source=pb.SourceOp(identifier=identifier, attrs=attrs)), f"{title} {name}"), {}
        if source.startswith(("http://", "https://")):
            op = pb.Op(source=pb.SourceOp(identifier=source, attrs={"http.filename": "context"}))
            return self.graph.add(op, f"[context {name}] {_CREDENTIALS.sub('//', source)}"), {}
        if "://" in source:
            raise InputError(
                f"the build context {name!r} has an unknown source: {source!r}",
                hint="a directory, docker-image://NAME, oci-layout://DIR:TAG, a git or http(s) URL",
            )
        return self.local(self._name_of(name, platform)), {}

    def _input(self, name: str, source: str) -> tuple[Node | None, Any]:
        """Return the node and config of a graph that the client gave."""
        found = self.options.inputs.get(source)
        if found is None:
            raise InputError(
                f"the build context {name!r} is the input {source!r}, which was not given",
                hint="clients of the daemon give inputs; else name a directory, an image or a URL",
            )
        return self.graph.include(found.definition), found.config

    def _name_of(self, name: str, platform: Platform) -> str:
        """Return how the user wrote the name of a context."""
        wanted = (_familiar(f"{name}::{platform}"), _familiar(name))
        return next(key for form in wanted for key in self.options.named_contexts if _familiar(key) == form)

    def image(self, name: str, platform: Platform, source: SourceRange | None, title: str) -> tuple[Node, Any]:
        """Return the node and the config of an image, resolved once."""
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
            platform=platform_pb(platform),
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

    def context(self, *paths: str) -> Node:
        """Return the node of the build context, and note which of its paths are read.

        Which paths all instructions read together is known only at the end: `settle_context`.
        """
        if self.options.context is not None:
            return self.graph.include(self.options.context.definition) or self.empty()
        self._paths.update(posixpath.normpath("/" + path).lstrip("/") or "." for path in paths)
        if self._context is None:
            op = pb.Op(source=pb.SourceOp(identifier="local://context"))
            self._context = self.graph.add(op, "[internal] load build context")
        return self._context

    @property
    def used_context(self) -> Node | None:
        """The node of the build context that is a directory, None while nothing is read from it."""
        return self._context

    def settle_context(self, *nodes: Node) -> list[Node]:
        """Tell the build context which of its paths are read, and return nodes as they are called then."""
        if self._context is None:
            return list(nodes)
        op = pb.Op(source=pb.SourceOp(identifier="local://context", attrs=self._attrs(self.options.exclude_patterns)))
        paths = ["."] if "." in self._paths else sorted(self._paths)
        op.source.attrs["local.followpaths"] = json.dumps(paths)
        changed = self.graph.change(self._context, op)
        return [Node(changed.get(node.digest, node.digest), node.output) for node in nodes]

    def _attrs(self, excludes: tuple[str, ...]) -> dict[str, str]:
        return {"local.excludepatterns": json.dumps(list(excludes))} if excludes else {}

    def local(self, name: str) -> Node:
        """Return the node of a named context that is a directory; it may have an ignore file of its own."""
        attrs = self._attrs(self.options.context_excludes.get(name, ()))
        op = pb.Op(source=pb.SourceOp(identifier=f"local://{name}", attrs=attrs))
        return self.graph.add(op, f"[context {name}] load from client")

    def source_of(self, name: str, state: StageState, source: SourceRange, *paths: str) -> Node | None:
        """Return what `--from=name` or `from=name` means, None for nothing at all.

        Raises:
            InputError: the stage itself, or a name that is neither stage nor image.
        """
        platform = self.options.platform
        context = self.named_context(name, platform)
        found = earlier_stage(self.dockerfile, name, state.stage, is_base=False)
        if context is not None and (found is None or found.number not in self.stages):
            return self.named_source(name, context, platform, f"[{state.label}]")[0]
        if found is not None:
            return self.stage(found).node
        if name == "scratch":
            return None
        if name.isdigit():
            raise InputError(
                f"there is no stage number {name}",
                source=source,
                hint=f"stages count from 0, and this file has {len(self.dockerfile.stages)}; "
                "better give the stage a name: FROM ... AS name",
            )
        return self.image(name, platform, source, f"[{state.label}]")[0]

    def empty(self) -> Node:
        """Return a node without files, for where a node must be."""
        action = pb.FileAction(
            input=-1, secondaryInput=-1, output=0, mkdir=pb.FileActionMkDir(path="/", mode=0o755, makeParents=True)
        )
        return self.graph.add(pb.Op(file=pb.FileOp(actions=[action])), "scratch")

    def warn(self, rule: str, message: str, source: SourceRange | None) -> None:
        """Note something that does not stop the build."""
        self.warnings.append((rule, message, source))


def _familiar(name: str) -> str:
    """Return an image name as docker shows it, without `:latest`; other names as they are."""
    name, separator, platform = name.partition("::")
    try:
        short = Reference.parse(name).familiar().removesuffix(":latest")
    except Error:
        short = name
    return short + separator + platform


def platform_pb(platform: Platform) -> pb.Platform:
    """Return a platform as ops carry it."""
    return pb.Platform(Architecture=platform.architecture, OS=platform.os, Variant=platform.variant)


def platform_args(options: ConvertOptions) -> dict[str, str]:
    """Return the ARGs that are there by themselves."""
    found: dict[str, str] = {}
    for prefix, platform in (("TARGET", options.platform), ("BUILD", options.build_platform)):
        found |= {
            f"{prefix}PLATFORM": str(platform),
            f"{prefix}OS": platform.os,
            f"{prefix}OSVERSION": "",
            f"{prefix}ARCH": platform.architecture,
            f"{prefix}VARIANT": platform.variant,
        }
    return found | {"TARGETSTAGE": options.target or "default"}
