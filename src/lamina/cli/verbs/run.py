"""`lamina run`: a command in an image, in the foreground, to try what was built."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Mapping


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the verb's options."""
    import argparse

    add = parser.add_argument
    add("--rm", action="store_true", help="accepted; nothing of a run is kept in any case")
    add("-e", "--env", action="append", default=[], metavar="NAME[=VALUE]", help="environment variable (repeatable)")
    add("-v", "--volume", action="append", default=[], metavar="HOST:PATH[:ro]", help="mount a host path (repeatable)")
    add("-p", "--publish", action="append", default=[], metavar="[HOST:]PORT", help="a port (host network only)")
    add("-u", "--user", default="", metavar="USER[:GROUP]", help="user instead of the image's")
    add("-w", "--workdir", default="", metavar="DIR", help="working directory instead of the image's")
    add("--entrypoint", default=None, metavar="PROGRAM", help="entrypoint instead of the image's ('' for none)")
    add("--network", choices=["host", "none"], default="host", help="network (default host)")
    add("--hostname", default="", metavar="NAME", help="host name")
    for names in (("-i", "--interactive"), ("-t", "--tty"), ("-d", "--detach")):
        add(*names, action="store_true", help=argparse.SUPPRESS)
    add("image", metavar="IMAGE", help="a name or an image ID")
    add("command", nargs=argparse.REMAINDER, metavar="CMD", help="command instead of the image's")


def run(args: Namespace) -> int:
    """Run the command and return its exit code."""
    from lamina.cli.environment import load_environment
    from lamina.cli.signals import cancelling
    from lamina.cli.userns import enter_user_namespace
    from lamina.errors import NotYetError

    for name in ("interactive", "tty", "detach"):
        if getattr(args, name):
            hint = "end the command line with & instead" if name == "detach" else ""
            raise NotYetError(f"run --{name}", hint=hint)
    env = parse_env(args.env, os.environ)
    volumes = [parse_volume(text) for text in args.volume]
    for text in args.publish:
        check_publish(text, args.network)
    enter_user_namespace()
    from pathlib import Path

    from lamina.cli.session import stored_credentials
    from lamina.engine.run import RunOptions, run_image
    from lamina.errors import CancelledError

    entrypoint = None if args.entrypoint is None else [args.entrypoint] if args.entrypoint else []
    options = RunOptions(
        command=list(args.command),
        environment=[f"{name}={value}" for name, value in env.items()],
        volumes=volumes,
        user=args.user,
        workdir=args.workdir,
        entrypoint=entrypoint,
        network=args.network,
        hostname=args.hostname,
    )
    environment = load_environment()
    credentials = stored_credentials(environment.docker_config or Path(), environment.search_path)
    with cancelling() as cancel:
        try:
            return run_image(args.image, options, environment, cancel, _copy_output, credentials)
        except CancelledError as error:
            return error.exit_code  # stopping a program that runs in the foreground is no fault to report


def _copy_output(stream: int, data: bytes) -> None:
    """Pass on what the command writes, byte for byte: it is the user's own program on the user's terminal."""
    view = memoryview(data)
    while view:
        view = view[os.write(1 if stream == 1 else 2, view) :]


def parse_env(texts: list[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables; one without `=` takes its value from the environment, or is left out."""
    from lamina.errors import InputError

    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise InputError(f"--env {text!r} has no name")
        if equals or name in environ:
            found[name] = value if equals else environ[name]
    return found


def parse_volume(text: str) -> tuple[str, str, bool]:
    """Return (absolute host path, path in the container, read-only) for `-v HOST:PATH[:ro]`."""
    from lamina.errors import InputError

    host, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not host or not target.startswith("/") or mode not in ("", "ro", "rw"):
        raise InputError(f"--volume {text!r} is not HOST:PATH[:ro]")
    host = os.path.abspath(host)
    if not os.path.exists(host):
        raise InputError("no such file or directory", where=host, hint=f"for --volume {text}")
    return host, target, mode == "ro"


def check_publish(text: str, network: str) -> None:
    """Check `-p`: on the host's network a port is reachable under its own number, and only so."""
    from lamina.errors import InputError, NotYetError

    ports = text.partition("/")[0].split(":")
    if not all(port.isdigit() and 0 < int(port) < 65536 for port in ports[-2:]):
        raise InputError(f"--publish {text!r} is not [HOST:]PORT")
    if network != "host":
        raise InputError("--publish needs the host's network", hint="leave out --network")
    if len(ports) > 2 or len(set(ports)) > 1:
        raise NotYetError(f"--publish {text} (another port or address than the container's)")
