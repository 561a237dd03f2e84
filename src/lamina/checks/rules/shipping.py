"""Rules about what is shipped: the user, the health check, the layers of the stage that is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lamina.checks.shell import commands_of
from lamina.checks.values import ADVICE, Hit, rule
from lamina.checks.view import StageView, Step, View
from lamina.dockerfile.instructions import Cmd, Entrypoint, Expose, Healthcheck, Run, ShellForm, User

_ROOT = ("", "0", "root")
_MANY = 3


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

    Only images that are run are judged: there is a CMD or an ENTRYPOINT. Of an unknown base image nothing is said.
    """
    stages = shipped(view)
    if not stages:
        return
    config = _config(stages[0].config)
    steps = [step for stage in stages for step in stage.steps]
    runs = any(isinstance(step.item, Cmd | Entrypoint) for step in steps)
    if not runs and not (config.get("Cmd") or config.get("Entrypoint")):
        return
    user = stages[-1].end.user.partition(":")[0]
    named = [step for step in steps if isinstance(step.item, User)]
    if user not in _ROOT or (not named and not stages[0].sure):
        return
    if named and not user:
        return  # a variable that nobody knows here
    source = named[-1].item.source if named else stages[-1].source
    yield Hit("the image runs as root: make a user and end with USER", source)


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

    Three in a row are told, and only in stages that are shipped; those with mounts or options are left alone.
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
    return isinstance(item.command, ShellForm) and not item.command.heredocs


def _config(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    inner = (config or {}).get("config")
    return inner if isinstance(inner, dict) else {}
