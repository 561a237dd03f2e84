"""`lamina run`: a command in an image, in the foreground, to try what was built."""

from __future__ import annotations

import os

from lamina.cli.run_args import add_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

    from lamina.engine.run import RunOptions

__all__ = ["add_arguments", "run"]

_KILLED = 137
"""Exit code of a program that had to be killed: 128 + SIGKILL, as in a shell."""


def run(args: Namespace) -> int:
    """Run the command and return its exit code."""
    from lamina.cli import run_args
    from lamina.cli.environment import load_environment
    from lamina.cli.signals import cancelling
    from lamina.cli.userns import enter_user_namespace

    run_args.refuse_not_yet(args)
    _check_terminal(args)
    options = _options(args)
    enter_user_namespace()
    from pathlib import Path

    from lamina.cli.foreground import Foreground
    from lamina.cli.session import stored_credentials
    from lamina.engine.run import run_image
    from lamina.errors import CancelledError

    environment = load_environment()
    credentials = stored_credentials(environment.docker_config or Path(), environment.search_path)
    with cancelling() as cancel:
        front = Foreground(
            interactive=args.interactive, terminal=args.tty, cancel=cancel, stop_timeout_s=max(0, args.stop_timeout)
        )
        try:
            return run_image(args.image, options, environment, cancel, _copy_output, credentials, front.attach)
        except CancelledError as error:
            # Stopping a program that runs in the foreground is no fault to report.
            return _KILLED if front.began else error.exit_code


def _check_terminal(args: Namespace) -> None:
    from lamina.errors import InputError

    if args.tty and args.interactive and not os.isatty(0):
        hint = "leave out -t to connect standard input as it is"
        raise InputError("-i with -t needs a terminal, and standard input is none", hint=hint)


def _options(args: Namespace) -> RunOptions:
    from lamina.cli import run_args
    from lamina.cli.build_values import parse_size
    from lamina.cli.foreground import window_size
    from lamina.engine.run import RunOptions

    network = run_args.check_network(args.network)
    for text in args.publish:
        run_args.check_publish(text, network)
    env: dict[str, str] = {}
    for path in args.env_file:
        env |= run_args.load_env_file(path, os.environ)
    env |= run_args.parse_env(args.env, os.environ)
    return RunOptions(
        command=list(args.command),
        environment=[f"{name}={value}" for name, value in env.items()],
        mounts=run_args.mounts(args),
        user=args.user,
        workdir=args.workdir,
        entrypoint=None if args.entrypoint is None else [args.entrypoint] if args.entrypoint else [],
        network=network,
        hostname=args.hostname or run_args.check_name(args.name),
        add_hosts=run_args.hosts(args.add_host),
        readonly=args.read_only,
        shm_size=parse_size(args.shm_size, "--shm-size") if args.shm_size else 0,
        ulimits=run_args.ulimits(args.ulimit),
        terminal=args.tty,
        window=window_size() if args.tty else (0, 0),
        pull=args.pull,
        platform=args.platform,
    )


def _copy_output(stream: int, data: bytes) -> None:
    """Pass on what the command writes, byte for byte: it is the user's own program on the user's terminal."""
    view = memoryview(data)
    while view:
        view = view[os.write(1 if stream == 1 else 2, view) :]
