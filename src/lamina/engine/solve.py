"""Solves one definition: LLB in, a root file system (and how every vertex went) out."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lamina.attest.capture import Material
from lamina.cache.records import Records
from lamina.cancel import Cancel
from lamina.engine.contexts import Contexts
from lamina.engine.counted_secrets import CountedSecrets
from lamina.engine.gate import Gate
from lamina.engine.options import BuildOptions, Environment, Timing
from lamina.engine.packing import Packer
from lamina.engine.place import Place
from lamina.engine.registries import network_options
from lamina.errors import MachineError
from lamina.executor.executor import Executor
from lamina.executor.runtime import find_runtime
from lamina.layer.compress import Compression
from lamina.layer.errors import ContentChangedError
from lamina.llb.definition import Graph
from lamina.ops.load import load_vertices, trees_needed
from lamina.ops.worker import HostTrust, Worker
from lamina.progress import Event, Sink, VertexEvent
from lamina.session import Session, Uploading
from lamina.snapshot.rows import LayerRef
from lamina.solver.planner import Planned, Planner
from lamina.solver.protocol import Miss, Outcome, Resolved, Vertex
from lamina.solver.runner import OnResolved, Runner
from lamina.solver.runs import Shared
from lamina.source.context import ContextChangedError
from lamina.source.http import HttpSource

if TYPE_CHECKING:
    from lamina.engine.caches import Caches
    from lamina.executor.cdi_registry import CdiRegistry
    from lamina.source.git import GitSource

_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_JAVA_STORES = ("/etc/ssl/certs/java/cacerts", "/etc/pki/java/cacerts")


@dataclass(slots=True)
class SolveSettings:
    """What a solve needs beside its graph.

    Attributes:
        jobs: steps at once, 0 for the default.
        files_wanted: the result's files will be exported, not just its layers.
        pack: start packing finished layers of the result while later steps run.
        trust_host: steps trust what the host trusts.
        exact_modes: modes of context files count in keys as they are.
        counted_secrets: ids of the secrets whose fingerprints count in keys; `secret_key` is a file with the key for
            them, "" for the store's own.
        cdi_dirs: where devices are described, () for the usual places.
        shared: with other builds in this process.
        gate: judges the sources of nested builds; those of the graphs that are solved were judged before.
    """

    jobs: int = 0
    files_wanted: bool = False
    pack: bool = True
    trust_host: bool = False
    shm_size: int = 0
    compression: Compression | None = None
    source_date_epoch: int | None = None
    allow: frozenset[str] = frozenset()
    exact_modes: bool = False
    counted_secrets: tuple[str, ...] = ()
    secret_key: str = ""
    cdi_dirs: tuple[str, ...] = ()
    shared: Shared | None = None
    gate: Gate = field(default_factory=Gate)


class Watcher(Protocol):
    """Who wants to know how a solve goes."""

    def begins(self, vertices: Mapping[str, Vertex]) -> None:
        """A solve over these vertices, inputs first, is about to begin. Raises to keep it from beginning."""

    def missed(self, miss: Miss) -> str:
        """A step is about to run; return why, in a sentence, or raise to end the solve. Called in its thread."""

    def ends(self, outcomes: Sequence[Outcome]) -> None:
        """The solve is over, for better or worse."""


class Solver:
    """Runs graphs in one `Place`; the helper process and the packer live as long as it. A context manager."""

    def __init__(
        self,
        place: Place,
        session: Session,
        sink: Sink,
        settings: SolveSettings,
        caches: Caches | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self._watcher = watcher
        self._place, self._settings, self._caches = place, settings, caches
        self.definitions: dict[str, str] = {}
        self.results: list[LayerRef] = []
        self.graphs: dict[tuple[str, int], Graph] = {}
        self._settled: dict[str, Resolved] = {}
        self._vertices: dict[str, Vertex] = {}
        self._resolved: dict[str, Resolved] = {}
        self._timings: dict[str, Timing] = {}
        self._guard = threading.Lock()
        self._outer_sink = sink
        self._executor: Executor | None = None
        self._git: GitSource | None = None
        self._devices: CdiRegistry | None = None
        self._has_steps = False
        self.compression = settings.compression or Compression("gzip", None)
        upload = session.upload if isinstance(session, Uploading) else None
        counted = CountedSecrets(session, settings.counted_secrets, place.root, settings.secret_key)
        session = counted
        self.contexts = Contexts(session, place.state, exact_modes=settings.exact_modes)
        self.packer = Packer(place.layers, self.compression, place.cancel, caches.packed if caches else None)
        epoch = settings.source_date_epoch
        self.worker = Worker(
            root=place.root,
            state=place.state,
            locks=place.locks,
            layers=place.layers,
            images=place.images,
            http=HttpSource(place.state, place.layers, network_options(place.environment), session.secret, upload),
            session=session,
            executor=self._start_executor,
            git=self._open_git,
            cancel=place.cancel,
            context=self.contexts.open,
            devices=self._read_devices,
            scratch=place.lease.directory,
            compression=self.compression,
            trust=host_trust(place.environment) if settings.trust_host else None,
            shm_size=settings.shm_size,
            now_ns=epoch * 10**9 if epoch is not None else time.time_ns(),
            userxattr=place.environment.userns,
            allow=settings.allow,
            secret_version=counted.version,
            fill_mount=caches.fill_mount if caches else None,
            mount_used=place.room.mount_used,
            nested=self._solve_nested,
            policy_mark=settings.gate.mark,
        )

    def __enter__(self) -> Solver:
        return self

    def __exit__(self, *_error: object) -> None:
        self.packer.close()
        if self._executor is not None:
            self._executor.close()
        self.worker.http.close()
        self.contexts.close()

    def solve(self, graphs: Sequence[Graph]) -> list[LayerRef]:
        """Return the root file systems that the graphs' targets stand for. What is equal in them is done once.

        A context file that changes while it is read spoils the keys made of it: everything is keyed once more, with
        what was finished taken from the cache. If it changes again, the build fails and names the file.

        Raises:
            Error: the first failure of a vertex, with its lines of the Dockerfile.
        """
        try:
            return self._solve(graphs)
        except (ContentChangedError, ContextChangedError):
            self.contexts.reopen()
            self.worker.forget_contexts()
            return self._solve(graphs)

    def _solve_nested(self, graph: Graph, depth: int, cancel: Cancel) -> LayerRef:
        """Solve a graph that a step of this build found; its steps are told of, but not numbered in the record."""
        graph = self._settings.gate.admit(graph)
        vertices = self._load([graph], depth)
        on_resolved = partial(self._take, frozenset())
        resolved = self._runner(vertices, on_resolved, None, cancel).solve([graph.target[0]])
        return self.worker.as_layers(resolved[graph.target[0]].results[graph.target[1]], cancel)

    def _load(self, graphs: Sequence[Graph], depth: int = 0) -> dict[str, Vertex]:
        worker = self.worker
        also = self._settings.files_wanted
        with self._guard:
            worker.needs_tree = worker.needs_tree.union(
                *(trees_needed(graph, [graph.target[0]] if also else []) for graph in graphs)
            )
        vertices: dict[str, Vertex] = {}
        for graph in graphs:
            vertices |= load_vertices(graph, worker, depth)
        with self._guard:
            self._vertices |= vertices
        return vertices

    def _take(self, exported: Collection[str], vertex: Vertex, resolved: Resolved) -> None:
        """Note a vertex's results, and start to pack those that will be wanted."""
        self._resolved[vertex.digest] = resolved
        pack_all = self._caches is not None and self._caches.pack_all
        for result in resolved.results if pack_all else resolved.results[:1]:
            if (pack_all or vertex.digest in exported) and isinstance(result, LayerRef):
                self.packer.ahead(result)

    def _runner(
        self, vertices: Mapping[str, Vertex], on_resolved: OnResolved, watcher: Watcher | None, cancel: Cancel
    ) -> Runner:
        return Runner(
            vertices,
            self._caches.cache if self._caches else Records(self._place.state, self._place.locks),
            self._sink,
            cancel,
            jobs=self._settings.jobs or max(4, 2 * (os.cpu_count() or 1)),
            on_resolved=on_resolved,
            on_miss=watcher.missed if watcher is not None else None,
            settled=self._settled,
            shared=self._settings.shared,
        )

    def _solve(self, graphs: Sequence[Graph]) -> list[LayerRef]:
        self._has_steps = any(vertex.op.WhichOneof("op") == "exec" for graph in graphs for vertex in graph.vertices)
        vertices = self._load(graphs)
        targets = [graph.target for graph in graphs]
        exported: set[str] = set()
        for target, _ in targets if self._settings.pack else ():
            exported |= _export_path(vertices, target)

        self.graphs |= {graph.target: graph for graph in graphs}
        watcher = self._watcher
        runner = self._runner(vertices, partial(self._take, exported), watcher, self._place.cancel)
        wanted = list(dict.fromkeys(target for target, _ in targets))
        if watcher is None:
            resolved = runner.solve(wanted)
        else:
            watcher.begins(vertices)
            try:
                resolved = runner.solve(wanted)
            finally:
                watcher.ends(runner.outcomes())
        self.definitions.update(runner.definitions)
        results = [resolved[target].results[output] for target, output in targets]
        self.results = [self.worker.as_layers(result, self._place.cancel) for result in results]
        return self.results

    def materials(self) -> dict[str, Material]:
        """Return what every source vertex of the graphs solved so far stands for."""
        found = {}
        for digest, vertex in self._vertices.items():
            material = getattr(vertex.op, "material", None)
            if material is not None:
                found[digest] = material()
        return found

    def results_of(self, digest: str) -> dict[int, LayerRef]:
        """Return the file systems that a vertex yielded, by output; nothing where it was not looked at."""
        resolved = self._resolved.get(digest)
        results = enumerate(resolved.results) if resolved is not None else ()
        return {number: result for number, result in results if isinstance(result, LayerRef)}

    def plan(self, graphs: Sequence[Graph]) -> list[Planned]:
        """Return what `solve` would do with every vertex, inputs first, and do nothing.

        Raises:
            Error: a context or a server that cannot be looked at.
        """
        vertices: dict[str, Vertex] = {}
        for graph in graphs:
            vertices |= load_vertices(graph, self.worker)
        cache = self._caches.cache if self._caches else Records(self._place.state, self._place.locks)
        planner = Planner(vertices, cache, self._sink, self._place.cancel)
        return planner.plan([graph.target[0] for graph in graphs])

    @property
    def timings(self) -> tuple[Timing, ...]:
        """How every vertex went, in the order they completed."""
        with self._guard:
            return tuple(self._timings.values())

    def _sink(self, event: Event) -> None:
        if isinstance(event, VertexEvent) and event.completed is not None:
            seconds = event.completed - (event.started or event.completed)
            with self._guard:
                self._timings[event.digest] = Timing(event.name, seconds, event.cached)
        elif isinstance(event, VertexEvent) and self._has_steps:
            # something runs, so a step may soon: the helper starts beside it
            self._has_steps = False
            self._start_executor().start()
        self._outer_sink(event)

    def _start_executor(self) -> Executor:
        with self._guard:
            if self._executor is None:
                environment = self._place.environment
                runtime = find_runtime(environment.search_path, environment.runtime or None)
                self._executor = Executor(runtime, self._place.lease.directory)
            return self._executor

    def _read_devices(self) -> CdiRegistry:
        from lamina.executor.cdi_registry import DEFAULT_DIRS, CdiRegistry

        with self._guard:
            if self._devices is None:
                self._devices = CdiRegistry(self._settings.cdi_dirs or DEFAULT_DIRS)
        return self._devices

    def _open_git(self) -> GitSource:
        from lamina.source.git import GitMachine, GitSource

        with self._guard:
            if self._git is None:
                place, environment = self._place, self._place.environment
                machine = GitMachine(environment.search_path, environment.proxies, environment.ca_file)
                directory = place.root / "git"
                self._git = GitSource(directory, place.lease.directory, place.locks, self.worker.session, machine)
            return self._git


