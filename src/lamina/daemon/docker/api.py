"""All of docker's API in one table of routes."""

from __future__ import annotations

from lamina.daemon.control import Control
from lamina.daemon.docker.builds import DockerBuilds
from lamina.daemon.docker.hijacked import Hijacked, Pump
from lamina.daemon.docker.images import Images
from lamina.daemon.docker.routes import Routes
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
