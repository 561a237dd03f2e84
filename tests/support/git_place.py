"""A git source without a build around it, and specs for the repositories of a test server."""

from __future__ import annotations

import os
from pathlib import Path

from lamina.cancel import Cancel
from lamina.engine.library import PlainSession
from lamina.source.git import GitMachine, GitSource
from lamina.source.git_spec import GitSpec, parse_source
from lamina.state.locks import Locks
from support.git_server import Served

NOW = 1_600_000_000_000_000_000


class Place:
    """What stays on disk, and sources that work there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.lines: list[bytes] = []

    def source(self, secrets: dict[str, bytes] | None = None, ssh: dict[str, Path] | None = None) -> GitSource:
        """Return the git source of a new build."""
        self.count += 1
        scratch = self.folder / f"work{self.count}"
        scratch.mkdir(parents=True)
        session = PlainSession({}, secrets or {}, ssh or {}, {})
        machine = GitMachine(os.environ["PATH"], {}, "")
        return GitSource(self.folder / "git", scratch, Locks(self.folder / "locks"), session, machine)

    def get(self, spec: GitSpec, *, secrets: dict[str, bytes] | None = None, cancel: Cancel | None = None) -> Path:
        """Resolve and check out in a new build; return the files."""
        source, cancel = self.source(secrets), cancel or Cancel()
        out = self.folder / f"out{self.count}"
        out.mkdir()
        pin = source.resolve(spec, cancel)
        source.check_out(spec, pin, out, cancel, now_ns=NOW, log=self.lines.append)
        assert not list((self.folder / f"work{self.count}").iterdir()), "something was left behind"
        return out


def spec(server: Served, fragment: str = "", name: str = "r", **attrs: str) -> GitSpec:
    """Return the source for a repository of the server; attributes without their `git.`."""
    full = {"git.fullurl": f"{server.url}/{name}/.git"} | {f"git.{key}": value for key, value in attrs.items()}
    full |= {"git.authheadersecret": "GIT_AUTH_HEADER", "git.authtokensecret": "GIT_AUTH_TOKEN"}
    return parse_source(f"{server.host}/{name}/.git" + (f"#{fragment}" if fragment else ""), full)
