"""All of docker's API in one table of routes, and a server for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lamina.daemon.control import Control
from lamina.daemon.docker.builds import DockerBuilds
from lamina.daemon.docker.hijacked import Hijacked
from lamina.daemon.docker.images import Images
from lamina.daemon.docker.routes import Routes
from lamina.daemon.docker.server import DockerServer
from lamina.daemon.docker.system import System
from lamina.daemon.docker.transfers import Transfers
from lamina.daemon.listening import listening
from lamina.engine.options import Environment
from lamina.rpc.server import Server


def docker_routes(environment: Environment, control: Control, server: Server | None = None) -> Routes:
    """Return what `DockerServer` serves.

    Args:
        control: whose builds and sessions these are.
        server: serves gRPC, for `/grpc`.
    """
    routes = Routes()
    System(environment).register(routes)
    DockerBuilds(environment, control.builder, control.builds).register(routes)
    Hijacked(control.sessions, server).register(routes)
    Transfers(environment, control.builder).register(routes)
    Images(environment.root).register(routes)
    return routes


@contextmanager
def serving_docker(
    environment: Environment,
    control: Control,
    addresses: Sequence[str],
    server: Server,
    *,
    uid: int | None = None,
    gid: int | None = None,
) -> Iterator[None]:
    """Serve docker's API on addresses for as long as the block lasts.

    Args:
        server: serves gRPC where a client asks for that on a connection of docker's.
        uid: owner of socket files, and `gid` their group; None for this process's.

    Raises:
        InputError: what is no address; MachineError: one that cannot be listened on.
    """
    with listening(addresses, uid=uid, gid=gid) as listeners:
        docker = DockerServer(docker_routes(environment, control, server), [listener for listener, _ in listeners])
        docker.start()
        try:
            yield
        finally:
            docker.close()
