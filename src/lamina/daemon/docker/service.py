"""All of docker's API in one table of routes, and a server for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from lamina.daemon.control import Control
from lamina.daemon.docker.builds import DockerBuilds
from lamina.daemon.docker.hijacked import Hijacked, Pump, pump_to
from lamina.daemon.docker.images import Images
from lamina.daemon.docker.listening import listen
from lamina.daemon.docker.routes import Routes
from lamina.daemon.docker.server import DockerServer
from lamina.daemon.docker.system import System
from lamina.daemon.docker.transfers import Transfers
from lamina.engine.options import Environment


def docker_routes(environment: Environment, control: Control, pump: Pump | None = None) -> Routes:
    """Return what `DockerServer` serves.

    Args:
        control: whose builds and sessions these are.
        pump: carries connections to the gRPC server, for `/grpc`.
    """
    routes = Routes()
    System(environment).register(routes)
    DockerBuilds(environment, control.builder, control.builds).register(routes)
    Hijacked(control.sessions, pump).register(routes)
    Transfers(environment).register(routes)
    Images(environment.root).register(routes)
    return routes


@contextmanager
def serving_docker(
    environment: Environment, control: Control, addresses: Sequence[str], grpc_socket: str
) -> Iterator[None]:
    """Serve docker's API on addresses for as long as the block lasts.

    Args:
        grpc_socket: path of the unix socket on which the gRPC server listens.

    Raises:
        InputError: what is no address; MachineError: one that cannot be listened on.
    """
    with ExitStack() as stack:
        listeners = [stack.enter_context(listen(address)) for address in addresses]
        server = DockerServer(docker_routes(environment, control, pump_to(Path(grpc_socket))), listeners)
        server.start()
        stack.callback(_remove, [address.removeprefix("unix://") for address in addresses if address[:1] == "u"])
        stack.callback(server.close)
        yield


def _remove(paths: Sequence[str]) -> None:
    for path in paths:
        Path(path).unlink(missing_ok=True)
