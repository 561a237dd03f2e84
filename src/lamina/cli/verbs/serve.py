"""`lamina serve`: build for BuildKit's clients (buildctl, buildx, docker) until a signal ends it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

_GRACE_S = 10.0


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    add = parser.add_argument
    add("--addr", action="append", default=[], metavar="ADDR", help="listen on unix:///path or tcp://127.0.0.1:port")
    add(
        "--docker-addr",
        action="append",
        default=[],
        metavar="ADDR",
        help="serve docker's API there, for DOCKER_HOST=ADDR docker build; unix:///path or tcp://127.0.0.1:port",
    )
    add("--debug", action="store_true", help="log more")
    add(
        "--allow-insecure-entitlement",
        action="append",
        default=[],
        metavar="NAME",
        help="let clients ask for network.host, security.insecure or device",
    )


def run(args: Namespace) -> int:
    """Serve, and return the exit code."""
    from lamina.cli.userns import enter_user_namespace

    enter_user_namespace()
    import logging

    from lamina.cli.environment import load_environment
    from lamina.cli.signals import cancelling
    from lamina.errors import MachineError

    try:
        from lamina.daemon.builder import Settings
        from lamina.daemon.control import Control
        from lamina.daemon.docker.service import serving_docker
        from lamina.daemon.listening import listening
        from lamina.rpc.server import Server
    except ImportError as error:
        raise MachineError(f"the daemon needs {error.name}", hint="pip install 'lamina[daemon]'") from error
    level = logging.DEBUG if args.debug else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    addresses = args.addr or ["unix:///run/lamina/lamina.sock"]
    environment = load_environment()
    control = Control(environment, Settings(frozenset(args.allow_insecure_entitlement)))
    with cancelling() as cancel:
        server = Server(control.serving())
        with listening(addresses) as listeners, serving_docker(environment, control, args.docker_addr, server):
            for listener in listeners:
                server.listen(listener)
            logging.info("listening on %s", ", ".join([*addresses, *args.docker_addr]))
            while not cancel.wait(3600.0):
                pass
            logging.info("stopping")
            control.close(_GRACE_S)
        server.stop(1.0)
    return 0
