"""A finished image as the checks on it look at it: final tree, config, and what would be run.

In: a `FinalTree` (answers from indexes and file headers), the image's config, its platform. Out: an `ImageView` that
finds programs as a runtime would: PATH, working directory, links, all inside the image. Nothing is executed.

Invariant: what cannot be known (a file under a volume, a header nobody could read) is never called wrong.
Sources: OCI runtime-spec config.md ("process"), image-spec config.md, execve(2).
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from lamina.errors import InputError
from lamina.layer.entry import Entry
from lamina.layer.program import Program
from lamina.oci.platform import Platform

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHELLS = frozenset({"sh", "bash", "ash", "dash", "zsh", "ksh", "fish", "busybox"})
_FROM_OUTSIDE = ("proc", "sys", "dev", "run/secrets", "var/run/secrets")
_STARTERS = frozenset({"tini", "dumb-init", "catatonit", "docker-init", "tini-static"})
_MAX_WORDS = 1000
_MAX_OUTSIDE = 100


class FinalTree(Protocol):
    """The files of the image, read only. Paths have no leading "/"."""

    def lookup(self, path: str) -> Entry | None:
        """Return the entry at `path`, not followed; None when nothing is there."""

    def children(self, path: str) -> list[str]:
        """Return the sorted names in a directory."""

    def resolve(self, path: str, follow_last: bool = True) -> str:
        """Return `path` with links followed inside the root. Raises `InputError` for a loop."""

    def program(self, path: str, *, deep: bool = False, aside: bool = False) -> Program | None:
        """Return what a regular file is, None when that is not known. See `snapshot.peek`."""

    def text(self, path: str) -> bytes | None:
        """Return the content of a small file below /etc, None when it is not known."""

    def own_programs(self, folders: frozenset[str]) -> Iterator[str]:
        """Yield executable files that this build added in these directories, or at most one directory deep."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that will not work.

    Attributes:
        rule: the rule's id.
        message: what is wrong and how to mend it, one line.
        about: the instruction that it is about: "ENTRYPOINT", "CMD", "HEALTHCHECK", "USER", "WORKDIR", "ENV", or ""
            for files.
        detail: more lines.
    """

    rule: str
    message: str
    about: str = ""
    detail: tuple[str, ...] = ()


class Command(NamedTuple):
    """Something that the image would run: from which instruction, its words, and whether a shell takes them."""

    about: str
    words: tuple[str, ...]
    by_shell: bool


class Place(NamedTuple):
    """Where a path leads: without links, what is there, and the text of a link that leads nowhere."""

    path: str
    entry: Entry | None
    dangling: str = ""

    @property
    def is_file(self) -> bool:
        """There is a regular file."""
        return self.entry is not None and self.entry.kind == "f"


@dataclass(slots=True)
class ImageView:
    """One finished image.

    Attributes:
        tree: its files.
        config: the `config` object of the image's config.
        platform: what it says it runs on.
    """

    tree: FinalTree
    config: Mapping[str, Any]
    platform: Platform
    env: dict[str, str] = field(init=False)
    _outside: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.env = {}
        volumes = self.config.get("Volumes")
        roots = [*_FROM_OUTSIDE, *(volumes if isinstance(volumes, Mapping) else ())][:_MAX_OUTSIDE]
        self._outside = tuple(root.strip("/") + "/" for root in roots)
        for line in self.config.get("Env") or ():
            name, _, value = str(line).partition("=")
            self.env[name] = value

    @property
    def workdir(self) -> str:
        """The working directory, absolute."""
        return posixpath.join("/", str(self.config.get("WorkingDir") or "/"))

    @property
    def search_path(self) -> list[str]:
        """The directories of PATH, in order."""
        return [part for part in self.env.get("PATH", DEFAULT_PATH).split(":") if part]

    @property
    def user_id(self) -> int | None:
        """The uid that is run as; None when only a name is given that is not "root"."""
        name = str(self.config.get("User") or "0").partition(":")[0]
        if name.isascii() and name.isdigit():
            return int(name[:10])
        return 0 if name in ("", "root") else None

    def commands(self) -> Iterator[Command]:
        """Yield what the container runs, then its health check."""
        entrypoint = _words(self.config.get("Entrypoint"))
        words = entrypoint + _words(self.config.get("Cmd"))
        if words and words[0]:
            yield Command("ENTRYPOINT" if entrypoint else "CMD", words, _is_shell(words))
        health = self.config.get("Healthcheck")
        test = _words(health.get("Test")) if isinstance(health, Mapping) else ()
        if test[:1] == ("CMD",) and len(test) > 1:
            yield Command("HEALTHCHECK", test[1:], _is_shell(test[1:]))
        elif test[:1] == ("CMD-SHELL",):
            shell = _words(self.config.get("Shell")) or ("/bin/sh", "-c")
            yield Command("HEALTHCHECK", (*shell, *test[1:]), True)

    def place(self, path: str) -> Place:
        """Return where an absolute path leads; "" as its path for a loop of links."""
        try:
            real = self.tree.resolve(path)
            entry = self.tree.lookup(real)
            if entry is not None:
                return Place(real, entry)
            last = self.tree.lookup(self.tree.resolve(path, follow_last=False))
        except InputError:
            return Place("", None, "itself")
        return Place(real, None, last.target if last is not None and last.kind == "l" else "")

    def absolute(self, path: str) -> str:
        """Return a path as seen from the working directory."""
        return posixpath.normpath(posixpath.join(self.workdir, path))

    def from_outside(self, path: str) -> bool:
        """Tell whether a container may have something else there: a volume, or what the runtime mounts."""
        whole = path.strip("/") + "/"
        return any(whole.startswith(root) for root in self._outside)

    def find(self, name: str) -> tuple[str, Place]:
        """Return the path that running `name` would take, and where it leads.

        A name without "/" is looked for in PATH; a file that may not be executed is passed over, but told when
        nothing else is found. The path is "" when there is nothing of that name.
        """
        if "/" in name:
            path = self.absolute(name)
            return path, self.place(path)
        second: tuple[str, Place] = ("", Place("", None))
        for folder in self.search_path:
            path = self.absolute(posixpath.join(folder, name))
            place = self.place(path)
            if place.entry is not None and place.is_file and place.entry.mode & 0o111:
                return path, place
            if not second[0] and (place.entry is not None or place.dangling):
                second = path, place
        return second

    def has_program(self, name: str) -> bool:
        """Tell whether running `name` finds a file, or may find one in a container."""
        path, place = self.find(name)
        if place.is_file or (path and self.from_outside(path)):
            return True
        return any(self.from_outside(folder) for folder in self.search_path) if "/" not in name else False


def started(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command behind a small init such as `tini -- app`; the words themselves where there is none."""
    if words and posixpath.basename(words[0]) in _STARTERS and "--" in words:
        return words[words.index("--") + 1 :]
    return ()


def _words(value: Any) -> tuple[str, ...]:
    return tuple(str(word) for word in value[:_MAX_WORDS]) if isinstance(value, list | tuple) else ()


def _is_shell(words: tuple[str, ...]) -> bool:
    """Tell the shell form, or what was written out to mean the same: a shell, options, `-c`."""
    return posixpath.basename(words[0]) in _SHELLS and any(
        word.startswith("-") and not word.startswith("--") and word.endswith("c") for word in words[1:4]
    )
