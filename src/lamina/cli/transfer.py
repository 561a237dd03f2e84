"""What pull, push, save and load share: a display, cancellation by signals, the user's credentials."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable
    from typing import TypeVar

    from lamina.engine.options import Environment
    from lamina.engine.transfer import Side

    T = TypeVar("T")


def add_progress(parser: ArgumentParser) -> None:
    """Declare how progress is shown."""
    from lamina.cli.build_args import PROGRESS

    parser.add_argument("--progress", choices=PROGRESS, default="auto", help="how to show progress")
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def transfer(args: Namespace, work: Callable[[Environment, Side], T]) -> T:
    """Run `work` with a display and under a cancel token that signals reach; return what it returns."""
    from pathlib import Path

    from lamina.cli.environment import load_environment
    from lamina.cli.progress.display import open_display
    from lamina.cli.session import stored_credentials
    from lamina.cli.signals import cancelling
    from lamina.cli.userns import enter_user_namespace
    from lamina.engine.transfer import Side

    enter_user_namespace()
    environment = load_environment()
    credentials = stored_credentials(environment.docker_config or Path(), environment.search_path)
    display = open_display("quiet" if args.quiet else args.progress)
    try:
        with cancelling() as cancel:
            result = work(environment, Side(credentials, display.sink, cancel))
    except BaseException as error:
        display.close(error)
        raise
    display.close(None)
    return result
