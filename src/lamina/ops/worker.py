"""What ops use of the rooms below, gathered once per build."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lamina.cancel import Cancel
from lamina.errors import InputError, NotYetError
from lamina.executor.executor import Executor
from lamina.layer.compress import Compression
from lamina.session import Session
from lamina.snapshot.layers import Layers
from lamina.snapshot.rows import LayerRef
from lamina.source.context import ContextView
from lamina.source.http import HttpSource
from lamina.source.image import ImageSource
from lamina.state.db import State
from lamina.state.locks import Locks

if TYPE_CHECKING:
    from lamina.executor.cdi_registry import CdiRegistry
    from lamina.llb.definition import Graph
    from lamina.source.git import GitSource


def _no_version(_secret_id: str) -> str:
    """Say that no secret counts."""
    return ""


def _no_nesting(_graph: Graph, _depth: int, _cancel: Cancel) -> LayerRef:
    """Refuse: there is no solver."""
    raise NotYetError("nested builds here")


@dataclass(frozen=True, slots=True)
class HostTrust:
    """What `--ca host` gives to steps.

    Attributes:
        bundle: PEM file of the certificates this host trusts.
        java_store: the host's Java trust store, "" when it has none.
    """

    bundle: str
    java_store: str = ""


@dataclass(frozen=True, slots=True)
class LocalRef:
    """A live directory as a solver result."""

    view: ContextView


@dataclass(slots=True)
class Worker:
    """One build's access to everything below.

    Attributes:
        executor: makes the executor when the first step needs it.
        git: makes this build's way to git repositories when the first git source needs it.
        cancel: stops the whole build; what runs has a narrower one in its context.
        context: opens the live directory behind a `local://` source with its filter rules.
        caches: directory of the RUN cache mounts.
        compression: for layers packed straight from their recipe.
        needs_tree: digests of vertices whose result something executes on or reads files from.
        trust: set when steps shall trust what the host trusts.
        shm_size: default size of /dev/shm in bytes, 0 for docker's 64 MiB.
        now_ns: the time that the build stamps on what it makes itself.
        secret_version: what stands for a secret (by id) in keys of steps that get it, "" when it does not count.
        mount_used: told of each cache mount (by its directory's name) that a step has used.
        fill_mount: fills a new cache mount (by id, in a directory) from a cache elsewhere; False when none has it.
        allow: entitlements of steps (`security.insecure`, `network.host`, `device`, `device=NAME`).
        policy_mark: counts in keys of nested builds, whose sources policies judge only when they run.
        nested: solves a graph inside a step of this one, at a depth; returns what its target yields.
        devices: the CDI devices of this machine, read when the first step asks for one.
    """

    root: Path
    state: State
    locks: Locks
    layers: Layers
    images: ImageSource
    http: HttpSource
    session: Session
    executor: Callable[[], Executor]
    git: Callable[[], GitSource]
    context: Callable[[str, Mapping[str, str]], ContextView]
    devices: Callable[[], CdiRegistry]
    scratch: Path
    cancel: Cancel = field(default_factory=Cancel)
    compression: Compression = field(default_factory=lambda: Compression("gzip", None))
    needs_tree: frozenset[str] = frozenset()
    trust: HostTrust | None = None
    shm_size: int = 0
    now_ns: int = 0
    userxattr: bool = False
    allow: frozenset[str] = frozenset()
    fill_mount: Callable[[str, Path], bool] | None = None
    secret_version: Callable[[str], str] = _no_version
    mount_used: Callable[[str], None] = lambda _name: None
    nested: Callable[[Graph, int, Cancel], LayerRef] = _no_nesting
    policy_mark: str = ""
    _materialized: dict[int, LayerRef] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def forget_contexts(self) -> None:
        """Forget the copies of live directories: they are to be read again."""
        with self._guard:
            self._materialized.clear()

    def as_layers(self, result: LayerRef | LocalRef, cancel: Cancel) -> LayerRef:
        """Return a result as a chain; a live directory is copied into a tree of its own (once per build)."""
        if isinstance(result, LayerRef):
            return result
        with self._guard:
            known = self._materialized.get(id(result.view))
            if known is None:
                from lamina.layer.recipe import CopyOptions, Plan
                from lamina.layer.union import Union

                plan = Plan(Union([]), now_ns=self.now_ns)
                plan.copy(result.view, "/", "/", CopyOptions(dir_copy_contents=True, create_dest_path=True))
                known = self.layers.add_tree(LayerRef(None), plan.items(), "context for a bind mount", cancel)
                self._materialized[id(result.view)] = known
        return known


def not_offered(kind: str, name: str, option: str) -> InputError:
    """Return the error for a secret or agent that the build asks for and nobody gave."""
    return InputError(f"{kind} {name!r} was not given to this build", hint=f"add {option}")
