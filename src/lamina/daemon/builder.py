"""Carries out one `Solve` request: the client's session, a job, its frontend, and what the result is told as."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lamina.api.pb import control_pb2
from lamina.attest.predicate import Invocation
from lamina.attest.request import parse_request, requests_of
from lamina.bridge.asking import asking
from lamina.bridge.bridge import Allowed, Bridge, Workers, wanted
from lamina.bridge.options import cache_text, options_of
from lamina.bridge.values import Result
from lamina.cancel import Cancel
from lamina.daemon.builds import Build, Builds
from lamina.daemon.clipping import Clipping, LogLimits
from lamina.daemon.exports import exporters_of, goes_to_client, plan_of, response_of
from lamina.daemon.judging import judging, policies_of
from lamina.daemon.outlets import ClientOutlets
from lamina.daemon.sessions import Sessions
from lamina.daemon.tally import Ended, Tally
from lamina.daemon.traces import Traces
from lamina.engine import history
from lamina.engine.job import Job
from lamina.engine.options import BuildOptions, BuildResult, Environment
from lamina.engine.outputs import Plan
from lamina.engine.recording import argument
from lamina.engine.upkeep.collect import collect_garbage
from lamina.errors import InputError, NotYetError
from lamina.policy.values import Policy
from lamina.progress import RECEIVED, Sink, StatusEvent, done_for
from lamina.remote.exporting import finalize_export, find_exporters
from lamina.remote.session import RemoteSession
from lamina.session import BlobStore, Credentials, Session
from lamina.solver.runs import Runs, Shared
from lamina.solver.slots import Slots
from lamina.tracing.context import TraceContext

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.frontend.interface import Frontend

Side = Callable[[Session], Session]
_TELL_EVERY_S = 0.1
_ENTITLEMENTS = ("network.host", "security.insecure", "device")


OnEnd = Callable[[Ended], None]
"""Is told of each build that ends."""


class NoSession:
    """The user's side of a build whose client offers nothing."""

    def context_dir(self, name: str, attrs: Mapping[str, str] | None = None) -> Path | None:
        """Return nothing."""
        return None

    def secret(self, secret_id: str) -> bytes | None:
        """Return nothing."""
        return None

    def ssh_socket(self, ssh_id: str) -> Path | None:
        """Return nothing."""
        return None

    def credentials(self, host: str) -> Credentials | None:
        """Return nothing."""
        return None

    def upload(self, host: str, path: str) -> Iterator[bytes] | None:
        """Return nothing."""
        return None

    def store(self, name: str) -> BlobStore | None:
        """Return nothing."""
        return None


@dataclass(frozen=True, slots=True)
class Settings:
    """What the daemon's owner decided.

    Attributes:
        entitlements: what clients may ask for beyond a sandbox.
        jobs: steps at once in one build, 0 for the default.
        max_parallelism: steps at once of all builds together, 0 for no limit.
        frontends: which may be used.
        gateway_repositories: whose images may be frontends in containers, empty for all.
        labels: of the worker.
        cdi_dirs: where devices are described, () for the usual places.
        own_frontends: by name, run in this process.
        log_limits: how much of each step's output clients are shown.
        source_policy: which sources builds may use, None for all.
    """

    entitlements: frozenset[str] = frozenset()
    jobs: int = 0
    max_parallelism: int = 0
    frontends: frozenset[str] = frozenset({"dockerfile.v0", "gateway.v0"})
    gateway_repositories: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    cdi_dirs: tuple[str, ...] = ()
    own_frontends: Mapping[str, Frontend] = field(default_factory=dict)
    log_limits: LogLimits = field(default_factory=LogLimits)
    source_policy: Policy | None = None


