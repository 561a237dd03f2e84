"""FileOp: copy, make and remove files without mounting anything.

The actions are carried out on a recipe over the base chain's index; the recipe becomes a tree when something will
execute on it or read from it, and goes straight into a blob otherwise. Sources that files are copied from count
by the content copied; the base counts by identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lamina.cancel import Cancel
from lamina.errors import Error, InputError, SourceRange
from lamina.layer.recipe import CopyOptions, Plan, content_digest
from lamina.layer.recipe_options import parse_owner
from lamina.layer.recipe_unpack import unpacker
from lamina.layer.union import Union
from lamina.layer.view import View
from lamina.llb.identity import message_digest, op_digest
from lamina.ops.file_order import order_of
from lamina.ops.parts import file_parts
from lamina.ops.user import read_image_file
from lamina.ops.whole import whole_key, whole_rows
from lamina.ops.worker import LocalRef, Worker
from lamina.snapshot.rows import LayerRef
from lamina.solver.protocol import CacheMap, Dependency, Result, RunContext

if TYPE_CHECKING:
    from lamina.layer.recipe_listing import Row


class FileOp:
    """Runs `op.file`: actions on its inputs and on each other's results; those with an output number are results."""

    def __init__(self, op: Any, worker: Worker, digest: str, source: SourceRange | None) -> None:
        self._op = op
        self._actions = list(op.file.actions)
        self._worker = worker
        self._digest = digest
        self._source = source
        self._count = len(op.inputs)
        self._after = order_of(self._actions, self._count)

    def cache_map(self) -> CacheMap:
        """The actions; the base by identity, what is copied by content."""
        bare = type(self._op)()
        bare.CopyFrom(self._op)
        bare.ClearField("inputs")
        dependencies = tuple(Dependency("", by_content=self._is_only_copied(number)) for number in range(self._count))
        return CacheMap(message_digest("file", bare), dependencies, file_parts(self._op))

    def _is_only_copied(self, number: int) -> bool:
        """Tell whether nothing of an input matters but what is copied from it."""
        copied = False
        for action in self._actions:
            kind = str(action.WhichOneof("action"))
            if action.input == number or (kind != "rm" and number in _accounts_of(getattr(action, kind))):
                return False
            copied = copied or (kind == "copy" and action.secondaryInput == number)
        return copied

    def _describe(self) -> list[str]:
        found = []
        for action in self._actions:
            kind = action.WhichOneof("action")
            what = getattr(action, kind)
            found.append(f"copy {what.src} {what.dest}" if kind == "copy" else f"{kind} {getattr(what, 'path', '')}")
        return found

    def content_key(self, number: int, result: Result, cancel: Cancel) -> str:
        """Return the digest of everything that is copied from one input, or of all of it where it is more than that."""
        if not self._is_only_copied(number):
            return whole_key(self._worker, result, cancel)
        view = self._view(result, cancel)
        parts = []
        try:
            for action in self._actions:
                if action.WhichOneof("action") == "copy" and action.secondaryInput == number:
                    options = self._options(action.copy, owner=None)
                    parts.append(content_digest(view, action.copy.src, options))
        except Error as error:
            raise self._located(error) from None
        return op_digest("copied", *parts)

    def listing(self, number: int, result: Result, cancel: Cancel) -> Iterator[Row]:
        """Iterate over what `content_key` digests."""
        from lamina.layer.recipe_listing import content_rows

        if not self._is_only_copied(number):
            yield from whole_rows(self._worker, result, cancel)
            return
        view = self._view(result, cancel)
        for action in self._actions:
            if action.WhichOneof("action") == "copy" and action.secondaryInput == number:
                yield from content_rows(view, action.copy.src, self._options(action.copy, owner=None))

    def run(self, inputs: Sequence[Result], context: RunContext) -> list[Result]:
        """Carry the actions out on a recipe and make a layer of it."""
        cancel = context.cancel
        layers: dict[int, Result] = dict(enumerate(inputs))
        growing: dict[int, tuple[LayerRef, Plan]] = {}
        outputs: dict[int, Result] = {}
        try:
            for number, action in enumerate(self._actions):
                cancel.check()
                index = self._count + number
                if index in self._after.unused:
                    continue
                begun = action.input in growing
                below = None if begun else layers.get(action.input)
                base, plan = growing.pop(action.input) if begun else self._begin(below, cancel)
                self._act(plan, action, layers, cancel)
                if index in self._after.kept:
                    layers[index] = self._keep(base, plan, index, cancel)
                else:
                    growing[index] = (base, plan)
                if action.output >= 0:
                    outputs[action.output] = layers[index]
        except Error as error:
            raise self._located(error) from None
        return [outputs[number] for number in sorted(outputs)]

    def _begin(self, below: Result | None, cancel: Cancel) -> tuple[LayerRef, Plan]:
        worker = self._worker
        base = worker.as_layers(below, cancel) if below is not None else LayerRef(None)
        union = worker.layers.union(base, cancel) if base.layer is not None else Union([])
        return base, Plan(union, now_ns=worker.now_ns, unpack=unpacker(str(worker.scratch), cancel))

    def _keep(self, base: LayerRef, plan: Plan, index: int, cancel: Cancel) -> LayerRef:
        """Make a layer of what a plan holds: a tree where files will be read from it."""
        layers, description = self._worker.layers, "; ".join(self._describe())[:1000]
        if self._digest in self._worker.needs_tree or index in self._after.read:
            return layers.add_tree(base, plan.items(), description, cancel)
        return layers.add_blob(base, plan.items(), description, self._worker.compression, cancel)

    def _act(self, plan: Plan, action: Any, inputs: Mapping[int, Result], cancel: Cancel) -> None:
        kind = action.WhichOneof("action")
        what: Any = getattr(action, kind) if kind else None
        if kind == "copy":
            if action.secondaryInput < 0:
                raise InputError("copying from scratch: there is nothing to copy", source=self._source)
            view = self._view(inputs[action.secondaryInput], cancel)
            options = self._options(what, self._owner(what, inputs, cancel))
            plan.copy(view, what.src, what.dest, options)
        elif kind == "mkdir":
            owner = self._owner(what, inputs, cancel)
            mode, time_ns = what.mode & 0o7777, _time(what.timestamp)
            plan.mkdir(what.path, mode, make_parents=what.makeParents, owner=owner, timestamp_ns=time_ns)
        elif kind == "mkfile":
            owner, time_ns = self._owner(what, inputs, cancel), _time(what.timestamp)
            plan.mkfile(what.path, what.data, what.mode & 0o7777, owner=owner, timestamp_ns=time_ns)
        elif kind == "symlink":
            owner, time_ns = self._owner(what, inputs, cancel), _time(what.timestamp)
            plan.symlink(what.oldpath, what.newpath, owner=owner, timestamp_ns=time_ns)
        elif kind == "rm":
            plan.rm(what.path, allow_not_found=what.allowNotFound, wildcard=what.allowWildcard)
        else:
            raise InputError("a FileOp action that is not known", source=self._source)

    def _view(self, result: Result, cancel: Cancel) -> View:
        return result.view if isinstance(result, LocalRef) else self._worker.layers.view(result, cancel)

    def _options(self, copy: Any, owner: tuple[int, int] | None) -> CopyOptions:
        mode: int | str | None = copy.modeStr or (copy.mode if copy.mode != -1 else None)
        return CopyOptions(
            owner=owner,
            mode=mode,
            follow_symlink=copy.followSymlink,
            dir_copy_contents=copy.dirCopyContents,
            attempt_unpack=copy.attemptUnpackDockerCompatibility,
            create_dest_path=copy.createDestPath,
            allow_wildcard=copy.allowWildcard,
            allow_empty_wildcard=copy.allowEmptyWildcard,
            include=tuple(copy.include_patterns),
            exclude=tuple(copy.exclude_patterns),
            required=tuple(copy.required_paths),
            always_replace_existing_dest_paths=copy.alwaysReplaceExistingDestPaths,
            timestamp_ns=copy.timestamp if copy.timestamp != -1 else None,
        )

    def _owner(self, what: Any, inputs: Mapping[int, Result], cancel: Cancel) -> tuple[int, int] | None:
        """Return the numbers an action's owner stands for; names are looked up in the input that the op says."""
        if not what.HasField("owner"):
            return None
        user, group = what.owner.user, what.owner.group
        uid, gid = self._numbers(user, inputs, cancel)
        if what.owner.HasField("group"):
            gid = self._group(group, inputs, cancel)
        return uid, gid

    def _numbers(self, user: Any, inputs: Mapping[int, Result], cancel: Cancel) -> tuple[int, int]:
        if user.WhichOneof("user") != "byName":
            return user.byID, user.byID
        passwd, groups = self._accounts(user.byName.input, inputs, cancel)
        return parse_owner(user.byName.name, passwd, groups)

    def _group(self, group: Any, inputs: Mapping[int, Result], cancel: Cancel) -> int:
        if group.WhichOneof("user") != "byName":
            return int(group.byID)
        passwd, groups = self._accounts(group.byName.input, inputs, cancel)
        return parse_owner(f"0:{group.byName.name}", passwd, groups)[1]

    def _accounts(self, number: int, inputs: Mapping[int, Result], cancel: Cancel) -> tuple[bytes, bytes]:
        if number < 0:
            return b"", b""
        view = self._worker.layers.view(self._worker.as_layers(inputs[number], cancel), cancel)
        return read_image_file(view, "etc/passwd"), read_image_file(view, "etc/group")

    def _located(self, error: Error) -> Error:
        """Return the error with the instruction's lines; a path that the message names is not told twice."""
        if error.source is None:
            error.source = self._source
        if error.where in error.what:
            error.where = ""
        return error


def _accounts_of(what: Any) -> set[int]:
    """Return the inputs that an action looks names up in."""
    owner = what.owner
    return {who.byName.input for who in (owner.user, owner.group) if who.WhichOneof("user") == "byName"}


def _time(timestamp: int) -> int | None:
    """Return the time an action asks for, None for "now"."""
    return None if timestamp == -1 else timestamp
