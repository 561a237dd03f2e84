"""`POST /build`: a build that docker's client asks for, told as BuildKit's progress or as the classic builder's lines.

The query becomes a `Solve` request; context, secrets and credentials come through the client's session, or the context
as an archive: in the body of this request (the classic builder), or of another one that names this build.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from lamina.api.errors import NotFoundError
from lamina.api.pb import control_pb2
from lamina.cancel import Cancel
from lamina.daemon.builder import Side
from lamina.daemon.builds import Builds
from lamina.daemon.docker.exchange import Exchange
from lamina.daemon.docker.failures import ApiError
from lamina.daemon.docker.lines import Lines
from lamina.daemon.docker.routes import Request, Routes
from lamina.daemon.docker.solve_request import BUILDKIT, SESSION, UPLOAD, BuildQuery, build_query
from lamina.daemon.docker.teller import QuietLines, Teller, teller_of
from lamina.daemon.docker.uploads import Unpacked, Uploads, credentials_of
from lamina.engine.options import Environment
from lamina.errors import InputError
from lamina.tracing.context import TraceContext, context_of

_SOON_S = 5.0
_UPLOADS = f"{UPLOAD}:"


class Builder(Protocol):
    """What carries a build out; `daemon.builder.Builder`."""

    def solve(
        self, request: control_pb2.SolveRequest, cancel: Cancel, *, side: Side, parent: TraceContext | None = None
    ) -> control_pb2.SolveResponse:
        """Build, and return what the client is told of the result."""


class DockerBuilds:
    """Handlers of builds."""

    def __init__(self, environment: Environment, builder: Builder, builds: Builds) -> None:
        self._environment, self._builder, self._builds = environment, builder, builds
        self._uploads = Uploads()
        self._cancels: dict[str, Cancel] = {}
        self._guard = threading.Lock()

    def register(self, routes: Routes) -> None:
        """Add the handlers."""
        routes.add("POST", "/build", self.build)
        routes.add("POST", "/build/cancel", self.cancel)

    def build(self, request: Request) -> None:
        """Build, or take in the context of a build."""
        build_id = request.query.text("buildid")
        if build_id.startswith(_UPLOADS):
            self._uploads.bring(build_id.removeprefix(_UPLOADS), request.exchange)
            request.exchange.reply(200)
            return
        query = build_query(request.query, secrets.token_hex(13))
        with ExitStack() as stack:
            gone = stack.enter_context(request.exchange.gone())
            cancel = stack.enter_context(self._cancellable(query.build_id, gone))
            side = self._side(query, request.exchange, stack, cancel)
            lines = Lines(stack.enter_context(request.exchange.stream("application/json")))
            if query.quiet:
                lines = QuietLines(lines)
            parent = context_of(request.exchange.headers)
            self._run(query, lines, cancel, gone, side, parent)

    def cancel(self, request: Request) -> None:
        """Stop a build by the name its client gave it; of one that is not there (any more) nothing is to be done."""
        name = request.query.text("id")
        if not name:
            raise ApiError(400, "build ID not provided")
        with self._guard:
            cancel = self._cancels.get(name)
        if cancel is not None:
            cancel.cancel()
        request.exchange.reply(200)

    @contextmanager
    def _cancellable(self, name: str, gone: Cancel) -> Iterator[Cancel]:
        cancel = Cancel(gone)
        if not name:
            yield cancel
            return
        with self._guard:
            if name in self._cancels:
                raise ApiError(409, "a build of that ID is under way already")
            self._cancels[name] = cancel
        try:
            yield cancel
        finally:
            with self._guard:
                del self._cancels[name]

    def _side(self, query: BuildQuery, exchange: Exchange, stack: ExitStack, cancel: Cancel) -> Side:
        """Return what the build sees of its session; a context that comes as an archive is taken in here."""
        credentials = credentials_of(exchange.header("x-registry-config"))
        directory = None
        if query.remote == UPLOAD:
            if not query.build_id:
                raise ApiError(400, "a context that is uploaded needs a build ID")
            directory = stack.enter_context(self._uploads.taken(query.build_id, self._environment.root, cancel))
        elif not query.remote:
            directory = stack.enter_context(self._uploads.unpacked(exchange, self._environment.root))
        elif query.remote == SESSION and not query.request.Session:
            raise ApiError(400, "the context is to come through a session, and none is named")
        return lambda session: Unpacked(session, directory, credentials)

    def _run(
        self,
        query: BuildQuery,
        lines: Lines,
        cancel: Cancel,
        gone: Cancel,
        side: Side,
        parent: TraceContext | None,
    ) -> None:
        """Build, telling of it; in the end of the image, or of what went wrong."""
        outcome = _Outcome()

        def solve() -> None:
            try:
                outcome.response = self._builder.solve(query.request, cancel, side=side, parent=parent)
            except Exception as error:
                outcome.error = error

        teller = teller_of(lines, classic=query.version != BUILDKIT)
        teller.begin(query.ignored)
        solving = threading.Thread(target=solve, name="docker-build", daemon=True)
        solving.start()
        try:
            self._tell(query.request.Ref, teller, gone)
        finally:
            if gone.is_cancelled():
                cancel.cancel()
            solving.join()
        if outcome.error is not None:
            teller.failed(outcome.error)
        elif outcome.response is not None:
            _report(query, dict(outcome.response.ExporterResponse), teller)

    def _tell(self, ref: str, teller: Teller, gone: Cancel) -> None:
        try:
            for message in self._builds.find(ref, _SOON_S).watch(gone):
                teller.progress(message)
        except NotFoundError:
            return  # it did not even begin: why, it says itself
        except BaseException:
            gone.cancel()
            raise


class _Outcome:
    """How a build ended."""

    response: control_pb2.SolveResponse | None = None
    error: Exception | None = None


def _report(query: BuildQuery, response: dict[str, Any], teller: Teller) -> None:
    if not query.makes_image:
        return
    image_id = response.get("containerimage.config.digest") or response.get("containerimage.digest", "")
    if not image_id:
        teller.failed(InputError("the build made no image"))
        return
    teller.done(image_id, query.tags)