class Builder:
    """Builds for clients; many at once."""

    def __init__(
        self,
        environment: Environment,
        settings: Settings,
        builds: Builds,
        sessions: Sessions,
        workers: Workers,
        traces: Traces,
    ) -> None:
        self._workers, self._traces = workers, traces
        self._shared = Shared(Slots(settings.max_parallelism), Runs())
        self.on_end: OnEnd = lambda _ended: None
        self._environment, self._settings = environment, settings
        self._builds, self._sessions = builds, sessions

    def solve(
        self,
        request: control_pb2.SolveRequest,
        cancel: Cancel,
        *,
        side: Side = lambda session: session,
        parent: TraceContext | None = None,
    ) -> control_pb2.SolveResponse:
        """Build, and return what the client is told of the result.

        Args:
            cancel: the client went away, or wants no more.
            side: what the build sees of the session; may add what came in another way.
            parent: the client's span that asks for it.

        Raises:
            Error: what went wrong, first of all.
        """
        with self._builds.begin(request.Ref, internal=request.Internal) as build, cancel.closing(build.cancel.cancel):
            exporters = exporters_of(request)
            plan = plan_of(exporters)
            options = self._options(request, exporters)
            tally = Tally()
            carry_out = partial(self._build, request, build, plan, options, side, parent, tally)
            result = self._counted(request.Internal, tally, carry_out)
        return control_pb2.SolveResponse(ExporterResponse=response_of(result.metadata))

    def _counted(self, internal: bool, tally: Tally, carry_out: Callable[[], BuildResult]) -> BuildResult:
        """Build, and tell whoever counts how it went, unless the client did that for itself only."""
        started = time.monotonic()
        failure: BaseException | None = None
        try:
            return carry_out()
        except BaseException as error:
            failure = error
            raise
        finally:
            if not internal:
                self.on_end(Ended(time.monotonic() - started, failure, tally.figures, tally.moved))

    def _build(
        self,
        request: control_pb2.SolveRequest,
        build: Build,
        plan: Plan,
        options: BuildOptions,
        side: Side,
        parent: TraceContext | None,
        tally: Tally,
    ) -> BuildResult:
        sink = tally.through(Clipping(self._settings.log_limits).through(build.sink))
        with self._session(request, build, sink) as session:
            job = Job(
                options,
                plan,
                side(session),
                self._environment,
                sink,
                build.cancel,
                outlets=_outlets(plan, session),
                client=_described(request),
                shared=self._shared,
                parent=parent,
                policies=policies_of(request, self._settings.source_policy),
            )
            with self._forgetting(job) if request.Internal else nullcontext(), self._traces.of(job):
                self._builds.tell(request.Ref)
                if request.SourcePolicySession:
                    job.gate.ask = asking(job, judging(self._sessions, request.SourcePolicySession, build.cancel))
                try:
                    found = self._frontend(request, build, job)
                    if request.EnableSessionExporter and isinstance(session, RemoteSession):
                        more = find_exporters(session, found.metadata, [ref.graph.target[0] for ref in found.each()])
                        job.plan = plan_of([*exporters_of(request), *more])
                        job.outlets = _outlets(job.plan, session)
                    asked = Invocation(request.Frontend, dict(request.FrontendAttrs))
                    result = job.deliver(wanted(found, asked))
                finally:
                    tally.figures = job.recording.figures
                job.recording.succeeded(result)
                if request.EnableSessionExporter and isinstance(session, RemoteSession):
                    finalize_export(session, response_of(result.metadata))
                collect_garbage(job.place)
                return result

    @contextmanager
    def _forgetting(self, job: Job) -> Iterator[None]:
        """Leave no record of a job."""
        try:
            yield
        finally:
            if hasattr(job, "recording"):
                history.remove(self._environment.root, [job.recording.id])

    def _frontend(self, request: control_pb2.SolveRequest, build: Build, job: Job) -> Result:
        """Return what is to be delivered: of a definition, a frontend here, or the client itself."""
        allowed = Allowed(self._settings.frontends, self._settings.gateway_repositories, self._settings.own_frontends)
        bridge = Bridge(job, request.FrontendAttrs, request.FrontendInputs, self._workers, allowed)
        has_definition = request.HasField("Definition") and len(getattr(request.Definition, "def")) > 0
        if has_definition or request.Frontend:
            with job.trace.phase(f"frontend {request.Frontend}" if request.Frontend else "definition"):
                return bridge.solve(
                    definition=request.Definition if has_definition else None,
                    frontend=request.Frontend,
                    opts=dict(request.FrontendAttrs),
                    inputs=dict(request.FrontendInputs),
                )
        build.offer(bridge)
        try:
            with job.trace.phase("frontend of the client"):
                return bridge.wait(build.cancel)
        finally:
            build.offer(None)

    @contextmanager
    def _session(self, request: control_pb2.SolveRequest, build: Build, sink: Sink) -> Iterator[Session]:
        if not request.Session:
            yield NoSession()
            return
        connected = self._sessions.wait(request.Session, build.cancel)
        info = connected.info
        session = RemoteSession(
            connected.peer,
            info.methods,
            name=info.name,
            shared_key=info.shared_key,
            root=self._environment.root,
            cancel=build.cancel,
            on_bytes=_Transfers(sink).moved,
        )
        try:
            yield session
        finally:
            session.close()

    def _options(self, request: control_pb2.SolveRequest, exporters: Sequence[control_pb2.Exporter]) -> BuildOptions:
        """Return what the request says of the build as a whole.

        Raises:
            InputError: an entitlement that is not granted, or something that makes no sense.
        """
        if request.ProxyNetwork:
            raise NotYetError("the proxy network")
        for name in request.Entitlements:
            kind = name.partition("=")[0]
            if kind not in _ENTITLEMENTS:
                raise InputError(f"unknown entitlement {name!r}", hint=f"known: {', '.join(_ENTITLEMENTS)}")
            if kind not in self._settings.entitlements:
                hint = f"start the daemon with --allow-insecure-entitlement {kind}"
                raise InputError(f"the daemon does not grant {name}", hint=hint)
        options = BuildOptions(**options_of(request.FrontendAttrs), attests=requests_of(request.FrontendAttrs))
        parse_request(options.attests)  # whatever is wrong with it is said before anything runs
        cache = request.Cache
        imports = [cache_text(one.Type, one.Attrs) for one in cache.Imports]
        imports += [f"type=registry,ref={ref}" for ref in cache.ImportRefsDeprecated]
        exports = [cache_text(one.Type, one.Attrs) for one in cache.Exports]
        if cache.ExportRefDeprecated:
            exports.append(cache_text("registry", {"ref": cache.ExportRefDeprecated, **cache.ExportAttrsDeprecated}))
        return replace(
            options,
            cache_from=list(dict.fromkeys([*imports, *options.cache_from])),
            cache_to=exports,
            allow=list(request.Entitlements),
            jobs=self._settings.jobs,
            cdi_dirs=list(self._settings.cdi_dirs),
            outputs=[cache_text(one.Type, {}) for one in exporters],
            tags=[name for one in exporters for name in one.Attrs.get("name", "").split(",") if name],
            origin=request.FrontendAttrs.get("vcs:source", "") or request.FrontendAttrs.get("context", ""),
        )


