"""Rules about the dependencies of a program: npm, pip, go, cargo and their like, and when they are fetched again."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lamina.checks.rules.context import is_everything, local_sources
from lamina.checks.rules.packages import has_cache_mount, pip_words
from lamina.checks.rules.shipping import shipped
from lamina.checks.shell import Command, commands_of
from lamina.checks.values import ADVICE, Hit, rule
from lamina.checks.view import StageView, View
from lamina.dockerfile.instructions import Add, Copy, Instruction, Run


@dataclass(frozen=True, slots=True)
class _Tool:
    """What is known of a program that fetches dependencies.

    Attributes:
        cache: where it keeps what it has downloaded, for root.
        downloads: tells whether a command downloads something.
        installs: tells whether a command fetches all that the project's own list names.
        manifests: the files with that list, written as one would in COPY.
        remedy: what fetches by them alone.
    """

    cache: str
    downloads: Callable[[Command], bool]
    installs: Callable[[Command], bool]
    manifests: tuple[str, ...]
    remedy: str = "install"


def _verbs(*verbs: str) -> Callable[[Command], bool]:
    return lambda command: command.verb() in verbs


def _own_list(*verbs: str) -> Callable[[Command], bool]:
    """Return what tells of an `install` that names no package."""
    return lambda c: c.verb() in verbs and len(c.arguments()) < 2 and not c.has("-g", "--global")


def _pip_list(command: Command) -> bool:
    return any(word in ("-r", "--requirement") for word in command.words[1:])


def _go_builds(command: Command) -> bool:
    """Tell of a go that needs the modules of go.mod; `go install name@version` is another program's business."""
    return command.verb() in ("build", "install", "mod", "get") and not any("@" in word for word in command.words)


def _cargo_builds(command: Command) -> bool:
    installs_this = command.verb() == "install" and command.has("--path")
    return installs_this or command.verb() in ("build", "fetch") or _cooks(command)


def _cooks(command: Command) -> bool:
    """Tell of cargo chef building the dependencies; `cargo chef prepare` only lists them."""
    return command.arguments()[:2] == ["chef", "cook"]


_TOOLS: dict[str, _Tool] = {
    "npm": _Tool(
        "/root/.npm", _verbs("ci", "install", "i"), _own_list("ci", "install", "i"),
        ("package.json", "package-lock.json"),
    ),
    "pnpm": _Tool(
        "/root/.local/share/pnpm/store", _verbs("install", "i", "fetch"), _own_list("install", "i", "fetch"),
        ("package.json", "pnpm-lock.yaml"),
    ),
    "yarn": _Tool(
        "/usr/local/share/.cache/yarn", _verbs("", "install"), _own_list("", "install"), ("package.json", "yarn.lock")
    ),
    "pip": _Tool("/root/.cache/pip", _verbs("install"), _pip_list, ("requirements.txt",)),
    "uv": _Tool("/root/.cache/uv", _verbs("sync", "pip"), _verbs("sync"), ("pyproject.toml", "uv.lock")),
    "poetry": _Tool(
        "/root/.cache/pypoetry", _verbs("install"), _verbs("install"), ("pyproject.toml", "poetry.lock"),
        "install with --no-root",
    ),
    "bundle": _Tool("", lambda _: False, _verbs("install"), ("Gemfile", "Gemfile.lock")),
    "composer": _Tool(
        "/root/.composer/cache", _verbs("install"), _verbs("install"), ("composer.json", "composer.lock")
    ),
    "go": _Tool(
        "/go/pkg/mod", lambda c: c.verb() in ("build", "install") or c.words[1:3] == ("mod", "download"), _go_builds,
        ("go.mod", "go.sum"), "RUN go mod download",
    ),
    "cargo": _Tool(
        "/usr/local/cargo/registry", lambda c: c.verb() in ("build", "install", "fetch") or _cooks(c), _cargo_builds,
        ("Cargo.toml", "Cargo.lock"), "build the dependencies (cargo chef does)",
    ),
    "mvn": _Tool(
        "/root/.m2", lambda c: bool(c.verb()) and not c.has("-o"), lambda c: bool(c.verb()),
        ("pom.xml",), "RUN mvn dependency:go-offline",
    ),
    "gradle": _Tool(
        "/root/.gradle", lambda c: bool(c.verb()), lambda c: bool(c.verb()), ("build.gradle*", "settings.gradle*"),
        "RUN gradle dependencies",
    ),
}  # fmt: skip
_NAMES = {"mvnw": "mvn", "gradlew": "gradle", "pip3": "pip"}
_OFFLINE = ("--version", "--help", "--no-cache", "--no-cache-dir", "--offline")


