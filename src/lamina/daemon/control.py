"""The gRPC service `moby.buildkit.v1.Control`, and the bridge of builds whose frontend is the client itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lamina import __version__
from lamina.api.pb import control_pb2, worker_pb2
from lamina.api.services import CONTENT, CONTROL, TRACE, Service
from lamina.bridge.bridge import Bridge
from lamina.bridge.service import bridge_service
from lamina.cancel import Cancel
from lamina.daemon import history
from lamina.daemon.builder import Builder, Settings
from lamina.daemon.builds import Builds
from lamina.daemon.content import Content
from lamina.daemon.disk import disk_usage, prune
from lamina.daemon.sessions import Sessions, info_of
from lamina.daemon.traces import Traces
from lamina.daemon.worker import worker_record
from lamina.engine.options import Environment
from lamina.engine.place import Place
from lamina.errors import InputError
from lamina.remote import synced
from lamina.remote.ssh import sweep_agents
from lamina.rpc.call import Handler, ServedCall
from lamina.rpc.connection import Serving
from lamina.rpc.health import health_service
from lamina.rpc.server import table
from lamina.tracing.context import context_of
from lamina.tunnel.peer import Peer
from lamina.tunnel.streams import MessageStream

_SOON_S = 10.0
_BUILD_ID = "buildkit-controlapi-buildid"


class Control:
    """The daemon's services. Closing it ends what is under way.

    Args:
        environment: the machine's side of all builds.
    """

    def __init__(self, environment: Environment, settings: Settings) -> None:
        self._environment, self._settings = environment, settings
        sweep_agents()
        synced.sweep(environment.root)
        with Place(environment, Cancel()):
            pass  # what a daemon that was killed left goes now, and not with the first build
        self.builds, self.sessions = Builds(), Sessions()
        self.traces = Traces(environment.root, environment.tracer)
        self.builder = Builder(environment, settings, self.builds, self.sessions, lambda: [self._worker()], self.traces)

    def serving(self) -> Serving:
        """Return what a server is to serve."""
        control: dict[str, Handler] = {
            "Solve": self._solve,
            "Status": self._status,
            "Session": self._session,
            "DiskUsage": lambda request, _: disk_usage(self._environment, request),
            "Prune": self._prune,
            "ListenBuildHistory": self._listen_history,
            "UpdateBuildHistory": self._update_history,
            "ListWorkers": self._list_workers,
            "Info": self._info,
        }
        return table(
            (CONTROL, control),
            (CONTENT, Content(self._environment.root).handlers()),
            bridge_service(self._bridge_of, lambda: [self._worker()]),
            self._trace_service(),
            health_service(),
        )

    def serving_traces(self) -> Serving:
        """Return what a server is to serve that takes spans only."""
        return table(self._trace_service())

    def _trace_service(self) -> tuple[Service, dict[str, Handler]]:
        return TRACE, {"Export": self.traces.export}

    def close(self, patience_s: float = 0.0) -> None:
        """Take no new builds, wait for those under way, cancel what is left, and end the sessions."""
        self.builds.close(patience_s)
        self.sessions.close()

    def _solve(self, request: control_pb2.SolveRequest, call: ServedCall) -> control_pb2.SolveResponse:
        with _while_active(call) as cancel:
            return self.builder.solve(request, cancel, parent=context_of(call.metadata))

    def _status(self, request: control_pb2.StatusRequest, call: ServedCall) -> Iterator[control_pb2.StatusResponse]:
        with _while_active(call) as cancel:
            build = self.builds.known(request.Ref)
            if build is None and history.find(self._environment.root, request.Ref) is not None:
                build = self.builds.known(
                    request.Ref
                )  # it may have begun, and its record with it, between the two looks
                if build is None:
                    yield from history.replay(self._environment.root, request.Ref)
                    return
            yield from (build or self.builds.find(request.Ref, _SOON_S)).watch(cancel)

    def _prune(self, request: control_pb2.PruneRequest, call: ServedCall) -> Iterator[control_pb2.UsageRecord]:
        with _while_active(call) as cancel:
            yield from prune(self._environment, request, cancel)

    def _listen_history(
        self, request: control_pb2.BuildHistoryRequest, call: ServedCall
    ) -> Iterator[control_pb2.BuildHistoryEvent]:
        with _while_active(call) as cancel:
            yield from history.listen(self._environment.root, self.builds, request, cancel)

    def _update_history(
        self, request: control_pb2.UpdateBuildHistoryRequest, _call: ServedCall
    ) -> control_pb2.UpdateBuildHistoryResponse:
        history.update(self._environment.root, self.builds, request)
        return control_pb2.UpdateBuildHistoryResponse()

    def _session(self, requests: ServedCall, call: ServedCall) -> Iterator[control_pb2.BytesMessage]:
        """Hold a client's session: an HTTP/2 connection in messages, at whose other end the client serves."""
        info = info_of(call.metadata)
        # what has come is taken all at once: a context arrives in many small messages
        incoming = (b"".join(message.data for message in batch) for batch in requests.batches())
        stream = MessageStream(incoming)
        call.on_end(stream.close)
        with self.sessions.holding(info, lambda: Peer(stream)):
            for data in stream.outgoing():
                yield control_pb2.BytesMessage(data=data)

    def _bridge_of(self, call: ServedCall) -> Bridge:
        ref = dict(call.metadata).get(_BUILD_ID, "")
        if not isinstance(ref, str) or not ref:
            raise InputError(f"a call of a frontend needs {_BUILD_ID} in its metadata")
        return self.builds.find(ref, _SOON_S).wait_for_bridge(_SOON_S)

    def _list_workers(self, _request: Any, _call: ServedCall) -> control_pb2.ListWorkersResponse:
        return control_pb2.ListWorkersResponse(record=[self._worker()])

    def _info(self, _request: Any, _call: ServedCall) -> control_pb2.InfoResponse:
        return control_pb2.InfoResponse(buildkitVersion=version_message())

    def _worker(self) -> worker_pb2.WorkerRecord:
        return worker_record(self._environment, version_message(), self._settings.labels)


def version_message() -> worker_pb2.BuildkitVersion:
    """Return who serves here."""
    return worker_pb2.BuildkitVersion(package="lamina", version=__version__)


@contextmanager
def _while_active(call: ServedCall) -> Iterator[Cancel]:
    """Give a token that is cancelled when the call ends before the block does."""
    cancel = Cancel()
    call.on_end(cancel.cancel)
    yield cancel
