"""Rules about the build context."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from lamina.checks.rules.shipping import shipped
from lamina.checks.values import ADVICE, Hit, rule
from lamina.checks.view import Step, View
from lamina.dockerfile.instructions import Add, Copy

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
    r"""\.env(\.([a-z]+\.)?local)? | \.netrc | _netrc | \.pypirc | \.git-credentials | \.htpasswd
    | id_(rsa|dsa|ecdsa|ed25519) | credentials
    | credentials\.json | service[-_]account.*\.json | (.*[-_.])?(private|priv)?key\.pem
    | (.*[-_.])?(server|tls|ssl|private|client|localhost|master|selfsigned)\.key | .*\.(p12|pfx|kdbx)
    | kubeconfig | \.pgpass""",
    re.VERBOSE,
)
_BLOAT = (".git", "node_modules", ".venv", "venv", "__pycache__", ".terraform", ".gradle")
_ARCHIVE = re.compile(r"\.(tar|tgz|tbz2?|txz|tar\.[a-z0-9]+|gz|bz2|xz|zst|lzma)$", re.IGNORECASE)


@rule("CredentialsCopied", "Files that hold secrets should not be copied into an image")
def credentials_copied(view: View) -> Iterator[Hit]:
    """They are in a layer for good, also when a later step removes them; everybody who pulls the image has them.

    In a stage that is only copied from they are in the build cache, which is shared too.
    """
    last = {id(stage) for stage in shipped(view)}
    for stage in view.stages:
        where = "image" if id(stage) in last else "build cache"
        for step in stage.items(Copy, Add):
            for source in local_sources(step):
                name = posixpath.basename(posixpath.normpath(source))
                if _CREDENTIALS.fullmatch(name) and not _is_directory(view, source):
                    yield Hit(
                        f"'{source}' would be in the {where} for all to read: "
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
    broad = [step for step in view.steps(Copy, Add) if any(is_everything(source) for source in local_sources(step))]
    if not broad:
        return
    ignore = view.options.ignore
    there = []
    entries = view.options.list_context("")
    built = {"target"} if "Cargo.toml" in entries or "pom.xml" in entries else set()
    for entry in entries:
        name = entry.rstrip("/")
        if name in _BLOAT or name in built or (_CREDENTIALS.fullmatch(name) and not entry.endswith("/")):
            excluded = isinstance(broad[0].item, Copy | Add) and name in broad[0].item.exclude
            if not excluded and (ignore is None or not ignore.ignored(name)):
                there.append(name)
    if there:
        names = ", ".join(f"'{name}'" for name in sorted(there)[:5])
        yield Hit(f"{names} would be copied with everything else: name it in .dockerignore", broad[0].item.source)


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


def _is_directory(view: View, source: str) -> bool:
    """Tell whether a source is a directory of the build context, as it is written or as it lies there."""
    if source.endswith("/"):
        return True
    folder, name = posixpath.split(posixpath.normpath(source).lstrip("/"))
    return view.options.list_context is not None and f"{name}/" in view.options.list_context(folder)


def local_sources(step: Step) -> list[str]:
    """Return what an instruction copies from the build context."""
    item = step.item
    if isinstance(item, Copy) and item.from_:
        return []
    return [source for source in step.values if source and not (isinstance(item, Add) and _REMOTE.match(source))]


def is_everything(source: str) -> bool:
    """Tell whether a source is the whole build context."""
    return posixpath.normpath(source) in (".", "/", "//", "*")
