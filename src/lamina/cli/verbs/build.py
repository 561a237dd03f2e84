"""`lamina build`: an image from a Dockerfile.

The way: options -> inputs -> (fully cached? answer from the memo, nothing heavy imported) -> engine, with a
display fed by its events -> files that the user asked for. Rank 6 does the work; this module only carries.
"""

from __future__ import annotations

import os
import sys
from time import time

from lamina.cli.build_args import Request, add_arguments, prepare
from lamina.cli.environment import is_traced, state_root
from lamina.cli.inputs import Inputs, find_inputs, is_remote
from lamina.errors import InputError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable
    from typing import Any

    from lamina.cancel import Cancel
    from lamina.checks.report import Report
    from lamina.cli.progress.display import Display
    from lamina.cli.session import LocalSession
    from lamina.engine.fast import CachedBuild
    from lamina.engine.options import BuildResult, Environment
    from lamina.progress import Sink

__all__ = ["add_arguments", "prepare", "run"]


def run(args: Namespace) -> int:
    """Build, and return the exit code."""
    request = Request(args, os.environ)
    remote = is_remote(request.context)
    if os.geteuid() != 0 and (remote or "-" in (request.context, request.file)):
        enter_user_namespace()  # before anything is downloaded or read, since this process starts over
    if remote:
        return _build(request, None) if request.call is None else _check(request, None)
    inputs = find_inputs(request.context, request.file)
    try:
        if request.call is not None:
            return _check(request, inputs)
        if _answer_from_memo(options_of(request, inputs), request):
            return 0
        return _build(request, inputs)
    finally:
        inputs.close()


def options_of(request: Request, inputs: Inputs) -> dict[str, Any]:
    """Return the keyword arguments of `BuildOptions`."""
    return {
        **request.options,
        "context": inputs.context,
        "dockerfile": inputs.dockerfile,
        "dockerfile_name": inputs.name,
        "ignore": inputs.ignore,
        "ignore_name": inputs.ignore_name,
    }


def _answer_from_memo(options: dict[str, Any], request: Request) -> bool:
    """Answer a fully cached build without importing anything heavy; tell whether that was possible."""
    if request.progress == "rawjson":
        return False
    from lamina.engine import fast

    began = time()
    hit = fast.try_cached(options, state_root())
    if hit is None:
        return False
    from lamina.cli.progress.cached import show_cached

    show_cached(request.progress, hit.steps, hit.warnings, hit.names)
    _deliver(request, hit.config_digest, hit.digest, hit.metadata)
    fast.note(hit, options, state_root(), began)
    if is_traced():
        _trace_cached(hit, began)
    return True


def _trace_cached(hit: CachedBuild, began: float) -> None:
    """Send the trace of a build that the memo answered."""
    from lamina.cli.tracing import tracing

    with tracing() as tracer:
        if tracer is not None:
            from lamina.engine.traced import send_cached

            told: dict[str, str | tuple[str, ...]] = {
                "lamina.image.digest": hit.digest,
                "lamina.image.names": tuple(hit.names),
            }
            send_cached(tracer, began, hit.steps, told)


def _build(request: Request, inputs: Inputs | None) -> int:
    """Build with the engine; show its events; write what was asked for.

    Args:
        inputs: None when they have to be fetched from a server, under the same display.
    """
    enter_user_namespace()
    from lamina.cli.environment import load_environment
    from lamina.cli.progress.display import open_display
    from lamina.cli.tracing import tracing
    from lamina.errors import Error

    environment = load_environment()
    with tracing() as environment.tracer:  # closed last: whoever waits for the result has it by then
        display = open_display(request.progress)
        try:
            result = _solve(request, inputs, environment, display)
        except Error as error:
            if display.close(error):
                error.log = []
            raise
        except BaseException as error:
            display.close(error)
            raise
        display.close(None, result.names)
        _deliver(request, result.config_digest, result.digest, result.metadata)
    return 0


