"""`git://`: the files of one commit, from a repository that git can reach."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from lamina.attest.capture import Material
from lamina.cancel import Cancel
from lamina.errors import Error, SourceRange
from lamina.layer.tree_remove import remove_tree
from lamina.llb.identity import op_digest
from lamina.ops.worker import Worker
from lamina.progress import LogEvent
from lamina.snapshot.rows import LayerRef
from lamina.solver.protocol import CacheMap, Result, RunContext
from lamina.source.git_spec import GitSpec, Pin, parse_source, pin_without_asking


class GitOp:
    """One git source: its ref is looked up for the key, its commit is fetched when it runs.

    Args:
        rest: the identifier after `git://`.
    """

    def __init__(self, rest: str, op: Any, worker: Worker, source: SourceRange | None) -> None:
        self._worker, self._source = worker, source
        try:
            self._spec = parse_source(rest, dict(op.source.attrs))
        except Error as error:
            raise self._located(error) from None
        self._pin: Pin | None = None

    @property
    def pin(self) -> Pin | None:
        """The commit, once it was looked up."""
        return self._pin

    def prepare(self, context: RunContext) -> None:
        """Look the ref up, beside the other sources of the build."""
        self._resolve(context.cancel)

    def cache_map(self) -> CacheMap:
        """The commit and what is taken of it; the remote's address and the ref only where `.git` would tell them."""
        spec, pin = self._spec, self._resolve()
        told = (spec.remote.address, pin.ref, pin.object) if spec.keeps_git_dir else ()
        commit = pin.commit or pin.object
        flags = ("submodules" if spec.submodules else "", f"mtime={spec.mtime}")
        parts = {
            "kind": "git",
            "remote": spec.remote.address,
            "ref": pin.ref or spec.ref,
            "commit": commit,
            "subdir": spec.subdir,
            "keep-git-dir": spec.keeps_git_dir,
            "submodules": spec.submodules,
            "mtime": spec.mtime,
        }
        return CacheMap(op_digest("git", commit, spec.subdir, *flags, *told), parts=parts)

    def content_key(self, number: int, result: Result, cancel: Cancel) -> str:
        """Never asked: there are no inputs."""
        raise AssertionError("a git source has no inputs")

    def run(self, inputs: Sequence[Result], context: RunContext) -> list[Result]:
        """Fetch the commit if it is not here, and make its files a layer."""
        worker, pin = self._worker, self._resolve()
        target = worker.layers.new_upper(LayerRef(None), context.cancel)
        try:
            worker.git().check_out(self._spec, pin, target, context.cancel, now_ns=worker.now_ns, log=_log(context))
            return [worker.layers.add_upper(LayerRef(None), target, _describe(self._spec, pin))]
        except BaseException as error:
            remove_tree(target)
            if isinstance(error, Error):
                self._located(error)
            raise

    def material(self) -> Material:
        """Return the repository without credentials, and the commit that was checked out."""
        pin = self._resolve()
        ref = f"#{self._spec.ref}" if self._spec.ref else ""
        return Material("git", f"{self._spec.remote.address}{ref}", pin.commit or pin.object)

    def _resolve(self, cancel: Cancel | None = None) -> Pin:
        if self._pin is None:
            try:
                pin = pin_without_asking(self._spec)
                self._pin = pin or self._worker.git().resolve(self._spec, cancel or self._worker.cancel)
            except Error as error:
                raise self._located(error) from None
        return self._pin

    def _located(self, error: Error) -> Error:
        if error.source is None:
            error.source = self._source
        return error


def _describe(spec: GitSpec, pin: Pin) -> str:
    subdir = f":{spec.subdir}" if spec.subdir else ""
    return f"git {spec.remote.address}#{pin.commit or pin.object}{subdir}"[:1000]


def _log(context: RunContext) -> Callable[[bytes], None]:
    """Return the way of git's words into the build's events."""
    return lambda line: context.sink(LogEvent(context.vertex, 2, line, time.time()))
