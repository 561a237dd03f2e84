"""One build under way in an open place: graphs are solved in it, one after the other; in the end results go out.

`engine.build` converts a Dockerfile and delivers once; a bridge (rank 7) lets a frontend solve as often as it likes
before it says what the result is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from lamina.cancel import Cancel
from lamina.engine.caches import Caches, open_caches, without_gone_layers
from lamina.engine.gate import open_gate
from lamina.engine.options import BuildOptions, BuildResult, Environment
from lamina.engine.outputs import Built, Exporting, Outlets, Plan
from lamina.engine.place import Place
from lamina.engine.recording import Recording
from lamina.engine.registries import credentials_of
from lamina.engine.resolve import Resolver
from lamina.engine.solve import Solver, SolveSettings, entitlements
from lamina.engine.traced import Traced
from lamina.engine.transfers import Transfers
from lamina.llb.definition import Graph
from lamina.oci.platform import Platform, host_platform
from lamina.progress import Sink
from lamina.session import Session, Storing
from lamina.snapshot.rows import LayerRef
from lamina.solver.runs import Shared
from lamina.tracing.collector import BuildTrace
from lamina.tracing.context import TraceContext

if TYPE_CHECKING:
    from lamina.attest.capture import Material
    from lamina.attest.predicate import Invocation
    from lamina.engine.attesting import Attesting, Given
    from lamina.policy.values import Policy


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be delivered for one platform.

    Attributes:
        graph: None for no files at all.
        config: the image config without rootfs.
        extras: other file systems that SBOMs shall speak of, by name.
        given: attestations that the frontend returned.
        invocation: what the frontend was asked that made the graph, None for what the job says.
        root: what the client asked, where that is something else.
    """

    platform: Platform
    graph: Graph | None
    config: Mapping[str, Any]
    extras: Mapping[str, Graph] = field(default_factory=dict)
    given: tuple[Given, ...] = ()
    invocation: Invocation | None = None
    root: Invocation | None = None


Look = Callable[[Sequence[Built]], None]
"""Looks at what was built before it is exported."""


