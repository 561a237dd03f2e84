"""gRPC's health service: whoever reaches it is told that the daemon serves.

Reference: gRPC, "GRPC Health Checking Protocol".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lamina.api.errors import NotFoundError
from lamina.api.pb import health_pb2
from lamina.api.services import HEALTH, Service
from lamina.rpc.call import Handler, ServedCall

_SERVING = health_pb2.HealthCheckResponse.SERVING


def health_service() -> tuple[Service, dict[str, Handler]]:
    """Return the service and its handlers."""

    def check(request: Any, _call: ServedCall) -> health_pb2.HealthCheckResponse:
        if request.service not in ("", "moby.buildkit.v1.Control"):
            raise NotFoundError(f"no such service: {request.service[:80]!r}")
        return health_pb2.HealthCheckResponse(status=_SERVING)

    def watch(request: Any, call: ServedCall) -> Iterator[health_pb2.HealthCheckResponse]:
        import threading

        ended = threading.Event()
        call.on_end(ended.set)
        yield check(request, call)
        ended.wait()

    return HEALTH, {"Check": check, "Watch": watch}