def _export_path(vertices: Mapping[str, Vertex], target: str) -> set[str]:
    """Return the vertices whose layers the target's chain consists of: first inputs all the way, all of a merge."""
    found: set[str] = set()
    pending = [target]
    while pending:
        digest = pending.pop()
        if digest in found:
            continue
        found.add(digest)
        inputs = vertices[digest].inputs
        below: Iterable[tuple[str, int]] = inputs[:1]
        kind = type(vertices[digest].op).__name__
        if kind == "MergeOp":
            below = inputs
        elif kind == "BuildOp":
            below = ()
        pending += [digest for digest, _ in below]
    return found


def entitlements(options: BuildOptions) -> frozenset[str]:
    """Return what steps may have beyond a sandbox; the host's network for the whole build allows it for each step."""
    return frozenset(options.allow) | ({"network.host"} if options.network == "host" else frozenset())


def host_trust(environment: Environment) -> HostTrust:
    """Return the certificates this host trusts.

    Raises:
        MachineError: no bundle was found.
    """
    bundles = [environment.ca_file] if environment.ca_file else list(_BUNDLES)
    bundle = next((path for path in bundles if Path(path).is_file()), None)
    if bundle is None:
        raise MachineError("--ca host: this machine has no certificate bundle", hint="apt-get install ca-certificates")
    store = next((path for path in _JAVA_STORES if Path(path).is_file()), "")
    return HostTrust(str(Path(bundle).resolve()), store)
