"""Rules about what is shipped: the user, the health check, the layers of the stage that is built."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lamina.checks.shell import commands_of
from lamina.checks.values import ADVICE, Hit, rule
from lamina.checks.view import StageView, Step, View
from lamina.dockerfile.instructions import Add, Cmd, Copy, Entrypoint, Expose, Healthcheck, Run, ShellForm, User

_ROOT = ("", "0", "root")
_PROMPT = re.compile(r"sh|bash|ash|dash|zsh|python[0-9.]*|node|irb|jshell|iex|ghci|julia|R|lua|perl")
"""What waits for somebody to type when it is started without arguments."""
_STEP_DOWN = ("gosu", "su-exec", "setuidgid", "s6-setuidgid", "setpriv", "chpst")
_MANY = 3
_ALREADY_JOINED = 4
"""So many commands in a RUN make it one that somebody has put together."""


def shipped(view: View) -> list[StageView]:
    """Return the stages that the result consists of: the one that is built, and those it is based on."""
    found: list[StageView] = []
    stage = view.target
    while stage is not None and len(found) <= len(view.stages):
        found.append(stage)
        stage = stage.below
    return found[::-1]


@rule("RunsAsRoot", "The image should run as a user of its own", severity=ADVICE, aliases=("DL3002",), needs_bases=True)
def runs_as_root(view: View) -> Iterator[Hit]:
    """Who breaks into a program that runs as root has every file of the container, and a shorter way out of it.

    Only images that are run are judged: there is a CMD or an ENTRYPOINT, and it is more than a prompt to type into. Of
    an unknown base image nothing is said, nor of images with a tool to step down to another user when they start.
    """
    stages = shipped(view)
    if not stages:
        return
    steps = [step for stage in stages for step in stage.steps]
    if not _is_run(steps, _config(stages[0].config)) or _steps_down(stages):
        return
    user = stages[-1].end.user.partition(":")[0]
    named = [step for step in steps if isinstance(step.item, User)]
    if user not in _ROOT or (not named and not stages[0].sure):
        return
    if named and not user:
        return  # a variable that nobody knows here
    source = named[-1].item.source if named else stages[-1].source
    yield Hit("the image runs as root: make a user and end with USER", source)


def _is_run(steps: list[Step], config: Mapping[str, Any]) -> bool:
    """Tell whether an image has a program to start; a prompt alone says that it is a base, or for people."""
    entry, command = _words(steps, config, Entrypoint), _words(steps, config, Cmd)
    if any(isinstance(step.item, Entrypoint) for step in steps) and not any(isinstance(s.item, Cmd) for s in steps):
        command = []  # ENTRYPOINT clears what the base image said
    wrapped = len(entry) == 1 and entry[0].endswith(".sh")
    program = command if wrapped and command else entry + command
    return bool(program) and not (len(program) == 1 and _PROMPT.fullmatch(program[0].rpartition("/")[2]))


def _words(steps: list[Step], config: Mapping[str, Any], kind: type[Cmd | Entrypoint]) -> list[str]:
    """Return the words of the last CMD or ENTRYPOINT, or of the base image's; the text of a shell form is one."""
    named = [step.item for step in steps if isinstance(step.item, kind)]
    if named:
        command = named[-1].command
        return [command.text] if isinstance(command, ShellForm) else list(command.args)
    inherited = config.get(kind.__name__)
    return [str(word) for word in inherited] if isinstance(inherited, list) else []


def _steps_down(stages: list[StageView]) -> bool:
    """Tell whether the image has what entry points use to go on as another user (gosu, in many official images)."""
    if "GOSU_VERSION" in stages[-1].end.env:
        return True
    for stage in stages:
        for step in stage.items(Run, Copy, Add):
            if isinstance(step.item, Run):
                if any(word.rpartition("/")[2] in _STEP_DOWN for c in commands_of(step.item) for word in c.words):
                    return True
            elif any(source.rpartition("/")[2] in _STEP_DOWN for source in step.values):
                return True
    return False


@rule(
    "HealthcheckMissing",
    "An image that listens should say how to see that it is well",
    severity=ADVICE,
    aliases=("DL3057",),
)
def healthcheck_missing(view: View) -> Iterator[Hit]:
    """Without it a program that hangs counts as running; docker, compose and swarm act on what HEALTHCHECK says.

    Judged only where a port is exposed. Kubernetes has probes of its own and takes no notice.
    """
    stages = shipped(view)
    steps = [step for stage in stages for step in stage.steps]
    ports = [step for step in steps if isinstance(step.item, Expose)]
    if not ports or any(isinstance(step.item, Healthcheck) for step in steps):
        return
    if not _config(stages[0].config).get("Healthcheck"):
        yield Hit(
            "a port is exposed, but nothing says whether the program is well: add HEALTHCHECK (or HEALTHCHECK NONE)",
            ports[-1].item.source,
        )


@rule("SeveralRuns", "RUN instructions that follow each other can be one", severity=ADVICE, aliases=("DL3059",))
def several_runs(view: View) -> Iterator[Hit]:
    """Each is a layer of its own: what one writes and the next removes is still pulled by everybody.

    Three in a row are told, and only in stages that are shipped; those with mounts or options are left alone, and those
    that already join several commands.
    """
    for stage in shipped(view):
        row: list[Step] = []
        for step in (*stage.steps, None):
            if step is not None and _is_plain(step):
                row.append(step)
                continue
            if len(row) >= _MANY:
                yield Hit(
                    f"{len(row)} RUN instructions in a row make {len(row)} layers: join what belongs together with &&",
                    row[0].item.source,
                )
            row = []


@rule("SudoInRun", "RUN should not use sudo", severity=ADVICE, aliases=("DL3004",))
def sudo_in_run(view: View) -> Iterator[Hit]:
    """A step runs as the user that USER says; sudo needs a password or a hole in the image, and hides signals."""
    for step in view.steps(Run):
        assert isinstance(step.item, Run)
        if any(command.sudo for command in commands_of(step.item)):
            yield Hit("sudo in a step: switch with USER root, and back", step.item.source)


def _is_plain(step: Step) -> bool:
    item = step.item
    if not isinstance(item, Run) or item.mounts or item.network or item.security or item.devices:
        return False
    if not isinstance(item.command, ShellForm) or item.command.heredocs:
        return False
    return sum(command.operator in ("", "&&", ";", "\n") for command in commands_of(item)) < _ALREADY_JOINED


def _config(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    inner = (config or {}).get("config")
    return inner if isinstance(inner, dict) else {}