def _check(request: Request, inputs: Inputs | None) -> int:
    """Check the Dockerfile and print what was found; nothing is built. Return the exit code."""
    assert request.call is not None
    if request.call.name == "convertllb":
        return _convert_llb(request, inputs)
    if request.call.name != "check":
        return _outline(request, inputs)
    from lamina.cli.environment import load_environment
    from lamina.cli.signals import cancelling
    from lamina.engine.check import check
    from lamina.engine.options import BuildOptions

    if request.fix:
        _refuse_fix(inputs)
    environment = load_environment()
    with cancelling() as cancel:
        fetched = inputs or fetch(request, environment, lambda _event: None, cancel)
        try:
            session = open_session(request, fetched.context, environment)
            options = BuildOptions(**options_of(request, fetched))
            if request.fix:
                from lamina.cli.fixes import fix_file

                report = fix_file(fetched.path, options, request, session, environment, cancel)
            else:
                report = check(options, session, environment, cancel)
        finally:
            fetched.close()
    if request.fix != "diff" or request.call.format != "text":
        _print_report(report, request.call.format)
    return int(report.failed and not request.call.ignore_status)


def _print_report(report: Report, format_: str) -> None:
    """Print what the checks found."""
    from lamina import __version__
    from lamina.checks.report import json_report, text_report
    from lamina.checks.sarif import sarif_report
    from lamina.cli.terminal import clean_text

    if format_ == "json":
        text = json_report(report)
    elif format_ == "sarif":
        text = sarif_report(report, __version__)
    else:
        text = clean_text(text_report(report))
    sys.stdout.write(text)


def _refuse_fix(inputs: Inputs | None) -> None:
    """Refuse to mend what is not a file of the user's."""
    if inputs is None:
        raise InputError("--fix mends a Dockerfile that is here, not one on a server", hint="clone or download it")
    if not inputs.path:
        raise InputError("--fix mends a file, not standard input or an archive", hint="name the Dockerfile with -f")


def _convert_llb(request: Request, inputs: Inputs | None) -> int:
    """Print the graph that the Dockerfile becomes."""
    from lamina.cli.environment import load_environment
    from lamina.cli.signals import cancelling
    from lamina.engine.convert_llb import convert_llb
    from lamina.engine.options import BuildOptions

    environment = load_environment()
    with cancelling() as cancel:
        fetched = inputs or fetch(request, environment, lambda _event: None, cancel)
        try:
            session = open_session(request, fetched.context, environment)
            text = convert_llb(BuildOptions(**options_of(request, fetched)), session, environment, cancel)
        finally:
            fetched.close()
    sys.stdout.write(text)
    return 0


def _outline(request: Request, inputs: Inputs | None) -> int:
    """Print what the Dockerfile offers; nothing is resolved or opened for that."""
    assert request.call is not None
    from lamina.dockerfile.outline_shown import show_calls

    if request.call.name == "subrequests.describe":
        sys.stdout.write(show_calls(request.call.format))
        return 0
    if inputs is None:
        raise InputError(f"--call={request.call.name} reads a Dockerfile that is here", hint="download it first")
    from lamina.cli.terminal import clean_text
    from lamina.dockerfile.outline import list_targets, outline
    from lamina.dockerfile.outline_shown import show_outline, show_targets
    from lamina.dockerfile.parser import parse
    from lamina.dockerfile.syntax import check_syntax

    options = options_of(request, inputs)
    check_syntax(inputs.dockerfile, inputs.name, options["build_args"])
    dockerfile = parse(inputs.dockerfile, inputs.name)
    if request.call.name == "targets":
        text = show_targets(list_targets(dockerfile), inputs.dockerfile, request.call.format)
    else:
        found = outline(dockerfile, options["target"], options["build_args"])
        text = show_outline(found, inputs.dockerfile, request.call.format)
    sys.stdout.write(clean_text(text) if request.call.format == "text" else text)
    return 0


def enter_user_namespace() -> None:
    """Become root in a user namespace where the user is not root."""
    from lamina.cli.userns import enter_user_namespace

    enter_user_namespace()


