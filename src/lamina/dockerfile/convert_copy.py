"""COPY and ADD: one FileOp of chained actions, on the stage or (with `--link`) on nothing and merged."""

from __future__ import annotations

import itertools
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lamina.dockerfile import instructions as ins
from lamina.dockerfile.graph import Node, inputs_of
from lamina.errors import InputError, SourceRange
from lamina.git_url import GitOptions, GitUrl, parse_git_url, to_source
from lamina.layer.recipe_options import parse_mode
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.digest import Digest

if TYPE_CHECKING:
    from lamina.dockerfile.convert_stage import StageState

_WILDCARDS = "*?["


@dataclass(frozen=True, slots=True)
class _Given:
    """An instruction with its variables put in."""

    item: ins.Copy | ins.Add
    sources: tuple[str, ...]
    dest: str
    chown: str
    chmod: str
    checksum: str
    exclude: tuple[str, ...]

    @property
    def source(self) -> SourceRange:
        return self.item.source

    @property
    def parents(self) -> bool:
        return isinstance(self.item, ins.Copy) and self.item.parents


def convert_transfer(item: ins.Copy | ins.Add, state: StageState) -> None:
    """Carry out COPY or ADD."""
    given = _expanded(item, state)
    shown = _history(given)
    title = state.title(_named(given))
    base = state.node if not item.link else None
    actions = _Actions(base)
    for text in given.sources:
        _add_source(actions, text, given, state, title)
    for document in item.inline:
        _add_inline(actions, document, given, state)
    op = actions.finish()
    if item.link and state.node is not None:
        made = state.conversion.graph.add(op, title, given.source, ignore_cache=state.ignore_cache)
        parts = pb.MergeOp(inputs=[pb.MergeInput(input=0), pb.MergeInput(input=1)])
        merge = pb.Op(inputs=inputs_of([state.node, made]), merge=parts)
        state.add(merge, f"{title} (merge)", given.source)
    else:
        state.add(op, title, given.source)
    state.history(f"{shown} # buildkit", layer=True)


def _expanded(item: ins.Copy | ins.Add, state: StageState) -> _Given:
    source = item.source
    checksum = state.expand(item.checksum, source) if isinstance(item, ins.Add) and item.checksum else ""
    given = _Given(
        item,
        tuple(state.expand(text, source) for text in item.sources),
        state.expand(item.dest, source),
        state.expand(item.chown, source) if item.chown else "",
        state.expand(item.chmod, source) if item.chmod else "",
        checksum,
        tuple(state.expand(pattern, source) for pattern in item.exclude),
    )
    if not given.dest:
        raise InputError(f"{item.keyword} has an empty destination", source=source, hint="is a variable not set?")
    if any(not text for text in given.sources):
        raise InputError(f"{item.keyword} has an empty source", source=source, hint="is a variable not set?")
    dest = state.absolute(given.dest)
    if len(given.sources) + len(item.inline) > 1 and not dest.endswith("/") and dest != "/":
        raise InputError(
            f"{item.keyword} of several sources needs a directory as destination",
            source=source,
            hint=f"write {given.dest}/",
        )
    if checksum and len(given.sources) != 1:
        hint = "write an ADD of its own for each source"
        raise InputError("--checksum is for a single source", source=source, hint=hint)
    return given


class _Actions:
    """Chained file actions: each works on the result of the one before."""

    def __init__(self, base: Node | None) -> None:
        self.nodes = [base] if base is not None else []
        self._actions: list[pb.FileAction] = []
        self._has_base = base is not None

    @property
    def has_base(self) -> bool:
        """Whether there are files below, so that names of users can be looked up."""
        return self._has_base

    def copy(self, origin: Node, copy: pb.FileActionCopy) -> None:
        """Copy from a node."""
        if origin not in self.nodes:
            self.nodes.append(origin)
        number = self.nodes.index(origin)
        self._actions.append(pb.FileAction(secondaryInput=number, output=-1, copy=copy))

    def finish(self) -> pb.Op:
        """Return the op; the last action's result is its output."""
        for number, action in enumerate(self._actions):
            action.input = len(self.nodes) + number - 1 if number else 0 if self._has_base else -1
        self._actions[-1].output = 0
        return pb.Op(inputs=inputs_of(self.nodes), file=pb.FileOp(actions=self._actions))


