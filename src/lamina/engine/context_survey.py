"""What a build can see of its context directories, and what of it the Dockerfile reads.

In: `BuildOptions`, as for a build. Out: one `Survey` for each context that is a directory. What is read is not
guessed from the Dockerfile's text: it is converted to a graph, and the sources of its copies and mounts are looked
up by the code that copies. Base images are not looked up, so variables and ONBUILD triggers that only they have are
not known; nothing is built and no file is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from lamina.dockerfile.convert import ResolvedBase, convert
from lamina.dockerfile.parser import parse
from lamina.engine.build import MAX_IGNORE_BYTES, convert_options, wanted_platforms
from lamina.engine.options import BuildOptions
from lamina.errors import Error, InputError
from lamina.layer.entry import Entry
from lamina.layer.recipe_options import CopyOptions
from lamina.layer.recipe_source import find_sources, iter_source
from lamina.llb.definition import Graph, Vertex, load_definition
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.platform import Platform
from lamina.patterns import IgnoreRules, parse_ignore_lines
from lamina.source.context import ContextView
from lamina.source.listing import Listing, list_context
from lamina.store.files import read_capped

MAIN = "context"
"""Name of the context that PATH names."""
_NO_DIGEST = "sha256:" + "0" * 64
_IMAGE_FIELDS = {"architecture": "amd64", "os": "linux", "config": {}}


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of an ignore file, `!` in front of an exception."""

    line: int
    pattern: str

    @property
    def keeps(self) -> bool:
        """Whether it is an exception."""
        return self.pattern.startswith("!")


@dataclass(frozen=True, slots=True)
class Survey:
    """One context.

    Attributes:
        name: `MAIN`, or the name of a named context.
        ignore_name: how messages call the ignore file; "" when there is none.
        rules: its rules; `Listed.rule` counts in them.
        listing: every path, kept or not.
        read: paths that the target's instructions read, with the line of the first that does.
        notes: what an instruction reads and is not there, and why less is known; one line each.
        known: whether `read` could be told.
    """

    name: str
    ignore_name: str
    rules: tuple[Rule, ...]
    listing: Listing
    read: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    known: bool = False


def survey_contexts(options: BuildOptions) -> tuple[Survey, ...]:
    """Look at the build context and at all named contexts that are directories.

    Args:
        options: with `dockerfile` empty, nothing is said about what is read.

    Raises:
        InputError: an ignore file has a rule that is none, or a directory is not there.
    """
    surveys = [_survey(MAIN, options.context, options.ignore, options.ignore_name)] if options.context else []
    for name, source in options.build_contexts.items():
        if "://" not in source and os.path.isdir(source):
            path = os.path.join(source, ".dockerignore")
            data = read_capped(path, MAX_IGNORE_BYTES) if os.path.isfile(path) else None
            surveys.append(_survey(name, source, data, ".dockerignore"))
    if not options.dockerfile:
        return tuple(surveys)
    try:
        graphs = _graphs(options)
    except Error as error:
        note = f"what is read is not known, because the Dockerfile does not convert: {error}"
        return tuple(replace(survey, notes=(note,)) for survey in surveys)
    return tuple(_with_reads(survey, graphs) for survey in surveys)


def _survey(name: str, directory: str, ignore: bytes | None, ignore_name: str) -> Survey:
    lines = parse_ignore_lines(ignore) if ignore is not None else []
    listing = list_context(directory, IgnoreRules(pattern for _, pattern in lines))
    rules = tuple(Rule(line, pattern) for line, pattern in lines)
    return Survey(name, ignore_name if ignore is not None else "", rules, listing)


def _graphs(options: BuildOptions) -> list[Graph]:
    """Convert the Dockerfile for every platform, base images taken as unknown."""
    dockerfile = parse(options.dockerfile, options.dockerfile_name)

    def resolve(name: str, _platform: Platform) -> ResolvedBase:
        return ResolvedBase(name.removeprefix("oci-layout://"), _NO_DIGEST, _IMAGE_FIELDS)

    return [
        load_definition(convert(dockerfile, convert_options(options, platform), resolve).definition)
        for platform in wanted_platforms(options)
    ]


def _with_reads(survey: Survey, graphs: list[Graph]) -> Survey:
    rules = IgnoreRules(rule.pattern for rule in survey.rules)
    read: dict[str, int] = {}
    notes: list[str] = []
    ignore_name = survey.ignore_name or ".dockerignore"
    name = "the build context" if survey.name == MAIN else f"the context {survey.name!r}"
    with ContextView(survey.listing.root, rules, name=name, ignore_name=ignore_name) as view:
        reader = _Reader(view, read)
        for graph in graphs:
            sources = {
                vertex.digest
                for vertex in graph.vertices
                if vertex.op.WhichOneof("op") == "source" and vertex.op.source.identifier == f"local://{survey.name}"
            }
            for vertex in graph.vertices:
                line = vertex.sources[0].start if vertex.sources else 0
                try:
                    for entry in reader.reads(vertex, sources):
                        read.setdefault(entry.path, line)
                except InputError as error:
                    notes.append(f"line {line}: {error.what}" + (f" ({error.hint})" if error.hint else ""))
    return replace(survey, read=read, notes=tuple(dict.fromkeys(notes)), known=True)


class _Reader:
    """Finds what the vertices of a graph read from one context."""

    def __init__(self, view: ContextView, read: Mapping[str, int]) -> None:
        self._view, self._read = view, read

    def reads(self, vertex: Vertex, contexts: set[str]) -> Iterator[Entry]:
        """Yield the entries that `vertex` reads from the sources `contexts`."""
        own = [number for number, (digest, _) in enumerate(vertex.inputs) if digest in contexts]
        if not own:
            return
        kind = vertex.op.WhichOneof("op")
        if kind == "file":
            for action in vertex.op.file.actions:
                if action.WhichOneof("action") == "copy" and action.secondaryInput in own:
                    yield from self._copied(action.copy)
                if action.input in own:
                    yield from self._below("")
        elif kind == "exec":
            for mount in vertex.op.exec.mounts:
                if mount.input in own:
                    yield from self._below(mount.selector)
        else:
            yield from self._below("")

    def _copied(self, copy: pb.FileActionCopy) -> Iterator[Entry]:
        options = CopyOptions(
            follow_symlink=copy.followSymlink,
            dir_copy_contents=copy.dirCopyContents,
            allow_wildcard=copy.allowWildcard,
            allow_empty_wildcard=copy.allowEmptyWildcard,
            include=tuple(copy.include_patterns),
            exclude=tuple(copy.exclude_patterns),
            required=tuple(copy.required_paths),
        )
        for source in find_sources(self._view, copy.src, options):
            if source.path != source.entry.path and (link := self._view.lookup(source.path)) is not None:
                yield link
            for step in iter_source(self._view, source.entry, options):
                yield step.entry

    def _below(self, path: str) -> Iterator[Entry]:
        entry = self._view.lookup(self._view.resolve(path))
        if entry is None:
            raise InputError(f"/{path.lstrip('/')}: not found", hint=self._view.why_missing(path.lstrip("/")))
        for step in iter_source(self._view, entry, CopyOptions()):
            yield step.entry
