"""COPY and ADD: one FileOp of chained actions, on the stage or (with `--link`) on nothing and merged."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from lamina.dockerfile import instructions as ins
from lamina.dockerfile.graph import Node, inputs_of
from lamina.errors import InputError, NotYetError, SourceRange
from lamina.llb.pb import ops_pb2 as pb

if TYPE_CHECKING:
    from lamina.dockerfile.convert_stage import StageState

_REMOTE = ("http://", "https://", "git://", "ssh://", "git@")


def convert_transfer(item: ins.Copy | ins.Add, state: StageState) -> None:
    """Carry out COPY or ADD."""
    source = item.source
    _refuse(item, state)
    sources = [state.expand(text, source) for text in item.sources]
    dest_text = state.expand(item.dest, source)
    if not dest_text:
        raise InputError(f"{item.keyword} has an empty destination", source=source)
    if any(not text for text in sources):
        raise InputError(f"{item.keyword} has an empty source", source=source, hint="is a variable not set?")
    dest = state.absolute(dest_text)
    if len(sources) + len(item.inline) > 1 and not dest.endswith("/") and dest != "/":
        raise InputError(
            f"{item.keyword} of several sources needs a directory as destination",
            source=source,
            hint=f"write {dest_text}/",
        )
    link = item.link
    base = state.node if state.node is not None and not link else None
    nodes = [base] if base is not None else []
    owner = _owner(state.expand(item.chown, source), bool(nodes)) if item.chown else None
    origin: Node | None = None
    if sources:
        from_ = item.from_ if isinstance(item, ins.Copy) else ""
        origin = state.conversion.source_of(from_, state, source) if from_ else state.conversion.context()
        if origin not in nodes:
            nodes.append(origin)
    builder = _Actions(len(nodes), 0 if base is not None else -1)
    for text in sources:
        builder.copy(nodes.index(origin) if origin is not None else -1, _copy(item, state, text, dest, owner))
    for document in item.inline:
        _add_inline(builder, document, item, state, dest, owner)
    op = pb.Op(inputs=inputs_of(nodes), file=pb.FileOp(actions=builder.finish()))
    shown = _history(item, sources, dest_text)
    if link and state.node is not None:
        title = state.title(shown)
        made = state.conversion.graph.add(op, title, source, ignore_cache=state.ignore_cache)
        parts = pb.MergeOp(inputs=[pb.MergeInput(input=0), pb.MergeInput(input=1)])
        merge = pb.Op(inputs=inputs_of([state.node, made]), merge=parts)
        state.add(merge, f"{title} (merge)", source)
    else:
        state.add(op, state.title(shown), source)
    state.history(f"{shown} # buildkit", layer=True)


class _Actions:
    """Chained file actions: each works on the result of the one before."""

    def __init__(self, inputs: int, first: int) -> None:
        self._inputs, self._first = inputs, first
        self._actions: list[pb.FileAction] = []

    def _input(self) -> int:
        return self._inputs + len(self._actions) - 1 if self._actions else self._first

    def copy(self, number: int, copy: pb.FileActionCopy) -> None:
        """Copy from an input of the op."""
        self._actions.append(pb.FileAction(input=self._input(), secondaryInput=number, output=-1, copy=copy))

    def mkdir(self, mkdir: pb.FileActionMkDir) -> None:
        """Make a directory."""
        self._actions.append(pb.FileAction(input=self._input(), secondaryInput=-1, output=-1, mkdir=mkdir))

    def mkfile(self, mkfile: pb.FileActionMkFile) -> None:
        """Write a file."""
        self._actions.append(pb.FileAction(input=self._input(), secondaryInput=-1, output=-1, mkfile=mkfile))

    def finish(self) -> list[pb.FileAction]:
        """Return the actions; the last one's result is the op's output."""
        self._actions[-1].output = 0
        return self._actions


def _refuse(item: ins.Copy | ins.Add, state: StageState) -> None:
    if isinstance(item, ins.Copy):
        if item.parents:
            raise NotYetError("COPY --parents", source=item.source)
        return
    remote = [text for text in item.sources if state.expand(text, item.source).startswith(_REMOTE)]
    if remote:
        raise NotYetError(f"ADD of a remote source ({remote[0]})", source=item.source)
    if item.checksum or item.keep_git_dir is not None:
        raise InputError("--checksum and --keep-git-dir are for remote sources", source=item.source)


def _copy(
    item: ins.Copy | ins.Add, state: StageState, text: str, dest: str, owner: pb.ChownOpt | None
) -> pb.FileActionCopy:
    path = posixpath.normpath("/" + text.lstrip("/"))
    path = "/" + path.lstrip("/")
    if text.endswith("/") and path != "/":
        path += "/"
    mode, mode_text = _mode(state.expand(item.chmod, item.source), item.source) if item.chmod else (-1, "")
    copy = pb.FileActionCopy(
        src=path,
        dest=dest,
        mode=mode,
        modeStr=mode_text,
        followSymlink=True,
        dirCopyContents=True,
        attemptUnpackDockerCompatibility=isinstance(item, ins.Add) and item.unpack is not False,
        createDestPath=True,
        allowWildcard=True,
        allowEmptyWildcard=True,
        timestamp=-1,
        exclude_patterns=[state.expand(pattern, item.source) for pattern in item.exclude],
    )
    if owner is not None:
        copy.owner.CopyFrom(owner)
    return copy


def _mode(text: str, source: SourceRange) -> tuple[int, str]:
    if text and all(digit in "01234567" for digit in text):
        if int(text, 8) > 0o7777:
            raise InputError(f"--chmod={text} is larger than 7777", source=source)
        return int(text, 8), ""
    return -1, text


def _owner(text: str, has_base: bool) -> pb.ChownOpt:
    user, colon, group = text.partition(":")
    owner = pb.ChownOpt(user=_one(user or "0", has_base))
    if colon and group:
        owner.group.CopyFrom(_one(group, has_base))
    return owner


def _one(name: str, has_base: bool) -> pb.UserOpt:
    if name.isascii() and name.isdigit():
        return pb.UserOpt(byID=int(name))
    return pb.UserOpt(byName=pb.NamedUserOpt(name=name, input=0 if has_base else -1))


def _add_inline(
    builder: _Actions,
    document: ins.InlineFile,
    item: ins.Copy | ins.Add,
    state: StageState,
    dest: str,
    owner: pb.ChownOpt | None,
) -> None:
    text = document.data
    if document.expand:
        text = state.conversion.words.document(text, state.variables(), item.source).text
    path = posixpath.join(dest, document.name) if dest.endswith("/") else dest
    mode, mode_text = _mode(state.expand(item.chmod, item.source), item.source) if item.chmod else (0o644, "")
    if mode_text:
        raise NotYetError("a symbolic --chmod on a here-document", source=item.source)
    parent = posixpath.dirname(path)
    if parent != "/":
        made = pb.FileActionMkDir(path=parent, mode=0o755, makeParents=True, timestamp=-1)
        if owner is not None:
            made.owner.CopyFrom(owner)
        builder.mkdir(made)
    made_file = pb.FileActionMkFile(path=path, mode=mode, data=text.encode("utf-8", "surrogateescape"), timestamp=-1)
    if owner is not None:
        made_file.owner.CopyFrom(owner)
    builder.mkfile(made_file)


def _history(item: ins.Copy | ins.Add, sources: list[str], dest: str) -> str:
    flags = []
    if isinstance(item, ins.Copy) and item.from_:
        flags.append(f"--from={item.from_}")
    if item.chown:
        flags.append(f"--chown={item.chown}")
    if item.chmod:
        flags.append(f"--chmod={item.chmod}")
    names = [*sources, *(f"<<{document.name}" for document in item.inline)]
    return " ".join([item.keyword, *flags, *names, dest])
