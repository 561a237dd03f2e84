"""`lamina serve`: build for BuildKit's clients (buildctl, buildx, docker) until a signal ends it."""

from __future__ import annotations

import os
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator

    from lamina.config.buildkitd import DaemonConfig, TlsFiles
    from lamina.daemon.clipping import LogLimits
    from lamina.daemon.control import Control
    from lamina.daemon.settings import Running

_GRACE_S = 10.0
_GLANCE_S = 1.0
_LEVELS = {"panic": 50, "fatal": 50, "error": 40, "warn": 30, "warning": 30, "info": 20, "debug": 10, "trace": 10}
"""BuildKit's names of levels, as `logging` counts them; importing that takes time."""
_ENTITLEMENTS = ("network.host", "security.insecure", "device")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    add = parser.add_argument
    add(
        "--addr",
        action="append",
        default=[],
        metavar="ADDR",
        help="listen on unix:///path, tcp://host:port (beyond this machine with --tlscacert only), or fd:// for the "
        "sockets that systemd opened; may be repeated",
    )
    add(
        "--docker-addr",
        action="append",
        default=[],
        metavar="ADDR",
        help="answer docker's command as well, on unix:///path or tcp://127.0.0.1:port (DOCKER_HOST)",
    )
    add("--root", default="", metavar="DIR", help="where images and cache lie, as `lamina --root`")
    add(
        "--config",
        default="",
        metavar="FILE",
        help="a buildkitd.toml (/etc/lamina/buildkitd.toml; an ordinary user's is in ~/.config/lamina)",
    )
    add("--debug", action="store_true", help="log more")
    add("--group", default="", metavar="GROUP", help="the group that may connect to unix sockets")
    add("--tlscert", default="", metavar="FILE", help="the server's certificate, for tcp://")
    add("--tlskey", default="", metavar="FILE", help="its key")
    add(
        "--tlscacert",
        default="",
        metavar="FILE",
        help="authorities: only clients with a certificate of theirs may come",
    )
    add(
        "--frontend",
        action="append",
        default=[],
        metavar="NAME=MODULE:FUNCTION",
        help="a frontend in Python that runs in this process (see lamina.frontend)",
    )
    add("--metrics-addr", default="", metavar="HOST:PORT", help="answer Prometheus at http://HOST:PORT/metrics")
    add("--max-parallelism", type=int, default=0, metavar="N", help="steps at once of all builds together")
    add("--jobs", type=int, default=0, metavar="N", help="steps at once in one build")
    add(
        "--allow-insecure-entitlement",
        action="append",
        default=[],
        choices=_ENTITLEMENTS,
        metavar="NAME",
        help="let clients ask for network.host, security.insecure or device",
    )


def run(args: Namespace) -> int:
    """Serve, and return the exit code."""
    from pathlib import Path

    from lamina.cli.environment import default_daemon_config
    from lamina.errors import MachineError

    try:
        from lamina.daemon.settings import read_config
    except ImportError as error:
        raise MachineError(f"the daemon needs {error.name}", hint="pip install 'lamina[daemon]'") from error
    path = Path(args.config or default_daemon_config())
    config = read_config(path, must_be=bool(args.config))
    if args.root or config.root:
        os.environ["LAMINA_ROOT"] = os.path.abspath(args.root or config.root)
    from lamina.cli.userns import enter_user_namespace

    enter_user_namespace()
    _serve(args, config, path)
    return 0