def _outlets(plan: Plan, session: Session) -> ClientOutlets | None:
    """Return the way of those outputs that go to the client.

    Raises:
        InputError: it offers no session.
    """
    if not any(map(goes_to_client, plan.specs)):
        return None
    if not isinstance(session, RemoteSession):
        raise InputError("an output goes to the client, which offers no session")
    return ClientOutlets(session, plan.specs)


class _Transfers:
    """Tells of directories that come from the client."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._told = sink, 0.0
        self._started: dict[str, float] = {}

    def moved(self, name: str, size: int, done: bool) -> None:
        """Tell of a transfer, not more often than people can see."""
        now = time.time()
        started = self._started.setdefault(name, now)
        if done or now - self._told > _TELL_EVERY_S:
            self._told = now
            completed = now if done else None
            told = f"transferring {name}:"
            self._sink(StatusEvent(done_for(), told, size, 0, started=started, completed=completed, way=RECEIVED))
        if done:
            del self._started[name]


def _described(request: control_pb2.SolveRequest) -> dict[str, Any]:
    """Return what a build's record tells of the request; nothing that looks like a secret."""
    attrs = {}
    for name, value in request.FrontendAttrs.items():
        attrs[name] = argument(name.rpartition(":")[2], value)
    exporters = [
        {"type": one.Type, "attrs": {name: argument(name, value) for name, value in one.Attrs.items()}}
        for one in exporters_of(request)
    ]
    found = {"ref": request.Ref, "frontend": request.Frontend, "attrs": attrs, "exporters": exporters}
    return found | ({"internal": True} if request.Internal else {})