class Job:
    """One build. A context manager: leaving it ends the record and gives up what the build held.

    Args:
        options: may be replaced (`job.options = ...`) until the solver is first used.
        plan: the outputs.
        outlets: where outputs go that do not go to this machine; it and the plan may be replaced until `deliver`.
        client: what the client of a daemon said of the build, for the record.
        shared: with other builds in this process.
        parent: the span that asked for the build.
        policies: which sources may be used, beside those of the options.

    Raises:
        InputError: a policy of the options is none.

    Attributes:
        gate: judges every source before it is looked up.
        is_served: the build is for a client of a daemon.
        trace: of this build, gathered from its events.
        place, recording, resolve: open as long as the job is.
        sink: takes events into the record and hands them on.
        started: when, in seconds.
        invocation: what was asked, for provenance.
        materials: what was read beside the graphs, for provenance.
    """

    def __init__(
        self,
        options: BuildOptions,
        plan: Plan,
        session: Session,
        environment: Environment,
        sink: Sink,
        cancel: Cancel,
        *,
        platform: Platform | None = None,
        outlets: Outlets | None = None,
        stdout: BinaryIO | None = None,
        client: Mapping[str, Any] | None = None,
        shared: Shared | None = None,
        parent: TraceContext | None = None,
        policies: Sequence[Policy] = (),
    ) -> None:
        self.gate = open_gate(options, policies)
        self._client, self._shared = client, shared
        self.options, self.plan, self.session, self.environment = options, plan, session, environment
        tracer = environment.tracer
        parent = parent or (tracer.settings.parent if tracer is not None else None)
        self.is_served = client is not None
        self.trace = BuildTrace(parent, is_served=self.is_served)
        self._outer, self.cancel = self.trace.through(sink), cancel
        self._platform = platform or host_platform()
        self.outlets, self._stdout = outlets, stdout
        self.started = time.time()
        self.invocation: Invocation | None = None
        self.materials: list[Material] = []
        self._stack = ExitStack()
        self._solving = threading.Lock()

    def __enter__(self) -> Job:
        transfers = Transfers(self._outer)
        with ExitStack() as stack:
            self.place = stack.enter_context(
                Place(
                    self.environment,
                    self.cancel,
                    credentials=credentials_of(self.session),
                    on_bytes=transfers.moved,
                    on_sent=transfers.sent,
                    platform=self._platform,
                    pull=self.options.pull,
                )
            )
            if isinstance(self.session, Storing):
                self.place.stores = self.place.images.stores = self.session.store
            self.recording = stack.enter_context(Recording(self.place, self.options, self._outer, self._client))
            stack.enter_context(Traced(self))
            self.sink = self.recording.sink
            self.resolve = Resolver(self.place, self.cancel, self.sink, self.gate)
            self.place.room.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def describe(self, options: BuildOptions) -> None:
        """Say what is built, once a frontend has found out; has no effect on a solver that was used."""
        self.options = options
        self.recording.describe(options)

    @cached_property
    def caches(self) -> Caches | None:
        """The caches elsewhere that the options name; opened when first needed."""
        caches = self._stack.enter_context(open_caches(self.place, self.options, self.sink))
        self.recording.elsewhere = caches.elsewhere if caches else None
        return caches

    @cached_property
    def solver(self) -> Solver:
        """What runs graphs; made when first needed."""
        caches = self.caches
        settings = self._settings(caches)
        return self._stack.enter_context(Solver(self.place, self.session, self.sink, settings, caches, self.recording))

    def solve(self, graphs: Sequence[Graph]) -> list[LayerRef]:
        """Return the file systems behind graphs' targets. One caller at a time gets to solve; any thread may ask.

        Raises:
            Error: the first failure.
        """
        with self._solving:
            graphs = [self.gate.admit(graph) for graph in graphs]
            self.recording.defined(graphs)
            return without_gone_layers(self.caches, self.place, lambda: self.solver.solve(graphs))

    def deliver(self, wanted: Sequence[Wanted], look: Look | None = None) -> BuildResult:
        """Solve what is wanted and carry it to the outputs.

        Raises:
            Error: the first failure; nothing half-written stays.
        """
        caches, solver = self.caches, self.solver
        wanted = [self._admitted(one) for one in wanted]
        attesting = self._attesting(wanted)

        def carry_out() -> BuildResult:
            beside = attesting.graphs if attesting is not None else []
            solved = iter(solver.solve([*(one.graph for one in wanted if one.graph is not None), *beside]))
            built = [
                Built(one.platform, next(solved) if one.graph is not None else LayerRef(None), one.config)
                for one in wanted
            ]
            if attesting is not None:
                attesting.attach(built, list(solved))
            if look is not None:
                look(built)
            if caches is not None:
                caches.put_inline(built, solver)
            exporting = Exporting(
                self.place, self.plan, built, solver.packer.finish, self.options, self._stdout, self.sink, self.outlets
            )
            return exporting.run()

        with self._solving:
            self.recording.defined([one.graph for one in wanted if one.graph is not None])
            result = without_gone_layers(caches, self.place, carry_out)
            if caches is not None:
                caches.export(solver)
                result = replace(result, metadata={**result.metadata, **caches.metadata})
        return replace(
            result, timings=solver.timings, build=self.recording.id, explanations=self.recording.explanations
        )

    def _admitted(self, wanted: Wanted) -> Wanted:
        graph = self.gate.admit(wanted.graph) if wanted.graph is not None else None
        extras = {name: self.gate.admit(one) for name, one in wanted.extras.items()}
        return replace(wanted, graph=graph, extras=extras)

    def _attesting(self, wanted: Sequence[Wanted]) -> Attesting | None:
        """Return what makes the attestations; None where there are none, as in most builds."""
        if not self.options.attests and not any(one.given for one in wanted):
            return None
        from lamina.engine.attesting import Attesting

        return Attesting(self, wanted)

    def _settings(self, caches: Caches | None) -> SolveSettings:
        options, plan = self.options, self.plan
        return SolveSettings(
            jobs=options.jobs,
            files_wanted=plan.files_wanted,
            pack=plan.layers_wanted,
            trust_host=options.ca == "host",
            shm_size=options.shm_size,
            compression=caches.compression(plan.compression) if caches else plan.compression,
            source_date_epoch=options.source_date_epoch,
            allow=entitlements(options),
            exact_modes=options.exact_modes,
            counted_secrets=tuple(options.counted_secrets),
            secret_key=options.secret_key,
            cdi_dirs=tuple(options.cdi_dirs),
            shared=self._shared,
            gate=self.gate,
        )