def _tool(command: Command) -> tuple[str, Command] | None:
    """Return which of the tools a command calls, and the command as if it were called by its name."""
    if told := pip_words(command):
        return "pip", Command(("pip", *told))
    name = _NAMES.get(command.program, command.program)
    return (name, command) if name in _TOOLS else None


@rule("CacheMountUseful", "Package managers should keep their cache between builds", severity=ADVICE)
def cache_mount_useful(view: View) -> Iterator[Hit]:
    """When its inputs change the step runs again, and downloads all packages again, unless a mount kept them.

    Told once for a tool and the stages that follow each other: what an earlier step left in its layer is there. pip
    is told of in stages that are only copied from; in others PackageCacheLeft says more.
    """
    last = {id(stage) for stage in shipped(view)}
    after: dict[int, frozenset[str]] = {}
    for stage in view.stages:
        have = set(after.get(id(stage.below), frozenset()))
        for step in stage.items(Run):
            assert isinstance(step.item, Run)
            for command in () if has_cache_mount(step) else commands_of(step.item):
                called = _tool(command)
                if called is None or called[0] in have or not _downloads(*called):
                    continue
                have.add(called[0])
                if called[0] == "pip" and (id(stage) in last or stage.end.env.get("PIP_NO_CACHE_DIR")):
                    continue
                yield Hit(
                    f"{command.program} downloads everything again whenever this step runs: "
                    f"RUN --mount=type=cache,target={_target(_TOOLS[called[0]].cache, step.user)} keeps it",
                    step.item.source,
                )
                break
        after[id(stage)] = frozenset(have)


def _downloads(name: str, command: Command) -> bool:
    """Tell whether a command downloads what a cache would keep, and was not told to keep nothing."""
    asks_version = command.words[1:] in (("-v",), ("version",))
    return _TOOLS[name].downloads(command) and not asks_version and not command.has(*_OFFLINE)


def _target(cache: str, user: str) -> str:
    """Return where a user finds the cache, with the option that lets the user write there."""
    name = user.partition(":")[0]
    if name in ("", "root", "0"):
        return cache
    home = f"/home/{name}" if not name.isdigit() else "/home/..."
    return f"{cache.replace('/root', home)},uid={name if name.isdigit() else '...'}"


@rule("DependenciesNotFirst", "Files that name dependencies should be copied before the source", severity=ADVICE)
def dependencies_not_first(view: View) -> Iterator[Hit]:
    """A change of any source file makes the installation of all packages run again.

    Copied first, the files that name the packages decide alone whether the installation comes from the cache. Quiet
    where the tool ran before the source came, where its files came and some step could use them, and where a cache
    mount keeps what was downloaded.
    """
    after: dict[int, frozenset[str]] = {}
    for stage in view.stages:
        prepared = set(after.get(id(stage.below), frozenset()))
        yield from _look_at(stage, prepared, _without_dependencies(view))
        after[id(stage)] = frozenset(prepared)


def _look_at(stage: StageView, prepared: set[str], nothing_to_fetch: set[str]) -> Iterator[Hit]:
    """Yield the first hit of a stage; add to `prepared` the tools whose dependencies came before the source."""
    everything: Instruction | None = None
    named: set[str] = set()
    for step in stage.steps:
        if isinstance(step.item, Copy | Add):
            if everything is None and any(is_everything(source) for source in local_sources(step)):
                everything = step.item
            elif everything is None:
                for source in step.values:
                    named.update(_named_by(posixpath.basename(posixpath.normpath(source))))
        elif isinstance(step.item, Run):
            called = [found for command in commands_of(step.item) if (found := _tool(command))]
            installing = [name for name, command in called if _TOOLS[name].installs(command)]
            if everything is None:
                prepared.update(named, installing)
                continue
            for name in installing:
                if name not in prepared and name not in nothing_to_fetch and not has_cache_mount(step):
                    tool = _TOOLS[name]
                    yield Hit(
                        f"every change of a source file makes {name} fetch all dependencies again: "
                        f"COPY {' '.join(tool.manifests)} and {tool.remedy} before this",
                        everything.source,
                    )
                    return


def _named_by(name: str) -> Iterator[str]:
    """Yield the tools whose list of dependencies a file may be: `requirements/`, `requirements-dev.txt`, `go.*`."""
    for tool, known in _TOOLS.items():
        stem = known.manifests[0].partition(".")[0]
        if name and (name in known.manifests or (name.startswith(stem) and not name.startswith("build-"))):
            yield tool


def _without_dependencies(view: View) -> set[str]:
    """Return the tools that certainly have nothing to fetch: a Go module without go.sum uses no other."""
    listed = view.options.list_context
    if listed is None:
        return set()
    there = listed("")
    return {"go"} if "go.mod" in there and "go.sum" not in there else set()