def _solve(request: Request, inputs: Inputs | None, environment: Environment, display: Display) -> BuildResult:
    """Run the engine under a cancel token that signals reach."""
    from contextlib import closing

    from lamina.cli.signals import cancelling
    from lamina.dockerfile.syntax import other_frontend
    from lamina.engine.build import build
    from lamina.engine.options import BuildOptions

    sink = display.sink if request.explain else _without_reasons(display.sink)
    with cancelling() as cancel:
        fetched = inputs or fetch(request, environment, sink, cancel)
        try:
            origin = {"origin": "" if inputs else request.context, "origin_materials": fetched.materials}
            options = BuildOptions(**{**options_of(request, fetched), **origin})
            if "provenance" in options.attests and not fetched.temporary and fetched.context:
                from lamina.cli.vcs import version_control

                options.vcs = version_control(fetched.context, os.environ)
            with closing(open_session(request, fetched.context, environment)) as session:
                if image := other_frontend(options.dockerfile, options.build_args):
                    return _build_by_frontend(image)(options, session, environment, sink, cancel)
                return build(options, session, environment, sink, cancel)
        finally:
            fetched.close()


def _build_by_frontend(image: str) -> Callable[..., BuildResult]:
    """Return what builds with a frontend in an image.

    Raises:
        MachineError: the libraries that speak with one are not installed.
    """
    from functools import partial

    try:
        from lamina.bridge.foreign import build_by_frontend
    except ImportError as error:
        from lamina.errors import MachineError

        what = f"the front end {image[:200]!r} needs a library that is not here: {error.name}"
        raise MachineError(what, hint="pip install 'lamina[daemon]'") from error
    return partial(build_by_frontend, image)


def _without_reasons(sink: Sink) -> Sink:
    """Return a sink that hands events on without telling why steps run."""
    from dataclasses import replace

    from lamina.progress import Event, VertexEvent

    def plain(event: Event) -> None:
        sink(replace(event, reason="") if isinstance(event, VertexEvent) and event.reason else event)

    return plain


def fetch(request: Request, environment: Environment, sink: Sink, cancel: Cancel) -> Inputs:
    """Bring a remote context here."""
    from contextlib import closing

    from lamina.cli.remote import fetch_inputs
    from lamina.engine.fetch import fetch_files
    from lamina.llb import State

    options: dict[str, Any] = {**request.options}
    materials: list[tuple[str, str, str]] = []
    with closing(open_session(request, "", environment)) as session:

        def files(state: State, directory: str) -> None:
            policies = options["source_policies"]
            materials.extend(fetch_files(state, directory, session, environment, sink, cancel, policies))

        found = fetch_inputs(request.context, request.file, sys.stdin.buffer, files, options["build_args"])
        found.materials = materials
        return found


def open_session(request: Request, context: str, environment: Environment) -> LocalSession:
    """Return what this process offers to the build."""
    from pathlib import Path

    from lamina.cli.session import LocalSession, stored_credentials

    options: dict[str, Any] = {**request.options}
    return LocalSession(
        contexts={"context": context, **options["build_contexts"]},
        secrets=request.secrets,
        ssh=request.ssh or _agent_for(request.context),
        environ=os.environ,
        credentials=stored_credentials(environment.docker_config or Path(), environment.search_path),
    )


def _agent_for(path: str) -> dict[str, str]:
    """Return the user's SSH agent where the context itself is fetched by ssh."""
    agent = os.environ.get("SSH_AUTH_SOCK", "")
    return {"default": agent} if agent and path.startswith(("ssh://", "git@")) else {}


def _deliver(request: Request, config_digest: str, digest: str, metadata: dict[str, Any]) -> None:
    """Write the image ID and the metadata where they were asked for."""
    image_id = config_digest or digest
    if request.iidfile:
        _write_file(request.iidfile, image_id)
    if request.metadata_file:
        import json

        _write_file(request.metadata_file, json.dumps(metadata, indent=2, sort_keys=True) + "\n")
    if request.progress == "quiet" and image_id:
        print(image_id)
    sys.stdout.flush()


def _write_file(path: str, text: str) -> None:
    """Replace `path` by `text` in one step; a device such as /dev/stdout is written to."""
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "w") as file:
            file.write(text)
        return
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "w") as file:
            file.write(text)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
