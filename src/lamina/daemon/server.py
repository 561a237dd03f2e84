"""The gRPC server: the daemon's services on addresses, and gRPC's own health service.

Threads: a call has one for as long as it lasts, and a client holds two or three calls (session, progress, solve); they
are made when they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc

from lamina.errors import InputError, MachineError

MAX_MESSAGE = 16 << 20
_MOST_CALLS = 4096
_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
)


class Server:
    """Serves until it is stopped.

    Args:
        handlers: the services.
        addresses: as grpcio takes them (`unix:/path`, `127.0.0.1:1234`).

    Raises:
        MachineError: an address cannot be listened on.
    """

    def __init__(self, handlers: Sequence[grpc.GenericRpcHandler], addresses: Sequence[str]) -> None:
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc

        pool = ThreadPoolExecutor(_MOST_CALLS, thread_name_prefix="call")
        self._server = grpc.server(pool, options=_OPTIONS)
        self._server.add_generic_rpc_handlers(handlers)
        servicer = health.HealthServicer()
        servicer.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, self._server)
        for address in addresses:
            try:
                bound = self._server.add_insecure_port(address)
            except RuntimeError as error:
                raise MachineError(f"cannot listen on {address}: {error}") from error
            if not bound:
                raise MachineError(f"cannot listen on {address}", hint="does another daemon listen there?")
        self._server.start()

    def stop(self, patience_s: float) -> None:
        """Take no new calls, and end those that are left after the time."""
        self._server.stop(patience_s).wait()


def grpc_address(address: str) -> str:
    """Return an address of ours (`unix:///path`, `tcp://host:port`) as grpcio has it.

    Raises:
        InputError: it is neither.
    """
    scheme, separator, rest = address.partition("://")
    if separator and scheme == "unix" and rest.startswith("/"):
        return f"unix:{rest}"
    if separator and scheme == "tcp" and rest.rpartition(":")[0]:
        return rest
    raise InputError(f"not an address: {address!r}", hint="unix:///path or tcp://host:port")