def _add_source(actions: _Actions, text: str, given: _Given, state: StageState, title: str) -> None:
    """Copy one source: from git, from a URL, or from the context, a stage or an image."""
    item, conversion = given.item, state.conversion
    repository = None if isinstance(item, ins.Copy) and item.from_ else parse_git_url(text)
    if repository is not None and repository.like_a_path:
        repository = None  # `github.com/o/r` is a path here; contexts alone take it for a repository
    if repository is not None or _is_url(text):
        if isinstance(item, ins.Copy):
            raise InputError(
                f"COPY takes no URL: {text}", source=given.source, hint="ADD downloads, COPY takes files that are here"
            )
        if repository is not None:
            origin, copy = _clone(repository, item, given, state, title)
        else:
            origin, copy = _download(text, item, given, state, title)
        actions.copy(origin, _dressed(copy, given, actions))
        return
    if given.checksum or (isinstance(item, ins.Add) and item.keep_git_dir is not None):
        flag, what = ("--checksum", "a URL") if given.checksum else ("--keep-git-dir", "a git repository")
        raise InputError(
            f"{flag} is for {what}, but {text!r} comes from the build context",
            source=given.source,
            hint=f"remove the flag, or name {what}",
        )
    from_ = item.from_ if isinstance(item, ins.Copy) else ""
    if from_:
        origin = conversion.source_of(from_, state, given.source) or conversion.empty()
    else:
        origin = conversion.context(text)
    actions.copy(origin, _dressed(_local_copy(text, given, state), given, actions))


def _clone(url: GitUrl, item: ins.Add, given: _Given, state: StageState, title: str) -> tuple[Node, pb.FileActionCopy]:
    """Return the vertex of a repository's files, and what copies them all."""
    options = GitOptions(keep_git_dir=item.keep_git_dir, checksum=given.checksum)
    identifier, attrs = to_source(url, options)
    op = pb.Op(source=pb.SourceOp(identifier=identifier, attrs=attrs))
    node = state.conversion.graph.add(op, title, given.source, ignore_cache=state.ignore_cache)
    dest = state.absolute(given.dest)
    return node, pb.FileActionCopy(src="/", dest=dest, createDestPath=True, dirCopyContents=True, timestamp=-1)


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _download(url: str, item: ins.Add, given: _Given, state: StageState, title: str) -> tuple[Node, pb.FileActionCopy]:
    """Return the vertex of a download, and what copies its one file."""
    if item.keep_git_dir is not None:
        hint = "remove the flag; the URL of a repository ends in .git"
        raise InputError("--keep-git-dir is for git repositories", source=given.source, hint=hint)
    name = posixpath.basename(urlsplit(url).path.rstrip("/")) or "__unnamed__"
    op = pb.Op(source=pb.SourceOp(identifier=url, attrs={"http.filename": name}))
    if given.checksum:
        op.source.attrs["http.checksum"] = str(_digest(given))
    node = state.conversion.graph.add(op, title, given.source, ignore_cache=state.ignore_cache)
    copy = pb.FileActionCopy(
        src=f"/{name}",
        dest=state.absolute(given.dest),
        attemptUnpackDockerCompatibility=bool(item.unpack),
        createDestPath=True,
        timestamp=-1,
    )
    return node, copy


def _digest(given: _Given) -> Digest:
    try:
        return Digest(given.checksum)
    except InputError as error:
        error.source, error.hint = given.source, error.hint or "write --checksum=sha256:HEX"
        raise


