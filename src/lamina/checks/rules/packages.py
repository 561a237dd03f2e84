"""Rules about installing packages."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

from lamina.checks.rules.shipping import shipped
from lamina.checks.shell import Command, commands_of
from lamina.checks.values import ADVICE, Hit, rule
from lamina.checks.view import StageView, Step, View
from lamina.dockerfile.instructions import Run, Shell, ShellForm

_APT = ("apt-get", "apt")
_APT_USES = (
    *("install", "reinstall", "upgrade", "dist-upgrade", "full-upgrade", "build-dep", "satisfy"),
    *("source", "download"),
)
_DIST_CLEAN = ("dist-clean", "distclean")
_RPM = ("yum", "dnf", "microdnf", "zypper")
_RPM_INSTALL = ("install", "in", "update", "up", "upgrade", "groupinstall")
_DOWNLOADERS = ("curl", "wget")
_NOTICE_AN_END = ("gunzip", "zcat", "bunzip2", "unxz", "xzcat", "bsdtar", "gpg", "gpg1", "gpg2", "apt-key", "grep")
"""What fails by itself when it is given nothing, or half of it."""
_PIPEFAIL = re.compile(r"pipefail")
_WILD = re.compile(r"[*?\[{]")


@rule("AptListsLeft", "The lists of apt should not stay in the image", severity=ADVICE, aliases=("DL3009",))
def apt_lists_left(view: View) -> Iterator[Hit]:
    """`apt-get update` writes tens of megabytes to /var/lib/apt/lists, and a later step cannot take them out again."""
    for step, commands in runs(shipped(view)):
        gone = _removes(commands, "/var/lib/apt/lists") or _calls(commands, _APT, _DIST_CLEAN)
        if _calls(commands, _APT, ("update",)) and not gone and not _alone(commands) and not _kept(step, "/apt"):
            yield Hit(
                "the lists of apt stay in the layer: end this RUN with rm -rf /var/lib/apt/lists/*, "
                "or mount a cache on /var/lib/apt",
                step.item.source,
            )


@rule("AptUpdateAlone", "apt-get update belongs into the RUN that installs", severity=ADVICE)
def apt_update_alone(view: View) -> Iterator[Hit]:
    """Alone it is cached as long as its line is: later installs use lists of that day, fail, or get old versions."""
    for step, commands in runs(view.stages):
        if _alone(commands) and not _kept(step, "/apt"):
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
    pip_off = bool(stages and stages[-1].end.env.get("PIP_NO_CACHE_DIR"))  # whatever its value, pip takes it for yes
    for step, commands in runs(stages):
        tidy: set[str] = {"pip"} if pip_off else set()
        for command in commands:
            kind = _fills(command)
            if not kind or kind in tidy:
                continue
            if not _cleans(kind, commands, step):
                yield Hit(f"{command.program} leaves its cache in the layer: {_REMEDIES[kind]}", step.item.source)
                break
            tidy.add(kind)


@rule("PipeHidesFailure", "A download that fails should fail the step", severity=ADVICE, aliases=("DL4006",))
def pipe_hides_failure(view: View) -> Iterator[Hit]:
    """The exit code of a pipe is that of its last command: a failed download into `sh` may pass for success."""
    safe_after: dict[int, bool] = {}
    for stage in view.stages:
        safe = stage.below is not None and safe_after.get(id(stage.below), False)
        for step in stage.steps:
            item = step.item
            if isinstance(item, Shell):
                safe = any(_PIPEFAIL.search(word) for word in item.args)
            if not isinstance(item, Run) or safe or not isinstance(item.command, ShellForm):
                continue
            if hidden := _hidden(commands_of(item)):
                download, then = hidden
                yield Hit(
                    f"if {download.program} fails, {then.program} still decides: "
                    f'write SHELL ["{_shell(stage)}", "-o", "pipefail", "-c"] before it, or download to a file',
                    item.source,
                )
        safe_after[id(stage)] = safe


def _hidden(commands: tuple[Command, ...]) -> tuple[Command, Command] | None:
    """Return the first download that is piped into what may not notice its failure."""
    for download, then in itertools.pairwise(commands):
        if download.program == "set" and download.has("pipefail"):
            return None
        if download.program in _DOWNLOADERS and then.operator == "|" and not _notices(then):
            return download, then
    return None


def _notices(command: Command) -> bool:
    """Tell whether a program fails at the end of a download that broke off: compressed data has an end of its own."""
    if command.program == "tar":
        letters = "".join(word.lstrip("-") for word in command.words[1:2] if not word.startswith("--"))
        short = "".join(word[1:] for word in command.words[1:] if re.fullmatch(r"-[a-zA-Z]+", word))
        return bool(set(letters + short) & set("zjJ")) or command.has("--gzip", "--xz", "--bzip2", "--zstd")
    return command.program in _NOTICE_AN_END or (command.program in ("gzip", "xz") and command.has("-d", "-dc", "-cd"))


def _shell(stage: StageView) -> str:
    """Return a shell that knows pipefail and is in the image, as far as its name tells."""
    while stage.below is not None:
        stage = stage.below
    return "/bin/ash" if "alpine" in stage.image.result else "/bin/bash"


def runs(stages: Iterable[StageView]) -> Iterator[tuple[Step, tuple[Command, ...]]]:
    """Yield the RUN steps of some stages with their commands."""
    for stage in stages:
        for step in stage.items(Run):
            assert isinstance(step.item, Run)
            yield step, commands_of(step.item)


def has_cache_mount(step: Step) -> bool:
    """Tell whether a RUN step has a mount that keeps what is in it between builds."""
    assert isinstance(step.item, Run)
    return any("type=cache" in mount for mount in step.item.mounts)


def pip_words(command: Command) -> tuple[str, ...]:
    """Return what pip is told, () when the command is not pip."""
    if command.program in ("pip", "pip3", "pip2"):
        return command.words[1:]
    if re.fullmatch(r"python[0-9.]*", command.program) and command.words[1:3] == ("-m", "pip"):
        return command.words[3:]
    return ()


def _alone(commands: tuple[Command, ...]) -> bool:
    """Tell whether the lists of apt are fetched and not used; other programs may use them in ways unknown here."""
    only_apt = all(command.program in (*_APT, "rm", "set", "echo") for command in commands)
    return only_apt and _calls(commands, _APT, ("update",)) and not _calls(commands, _APT, _APT_USES)


def _calls(commands: tuple[Command, ...], programs: tuple[str, ...], verbs: tuple[str, ...]) -> bool:
    """Tell whether a program is called with one of the verbs, wherever that stands among its options."""
    return any(command.program in programs and any(v in verbs for v in command.words[1:]) for command in commands)


def _removes(commands: tuple[Command, ...], *paths: str) -> bool:
    """Tell whether something under one of the paths, or a directory that they are in, is removed."""
    return any(
        command.program in ("rm", "find") and any(_takes_in(word, path) for word in command.arguments())
        for command in commands
        for path in paths
    )


def _takes_in(word: str, path: str) -> bool:
    plain = _WILD.split(word, maxsplit=1)[0]
    if word.startswith(path) or (len(plain) < len(word) and len(plain) > 1 and path.startswith(plain)):
        return True
    return len(word) > 1 and path.startswith(word.rstrip("/") + "/")


def _kept(step: Step, part: str) -> bool:
    """Tell whether a mount lies where a path with `part` in it is written: what is there is not in the layer."""
    assert isinstance(step.item, Run)
    return any(part in mount and re.search(r"type=(cache|tmpfs)", mount) for mount in step.item.mounts)


_REMEDIES = {
    "apk": "apk add --no-cache",
    "yum": "end this RUN with yum clean all",
    "dnf": "end this RUN with dnf clean all",
    "microdnf": "end this RUN with microdnf clean all",
    "zypper": "end this RUN with zypper clean",
    "pip": "pip install --no-cache-dir, or a cache mount on /root/.cache/pip",
}


def _fills(command: Command) -> str:
    """Return whose cache a command fills (a key of `_REMEDIES`), "" for none."""
    if command.program == "apk":
        asked = command.verb() in ("add", "update", "upgrade")
        return "apk" if asked and not command.has("--no-cache", "--no-network") else ""
    if command.program in _RPM:
        return command.program if command.verb() in _RPM_INSTALL else ""
    told = pip_words(command)
    verb = next((word for word in told if not word.startswith("-")), "")
    return "pip" if verb == "install" and not {"--no-cache-dir", "--no-cache"} & set(told) else ""


def _cleans(kind: str, commands: tuple[Command, ...], step: Step) -> bool:
    """Tell whether the step takes out of the layer what is in a cache, or never puts it there."""
    if kind == "apk":
        emptied = any(command.program == "apk" and command.verb() == "cache" for command in commands)
        return emptied or _removes(commands, "/var/cache/apk") or _kept(step, "apk")
    if kind == "pip":
        purged = any(pip_words(command)[:2] == ("cache", "purge") for command in commands)
        homes = ("/root/.cache/pip", "~/.cache/pip", "$HOME/.cache/pip", "${HOME}/.cache/pip")
        return purged or has_cache_mount(step) or _removes(commands, *homes)
    cleaned = any(c.program in _RPM and any(word in ("clean", "cc") for word in c.words[1:]) for c in commands)
    return cleaned or _removes(commands, f"/var/cache/{kind}", "/var/cache/libdnf5") or _kept(step, "/var/cache")
