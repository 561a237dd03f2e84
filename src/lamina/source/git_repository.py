"""A bare repository that holds what was fetched from one remote, kept between builds.

Each object that was asked for stands under `refs/lamina/<hash>` once it is here with all that belongs to it: that ref
is what says "here", and it is written by git after the pack and its check. One process fetches at a time (the caller
holds the remote's lock). A repository that a crash or a disk spoiled is thrown away and fetched anew.

Must not: gc, follow the remote's own refs (only hashes are fetched: a ref that moves meanwhile changes nothing).
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from lamina.cancel import Cancel
from lamina.errors import NetworkError
from lamina.git_url import GitRemote
from lamina.source.git_program import Access, GitError, GitProgram, Log
from lamina.source.git_spec import Pin

_NO_SHALLOW = re.compile(r"shallow|--depth")
_NOT_ADVERTISED = re.compile(r"not our ref|unadvertised object|no such remote ref|couldn't find remote ref")
_DAMAGED = re.compile(
    r"not a git repository|unable to create '[^']*\.lock'|\.lock': File exists|bad object|corrupt|is empty|"
    r"unable to read (?:sha1 file|tree|[0-9a-f]{40})|missing (?:blob|tree|commit)|did not send all necessary objects|"
    r"cannot lock ref|invalid sha1 pointer|loose object|packfile",
    re.IGNORECASE,
)
_REFUSED = re.compile(
    r"could not read Username|Authentication failed|HTTP 40[13]|error: 40[13]|Permission denied|prompts disabled"
)
_UNREACHED = re.compile(
    r"Could not resolve|Connection|connect|timed out|unable to access|early EOF|remote end hung up|RPC failed|"
    r"not found|does not appear to be a git repository|Host key verification failed",
    re.IGNORECASE,
)


class GitRepository:
    """One remote's objects on this machine. Methods that write need the remote's lock.

    Args:
        path: where it is, or will be.
        remote: where its objects come from.
    """

    def __init__(self, path: Path, remote: GitRemote, git: GitProgram) -> None:
        self.path, self._remote, self._git = path, remote, git

    def has(self, name: str, cancel: Cancel) -> bool:
        """Tell whether object `name` is here with all that belongs to it."""
        if not (self.path / "HEAD").exists():
            return False
        try:
            self._run(["rev-parse", "--verify", "--quiet", f"{kept_ref(name)}^{{commit}}"], cancel)
        except GitError:
            return False
        return True

    def commit_of(self, name: str, cancel: Cancel) -> str:
        """Return the commit that an object which is here stands for."""
        return self._run(["rev-parse", "--verify", f"{kept_ref(name)}^{{commit}}"], cancel).decode("ascii").strip()

    def fetch(self, pin: Pin, access: Access, cancel: Cancel, log: Log) -> None:
        """Bring an object here; no more of the history than the server makes us.

        Raises:
            NetworkError: the remote cannot be reached, refuses, or has no such object.
        """
        try:
            try:
                self._fetch(pin, access, cancel, log)
            except GitError as error:
                if not is_damage(error):
                    raise
                self.remove()
                self._fetch(pin, access, cancel, log)
        except GitError as error:
            raise explain(error, self._remote) from None

    def remove(self) -> None:
        """Throw away what is here."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _fetch(self, pin: Pin, access: Access, cancel: Cancel, log: Log) -> None:
        self._create(pin.object_format, cancel)
        (self.path / "shallow.lock").unlink(missing_ok=True)  # left by a killed fetch; we hold the remote's lock
        wanted = f"+{pin.object}:{kept_ref(pin.object)}"
        try:
            self._fetch_depth_1_or_all([wanted], access, cancel, log)
        except GitError as error:
            if not _NOT_ADVERTISED.search(error.text):
                raise
            refspecs = ["+refs/heads/*:refs/remote/heads/*", "+refs/tags/*:refs/remote/tags/*"]
            if pin.ref and not pin.ref.startswith(("refs/heads/", "refs/tags/")):
                refspecs.append(f"+{pin.ref}:refs/remote/other")
            self._fetch_some(["--prune", *self._unshallow()], refspecs, access, cancel, log)
        if not self.has(pin.object, cancel):
            self._keep(pin, cancel)

    def _fetch_depth_1_or_all(self, refspecs: list[str], access: Access, cancel: Cancel, log: Log) -> None:
        """Fetch one commit; from a server that cannot cut the history off, with all of it."""
        try:
            self._fetch_some(["--depth=1"], refspecs, access, cancel, log)
        except GitError as error:
            if not _NO_SHALLOW.search(error.text):
                raise
            self._fetch_some(self._unshallow(), refspecs, access, cancel, log)

    def _fetch_some(self, options: list[str], refspecs: list[str], access: Access, cancel: Cancel, log: Log) -> None:
        fixed = ["fetch", "--no-tags", "--no-write-fetch-head", "--force", "--progress"]
        arguments = [*fixed, *options, "--", self._remote.address, *refspecs]
        self._git.run(arguments, cancel, git_dir=self.path, access=access, log=log)

    def _unshallow(self) -> list[str]:
        """With the whole history wanted, what earlier fetches cut off is wanted too."""
        return ["--unshallow"] if (self.path / "shallow").exists() else []

    def _keep(self, pin: Pin, cancel: Cancel) -> None:
        """After a fetch of everything: is the object among it?"""
        try:
            self._run(["cat-file", "-e", f"{pin.object}^{{commit}}"], cancel)
        except GitError:
            raise NetworkError(
                f"the repository has no commit {pin.object}",
                where=self._remote.address,
                hint="it may have been removed by a forced push",
            ) from None
        self._run(["update-ref", kept_ref(pin.object), pin.object], cancel)

    def _create(self, object_format: str, cancel: Cancel) -> None:
        """Make the repository if there is none; it appears by rename."""
        if (self.path / "HEAD").exists():
            return
        shutil.rmtree(self.path, ignore_errors=True)
        making = self.path.with_name(f"{self.path.name}.new")
        shutil.rmtree(making, ignore_errors=True)
        init = ["init", "--quiet", "--bare", "--template=", f"--object-format={object_format}", "--", str(making)]
        self._git.run(init, cancel)
        (making / "description").write_text(self._remote.address + "\n", "utf-8")
        os.rename(making, self.path)

    def _run(self, arguments: list[str], cancel: Cancel) -> bytes:
        return self._git.run(arguments, cancel, git_dir=self.path)


def kept_ref(name: str) -> str:
    """Return the ref in the bare repository that says that object `name` is here."""
    return f"refs/lamina/{name}"


def is_damage(error: GitError) -> bool:
    """Tell whether git complains of the repository on this machine."""
    return _DAMAGED.search(error.text) is not None


def explain(error: GitError, remote: GitRemote) -> NetworkError | GitError:
    """Return what went wrong between us and a remote in words that help."""
    text, where = error.text, remote.address
    if _REFUSED.search(text):
        by = "--ssh default" if remote.scheme == "ssh" else "--secret id=GIT_AUTH_TOKEN,env=..."
        return NetworkError(f"git may not read the repository: {error.what}", where=where, hint=f"give {by}")
    if re.search(r"error: 30[1278]|unable to update url base from redirection", text):
        return NetworkError(
            "the server redirects, and a secret is not sent on to another address",
            where=where,
            hint="write the address that it redirects to",
        )
    if _UNREACHED.search(text):
        return NetworkError(error.what, where=where)
    error.where = where
    return error