def _local_copy(text: str, given: _Given, state: StageState) -> pb.FileActionCopy:
    """Return what copies files that are here, as COPY does it."""
    item = given.item
    path, copy = text, pb.FileActionCopy(dest=state.absolute(given.dest), timestamp=-1)
    if given.parents:
        path, pivot, pattern = text.partition("/./")
        if not pivot:
            path, pattern = "/", text
        pattern = posixpath.normpath("/" + pattern).lstrip("/")
        copy.include_patterns.append(pattern)
        if not any(letter in path + pattern for letter in _WILDCARDS):
            copy.required_paths.append(posixpath.join("/", path.lstrip("/"), pattern))
    copy.src = "/" + posixpath.normpath("/" + path).lstrip("/")
    if path.endswith("/") and copy.src != "/":
        copy.src += "/"
    unpack = item.unpack if isinstance(item, ins.Add) else False
    copy.attemptUnpackDockerCompatibility = isinstance(item, ins.Add) if unpack is None else unpack
    copy.followSymlink = copy.dirCopyContents = copy.createDestPath = True
    copy.allowWildcard = copy.allowEmptyWildcard = True
    return copy


def _add_inline(actions: _Actions, document: ins.InlineFile, given: _Given, state: StageState) -> None:
    """Copy a here-document: a file of its own, so that it lands as any other source does."""
    text = document.data
    if document.expand:
        text = state.conversion.words.document(text, state.variables(), given.source).text
    data = text.encode("utf-8", "surrogateescape")
    mkfile = pb.FileActionMkFile(path=f"/{document.name}", mode=0o644, data=data, timestamp=-1)
    op = pb.Op(file=pb.FileOp(actions=[pb.FileAction(input=-1, secondaryInput=-1, output=0, mkfile=mkfile)]))
    origin = state.conversion.graph.add(op, "[internal] preparing inline document", given.source)
    dest = state.absolute(given.dest)
    copy = pb.FileActionCopy(src=f"/{document.name}", dest=dest, createDestPath=True, timestamp=-1)
    actions.copy(origin, _dressed(copy, given, actions))


def _dressed(copy: pb.FileActionCopy, given: _Given, actions: _Actions) -> pb.FileActionCopy:
    """Give a copy the owner, mode and exceptions that the flags ask for."""
    copy.mode, copy.modeStr = _mode(given.chmod, given.source) if given.chmod else (-1, "")
    if given.chown:
        copy.owner.CopyFrom(owner_of(given.chown, has_base=actions.has_base))
    copy.exclude_patterns.extend(given.exclude)
    return copy


def _mode(text: str, source: SourceRange) -> tuple[int, str]:
    if text and all(digit in "01234567" for digit in text):
        if int(text, 8) > 0o7777:
            raise InputError(f"--chmod={text} is larger than 7777", source=source, hint="for example --chmod=0755")
        return int(text, 8), ""
    if text[:1].isdigit():
        raise InputError(f"--chmod={text} is not octal", source=source, hint="for example 755, or u=rwX,go=rX")
    try:
        parse_mode(text)
    except InputError as error:
        error.source, error.hint = source, error.hint or "for example --chmod=0755 or --chmod=u=rwX,go=rX"
        raise
    return -1, text


def owner_of(text: str, *, has_base: bool) -> pb.ChownOpt:
    """Return what `user[:group]` asks for: numbers as they are, names to be looked up in the op's first input."""
    user, colon, group = text.partition(":")
    owner = pb.ChownOpt(user=_one(user or "0", has_base))
    if colon and group:
        owner.group.CopyFrom(_one(group, has_base))
    return owner


def _one(name: str, has_base: bool) -> pb.UserOpt:
    if name.isascii() and name.isdigit():
        return pb.UserOpt(byID=int(name))
    return pb.UserOpt(byName=pb.NamedUserOpt(name=name, input=0 if has_base else -1))


def _named(given: _Given) -> str:
    """Return what displays show: as in the history, but with the flags as they were written, `--from` above all."""
    words = given.item.original.split()[1:]
    flags = list(itertools.takewhile(lambda word: word.startswith("--"), words))
    names = [*given.sources, *(f"<<{document.name}" for document in given.item.inline)]
    return " ".join([given.item.keyword, *flags, *names, given.dest])


def _history(given: _Given) -> str:
    flags = ["--parents"] if given.parents else []
    flags += [f"--chown={given.chown}"] if given.chown else []
    flags += [f"--chmod={given.chmod}"] if given.chmod else []
    names = [*given.sources, *(f"<<{document.name}" for document in given.item.inline)]
    return " ".join([given.item.keyword, *flags, *names, given.dest])