def _serve(args: Namespace, config: DaemonConfig, path: os.PathLike[str]) -> None:
    import logging
    from pathlib import Path

    from lamina.bridge.in_process import load_frontends
    from lamina.cli.environment import default_address, load_environment
    from lamina.cli.signals import cancelling
    from lamina.cli.tracing import tracing
    from lamina.daemon.builder import Settings
    from lamina.daemon.control import Control
    from lamina.daemon.docker.service import serving_docker
    from lamina.daemon.listening import listening
    from lamina.daemon.settings import running
    from lamina.rpc.server import Server

    _log_to_stderr(args, config)
    for key in config.without_meaning:
        logging.warning("%s: %s has no meaning here", path, key)
    given = Settings(
        frozenset(args.allow_insecure_entitlement),
        jobs=args.jobs,
        max_parallelism=args.max_parallelism,
        own_frontends=load_frontends(args.frontend),
        log_limits=_log_limits(),
    )
    plan = running(config, Path(path).parent, load_environment(), given)
    addresses = args.addr or list(plan.addresses) or [default_address()]
    tls = _tls(args, plan)
    gid = _group(args.group) if args.group else config.gid
    inherited = _inherited() if any(address.startswith("fd://") for address in addresses) else []
    with cancelling() as cancel, tracing(logging.warning) as plan.environment.tracer:
        control = Control(plan.environment, plan.settings)
        server = Server(control.serving())
        with (
            listening(addresses, tls=tls, inherited=inherited, uid=config.uid, gid=gid) as listeners,
            serving_docker(plan.environment, control, args.docker_addr, server, uid=config.uid, gid=gid),
            _metrics(control, args.metrics_addr),
            _taking_spans(control, config.trace_socket),
        ):
            for listener, wrap in listeners:
                server.listen(listener, wrap)
            logging.info("listening on %s", ", ".join([*addresses, *args.docker_addr]))
            _notify("READY=1")
            # a signal may reach any thread, and is acted on when this one wakes
            while not cancel.wait(_GLANCE_S):
                pass
            logging.info("stopping")
            _notify("STOPPING=1")
            control.close(_GRACE_S)
            server.stop(1.0)


def _log_limits() -> LogLimits:
    """Return what buildkitd's variables say of output that clients are shown.

    Raises:
        InputError: not numbers.
    """
    from lamina.daemon.clipping import LogLimits, parse_limit

    size, speed = "BUILDKIT_STEP_LOG_MAX_SIZE", "BUILDKIT_STEP_LOG_MAX_SPEED"
    return LogLimits(parse_limit(os.environ.get(size, ""), size), parse_limit(os.environ.get(speed, ""), speed))


@contextmanager
def _metrics(control: Control, address: str) -> Iterator[None]:
    """Count builds and tell of them, where somebody wants to know."""
    if not address:
        yield
        return
    from lamina.daemon.metrics import Metrics, serving_metrics

    metrics = Metrics(control.builds, control.sessions)
    control.builder.on_end = metrics.ended
    with serving_metrics(metrics, address):
        yield


@contextmanager
def _taking_spans(control: Control, path: str) -> Iterator[None]:
    """Let programs beside the daemon hand it spans, on a socket that takes nothing else."""
    if not path:
        yield
        return
    from lamina.daemon.listening import listening
    from lamina.rpc.server import Server

    server = Server(control.serving_traces())
    with listening([f"unix://{path}"]) as listeners:
        for listener, wrap in listeners:
            server.listen(listener, wrap)
        try:
            yield
        finally:
            server.stop(1.0)


def _log_to_stderr(args: Namespace, config: DaemonConfig) -> None:
    import logging

    level = logging.DEBUG if args.debug or config.debug else _LEVELS[config.log_level or "info"]
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if config.log_format == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(_json_formatter())


def _json_formatter() -> logging.Formatter:
    import json
    import logging

    class Json(logging.Formatter):
        """One JSON object for each line."""

        def format(self, record: logging.LogRecord) -> str:
            fields = {"time": self.formatTime(record), "level": record.levelname.lower(), "msg": record.getMessage()}
            if record.exc_info:
                fields["error"] = self.formatException(record.exc_info)
            return json.dumps(fields)

    return Json()


def _tls(args: Namespace, plan: Running) -> TlsFiles | None:
    """Return the files of TLS: as given, else as configured.

    Raises:
        InputError: half of a pair.
    """
    from lamina.config.buildkitd import TlsFiles
    from lamina.errors import InputError

    if not (args.tlscert or args.tlskey or args.tlscacert):
        return plan.tls
    if not (args.tlscert and args.tlskey):
        raise InputError("TLS needs both --tlscert and --tlskey")
    return TlsFiles(args.tlscert, args.tlskey, args.tlscacert)


def _group(name: str) -> int:
    import grp

    from lamina.errors import InputError

    if name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise InputError(f"no such group: {name!r}") from error


def _inherited() -> list[int]:
    """Return the sockets that systemd opened for this process (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = os.environ.get("LISTEN_FDS", "")
    return list(range(3, 3 + int(count))) if count.isdecimal() and len(count) < 4 else []


def _notify(state: str) -> None:
    """Tell systemd, where that started us and wants to know (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        try:
            notify.connect("\0" + path[1:] if path.startswith("@") else path)
            notify.send(state.encode())
        except OSError:
            pass
