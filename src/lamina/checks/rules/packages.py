"""Rules about installing packages."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator

from lamina.checks.rules.shipping import shipped
from lamina.checks.shell import Command, commands_of
from lamina.checks.values import ADVICE, Hit, rule
from lamina.checks.view import StageView, Step, View
from lamina.dockerfile.instructions import Run, Shell, ShellForm

_APT = ("apt-get", "apt")
_APT_USES = ("install", "upgrade", "dist-upgrade", "full-upgrade", "build-dep", "satisfy")
_INSTALL = ("install", "add", "in")
_DOWNLOADERS = ("curl", "wget")
_PIPEFAIL = re.compile(r"pipefail")
_NO_CACHE = ("1", "true", "on", "yes")


@rule("AptListsLeft", "The lists of apt should not stay in the image", severity=ADVICE, aliases=("DL3009",))
def apt_lists_left(view: View) -> Iterator[Hit]:
    """`apt-get update` writes tens of megabytes to /var/lib/apt/lists, and a later step cannot take them out again."""
    for step, commands in _runs(shipped(view)):
        if _calls(commands, _APT, ("update",)) and not _removes(commands, "/var/lib/apt") and not _kept(step, "/apt"):
            yield Hit(
                "the lists of apt stay in the layer: end this RUN with rm -rf /var/lib/apt/lists/*, "
                "or mount a cache on /var/lib/apt",
                step.item.source,
            )


@rule("AptUpdateAlone", "apt-get update belongs into the RUN that installs", severity=ADVICE)
def apt_update_alone(view: View) -> Iterator[Hit]:
    """Alone it is cached as long as its line is: later installs use lists of that day, fail, or get old versions."""
    for step, commands in _runs(view.stages):
        only_apt = all(command.program in (*_APT, "rm", "set", "echo") for command in commands)
        alone = only_apt and _calls(commands, _APT, ("update",)) and not _calls(commands, _APT, _APT_USES)
        if alone and not _kept(step, "/apt"):
            yield Hit(
                "apt-get update alone is cached while what it fetched grows old: "
                "write apt-get update && apt-get install ... in one RUN",
                step.item.source,
            )


@rule(
    "PackageCacheLeft",
    "Caches of package managers should not stay in the image",
    severity=ADVICE,
    aliases=("DL3019", "DL3032", "DL3036", "DL3040", "DL3042", "DL3060"),
)
def package_cache_left(view: View) -> Iterator[Hit]:
    """What was downloaded is in the layer beside what was installed, and nobody uses it again."""
    stages = shipped(view)
    env = stages[-1].end.env if stages else {}
    for step, commands in _runs(stages):
        for command in commands:
            if remedy := _leaves_cache(command, commands, step, env):
                yield Hit(f"{command.program} leaves its cache in the layer: {remedy}", step.item.source)
                break


@rule("CacheMountUseful", "Package managers should keep their cache between builds", severity=ADVICE)
def cache_mount_useful(view: View) -> Iterator[Hit]:
    """When its inputs change the step runs again, and downloads all packages again, unless a mount kept them."""
    stages = [stage for stage in view.stages if stage.reachable]
    for step, commands in _runs(stages):
        for command in commands:
            target = _cache_of(command)
            if target and not _has_cache_mount(step):
                yield Hit(
                    f"{command.program} downloads everything again whenever this step runs: "
                    f"RUN --mount=type=cache,target={target} keeps it",
                    step.item.source,
                )
                break


@rule("PipeHidesFailure", "A download that fails should fail the step", severity=ADVICE, aliases=("DL4006",))
def pipe_hides_failure(view: View) -> Iterator[Hit]:
    """The exit code of a pipe is that of its last command: a failed download into `sh` may pass for success."""
    for stage in view.stages:
        safe = False
        for step in stage.steps:
            if isinstance(step.item, Shell):
                safe = any(_PIPEFAIL.search(word) for word in step.item.args)
            item = step.item
            if not isinstance(item, Run) or safe or not isinstance(item.command, ShellForm):
                continue
            commands = commands_of(item)
            if any(command.program == "set" and command.has("pipefail") for command in commands):
                continue
            for command, then in itertools.pairwise(commands):
                if command.program in _DOWNLOADERS and then.operator == "|":
                    yield Hit(
                        f"if {command.program} fails, {then.program} still decides: "
                        'write SHELL ["/bin/bash", "-o", "pipefail", "-c"] before it, or download to a file',
                        item.source,
                    )
                    break


def _runs(stages: list[StageView] | tuple[StageView, ...]) -> Iterator[tuple[Step, tuple[Command, ...]]]:
    for stage in stages:
        for step in stage.items(Run):
            assert isinstance(step.item, Run)
            yield step, commands_of(step.item)


def _calls(commands: tuple[Command, ...], programs: tuple[str, ...], verbs: tuple[str, ...]) -> bool:
    return any(command.program in programs and command.verb() in verbs for command in commands)


def _removes(commands: tuple[Command, ...], path: str) -> bool:
    return any(
        command.program in ("rm", "find") and any(word.startswith(path) for word in command.words[1:])
        for command in commands
    )


def _kept(step: Step, part: str) -> bool:
    """Tell whether a mount lies where a path with `part` in it is written: what is there is not in the layer."""
    assert isinstance(step.item, Run)
    return any(part in mount and re.search(r"type=(cache|tmpfs)", mount) for mount in step.item.mounts)


def _has_cache_mount(step: Step) -> bool:
    assert isinstance(step.item, Run)
    return any("type=cache" in mount for mount in step.item.mounts)


def _leaves_cache(command: Command, commands: tuple[Command, ...], step: Step, env: dict[str, str]) -> str:
    """Return what to do about what a command leaves behind, "" when it leaves nothing."""
    if command.program == "apk" and command.verb() == "add":
        if command.has("--no-cache") or _removes(commands, "/var/cache/apk") or _kept(step, "apk"):
            return ""
        return "apk add --no-cache"
    if command.program in ("yum", "dnf", "microdnf", "zypper") and command.verb() in _INSTALL:
        cleans = any(other.program == command.program and other.verb() in ("clean", "cc") for other in commands)
        if cleans or _removes(commands, "/var/cache") or _kept(step, "/var/cache"):
            return ""
        return f"end this RUN with {command.program} clean{' all' if command.program != 'zypper' else ''}"
    if _is_pip(command):
        off = env.get("PIP_NO_CACHE_DIR", "").lower() in _NO_CACHE
        if off or command.has("--no-cache-dir") or _has_cache_mount(step) or _removes(commands, "/root/.cache"):
            return ""
        return "pip install --no-cache-dir, or a cache mount on /root/.cache/pip"
    return ""


def _is_pip(command: Command) -> bool:
    if command.program in ("pip", "pip3", "pip2"):
        return command.verb() == "install"
    if re.fullmatch(r"python[0-9.]*", command.program) and command.words[1:3] == ("-m", "pip"):
        return "install" in command.words[3:5]
    return False


_CACHES: dict[str, tuple[Callable[[Command], bool], str]] = {
    "npm": (lambda c: c.verb() in ("ci", "install", "i"), "/root/.npm"),
    "pnpm": (lambda c: c.verb() in ("install", "i", "fetch"), "/root/.local/share/pnpm/store"),
    "yarn": (lambda c: c.verb() in ("", "install"), "/usr/local/share/.cache/yarn"),
    "uv": (lambda c: c.verb() in ("sync", "pip") and not c.has("--no-cache"), "/root/.cache/uv"),
    "poetry": (lambda c: c.verb() == "install", "/root/.cache/pypoetry"),
    "go": (lambda c: c.verb() in ("build", "install") or c.words[1:3] == ("mod", "download"), "/go/pkg/mod"),
    "cargo": (lambda c: c.verb() in ("build", "install", "fetch"), "/usr/local/cargo/registry"),
    "mvn": (lambda c: bool(c.verb()) and not c.has("-o", "--offline"), "/root/.m2"),
    "gradle": (lambda c: bool(c.verb()) and not c.has("--offline"), "/root/.gradle"),
    "composer": (lambda c: c.verb() == "install", "/root/.composer/cache"),
}


def _cache_of(command: Command) -> str:
    """Return where the program keeps what it downloads, "" when it downloads nothing or was told to keep nothing."""
    program = {"mvnw": "mvn", "gradlew": "gradle"}.get(command.program, command.program)
    downloads, target = _CACHES.get(program, (None, ""))
    if downloads is None or command.has("--version", "-v", "--help") or command.has("--no-cache-dir"):
        return ""
    return target if downloads(command) else ""
