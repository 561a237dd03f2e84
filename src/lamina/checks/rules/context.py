"""Rules about the build context."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from lamina.checks.shell import Command, commands_of
from lamina.checks.values import ADVICE, Hit, rule
from lamina.checks.view import Step, View
from lamina.dockerfile.instructions import Add, Copy, Instruction, Run

_REMOTE = re.compile(r"https?://|git@|git://|ssh://")
_EVERYTHING = ("*", "**", "**/*")


@rule("CopyIgnoredFile", "COPY and ADD should not name what the ignore file leaves out", buildkit=True)
def copy_ignored_file(view: View) -> Iterator[Hit]:
    """What is ignored is not in the build context, and the step will fail, or copy less than it says.

    An ignore file with exceptions (`!`) is not judged: they may bring back what the other lines leave out.
    """
    ignore = view.options.ignore
    if ignore is None or any(pattern.startswith("!") for pattern in ignore.patterns):
        return
    everything = any(pattern in _EVERYTHING for pattern in ignore.patterns)
    for step in view.steps(Copy, Add):
        if isinstance(step.item, Copy) and step.item.from_:
            continue
        for source in step.values:
            if isinstance(step.item, Add) and _REMOTE.match(source):
                continue
            path = posixpath.normpath(source)
            if path in (".", "/", "//"):
                if not everything:
                    continue
                path = "."
            if path == "." or ignore.ignored(path.lstrip("/")):
                yield Hit(
                    f"{step.item.keyword} names '{path}', which the ignore file leaves out of the build context: "
                    "change one of them",
                    step.item.source,
                )


_CREDENTIALS = re.compile(
    r"""\.env | \.netrc | _netrc | \.pypirc | \.git-credentials | \.htpasswd | id_(rsa|dsa|ecdsa|ed25519) | credentials
    | credentials\.json | service[-_]account.*\.json | (.*[-_.])?(private|priv)?key\.pem | .*\.(p12|pfx|kdbx)
    | kubeconfig | \.pgpass""",
    re.VERBOSE,
)
_BLOAT = (".git", "node_modules", ".venv", "venv", "__pycache__", ".terraform", ".gradle")
_ARCHIVE = re.compile(r"\.(tar|tgz|tbz2?|txz|tar\.[a-z0-9]+|gz|bz2|xz|zst|lzma)$", re.IGNORECASE)
_MANIFESTS: dict[str, tuple[str, ...]] = {
    "npm": ("package.json", "package-lock.json"),
    "yarn": ("package.json", "yarn.lock"),
    "pnpm": ("package.json", "pnpm-lock.yaml"),
    "pip": ("requirements.txt",),
    "poetry": ("pyproject.toml", "poetry.lock"),
    "uv": ("pyproject.toml", "uv.lock"),
    "bundle": ("Gemfile", "Gemfile.lock"),
    "composer": ("composer.json", "composer.lock"),
    "go": ("go.mod", "go.sum"),
}
_INSTALLS = {
    "npm": ("ci", "install", "i"),
    "yarn": ("", "install"),
    "pnpm": ("install", "i"),
    "pip": ("install",),
    "poetry": ("install",),
    "uv": ("sync",),
    "bundle": ("install",),
    "composer": ("install",),
    "go": ("mod",),
}


@rule("CredentialsCopied", "Files that hold secrets should not be copied into an image")
def credentials_copied(view: View) -> Iterator[Hit]:
    """They are in a layer for good, also when a later step removes them; everybody who pulls the image has them."""
    for step in view.steps(Copy, Add):
        for source in _local(step):
            name = posixpath.basename(posixpath.normpath(source))
            if _CREDENTIALS.fullmatch(name) and not source.endswith("/"):
                yield Hit(
                    f"'{source}' would be in the image for all to read: "
                    f"give it to the step that needs it, RUN --mount=type=secret,id={name.lstrip('.').lower()}",
                    step.item.source,
                )


@rule("ContextTooBroad", "What does not belong into the image should be in the ignore file", severity=ADVICE)
def context_too_broad(view: View) -> Iterator[Hit]:
    """`COPY . .` takes everything that the ignore file does not leave out: history, dependencies, local secrets.

    It makes images large, and every commit makes the step run again.
    """
    if view.options.list_context is None:
        return
    broad = [step for step in view.steps(Copy, Add) if any(_is_everything(source) for source in _local(step))]
    if not broad:
        return
    ignore = view.options.ignore
    there = []
    for entry in view.options.list_context(""):
        name = entry.rstrip("/")
        if name in _BLOAT or (_CREDENTIALS.fullmatch(name) and not entry.endswith("/")):
            excluded = isinstance(broad[0].item, Copy | Add) and name in broad[0].item.exclude
            if not excluded and (ignore is None or not ignore.ignored(name)):
                there.append(name)
    if there:
        names = ", ".join(f"'{name}'" for name in sorted(there)[:5])
        yield Hit(f"{names} would be copied with everything else: name it in .dockerignore", broad[0].item.source)


@rule("DependenciesNotFirst", "Files that name dependencies should be copied before the source", severity=ADVICE)
def dependencies_not_first(view: View) -> Iterator[Hit]:
    """A change of any source file makes the installation of all packages run again.

    Copied first, the files that name the packages decide alone whether the installation comes from the cache.
    """
    for stage in view.stages:
        everything: Instruction | None = None
        named: set[str] = set()
        for step in stage.steps:
            if isinstance(step.item, Copy | Add):
                sources = _local(step)
                if any(_is_everything(source) for source in sources):
                    everything = everything or step.item
                elif everything is None:
                    named.update(posixpath.basename(source) for source in sources)
            elif isinstance(step.item, Run) and everything is not None:
                for command in commands_of(step.item):
                    tool = _installs(command)
                    if tool and not _are_named(_MANIFESTS[tool], named):
                        yield Hit(
                            f"every change of a source file makes {command.program} install everything again: "
                            f"COPY {' '.join(_MANIFESTS[tool])} and install before this",
                            everything.source,
                        )
                        everything = None
                        break
                if everything is None:
                    break


@rule("AddCouldBeCopy", "COPY should be used where ADD does nothing more", severity=ADVICE, aliases=("DL3020",))
def add_could_be_copy(view: View) -> Iterator[Hit]:
    """ADD also downloads and unpacks, depending on what it is given; COPY says what happens."""
    for step in view.steps(Add):
        item = step.item
        assert isinstance(item, Add)
        if item.unpack is not None or item.checksum or item.keep_git_dir is not None or item.inline:
            continue
        plain = [source for source in step.values if source]
        if plain and not any(_REMOTE.match(s) or _ARCHIVE.search(s) or "*" in s or s.endswith(".git") for s in plain):
            yield Hit("ADD of local files does what COPY does, unless one is an archive: write COPY", item.source)


def _local(step: Step) -> list[str]:
    """Return what an instruction copies from the build context."""
    item = step.item
    if isinstance(item, Copy) and item.from_:
        return []
    return [source for source in step.values if source and not (isinstance(item, Add) and _REMOTE.match(source))]


def _is_everything(source: str) -> bool:
    return posixpath.normpath(source) in (".", "/", "//", "*")


def _installs(command: Command) -> str:
    """Return which tool's dependencies a command installs, "" for none."""
    program = {"pip3": "pip"}.get(command.program, command.program)
    if program not in _INSTALLS or command.verb() not in _INSTALLS[program]:
        return ""
    if program == "pip":
        return program if command.has("-r", "--requirement") else ""
    if program == "go":
        return program if command.words[1:3] == ("mod", "download") else ""
    if program in ("npm", "yarn", "pnpm") and len([word for word in command.words[1:] if not word.startswith("-")]) > 1:
        return ""  # names a package
    return "" if command.has("-g", "--global") else program


def _are_named(manifests: tuple[str, ...], named: set[str]) -> bool:
    stem = manifests[0].partition(".")[0]
    return any(name in manifests or name.startswith(stem) for name in named)
