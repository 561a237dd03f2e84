"""Git repositories as sources: a ref becomes a commit, a commit becomes files.

In: a `GitSpec` (see git_spec), the user's session. Out: a `Pin` that names the commit, and a directory with its files
and those of its submodules. What was fetched from a remote stays in a bare repository under `<root>/git/`, so that a
commit that is known needs no network.

Must not: decide about layers and keys (ops/git.py). Invariants: one process at a time writes to a repository, and
none while another reads a commit out of it; within one build a ref stands for one commit; a lock is never waited for
while another one is held.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lamina.cancel import Cancel
from lamina.errors import InputError, NetworkError
from lamina.git_url import GitRemote
from lamina.session import Session
from lamina.source.git_access import access_for
from lamina.source.git_checkout import Checkout, Submodule, empty_directory, set_times, subdirectory
from lamina.source.git_kept import lock_name, mark_used, name_of
from lamina.source.git_objects import GitObjects
from lamina.source.git_program import Access, GitError, GitProgram, Log, unheard
from lamina.source.git_repository import GitRepository, explain, is_damage
from lamina.source.git_spec import GitSpec, Pin, check_pin, pin_without_asking, read_refs, refs_to_ask
from lamina.state.locks import Locks

_MAX_DEPTH = 32
_MAX_CHECKOUTS = 2000


@dataclass(frozen=True, slots=True)
class GitMachine:
    """The machine's side: where git is looked for, and how it reaches other machines."""

    search_path: str
    proxies: Mapping[str, str]
    ca_file: str = ""


class GitSource:
    """One build's way to git repositories. Thread-safe.

    Args:
        directory: where bare repositories are kept.
        scratch: an existing directory of this build's own, on the same file system as the trees.
    """

    def __init__(self, directory: Path, scratch: Path, locks: Locks, session: Session, machine: GitMachine) -> None:
        self._directory, self._scratch, self._locks, self._session = directory, scratch, locks, session
        self._git = GitProgram(machine.search_path, scratch, machine.proxies, machine.ca_file)
        self._pins: dict[tuple[str, str], bytes] = {}
        self._guard = threading.Lock()
        self._serial = 0
        directory.mkdir(parents=True, exist_ok=True)

    def resolve(self, spec: GitSpec, cancel: Cancel) -> Pin:
        """Return what the source's ref stands for; the remote is asked at most once a build.

        Raises:
            InputError: no such ref, or another commit than the checksum says; NetworkError: no answer.
        """
        pin = pin_without_asking(spec)
        return pin if pin is not None else read_refs(spec, self._listing(spec, cancel))

    def check_out(
        self, spec: GitSpec, pin: Pin, target: Path, cancel: Cancel, *, now_ns: int, log: Log = unheard
    ) -> None:
        """Fill the empty directory `target` with the files that the source asks for.

        Args:
            now_ns: time of all files unless the source asks for the commit's.

        Raises:
            InputError: the subdirectory or a submodule cannot be; NetworkError: something cannot be fetched.
        """
        folder = self._new_folder()
        try:
            tree = target
            if spec.subdir:
                tree = folder / "tree"
                tree.mkdir(0o755)
            work = _Work(self, spec, folder, cancel, log)
            work.place(spec.remote, pin, tree, tree / ".git" if spec.keeps_git_dir else None)
            if spec.subdir:
                os.rename(subdirectory(tree, spec.subdir, f"{spec.remote.address}#{spec.ref}"), target)
            set_times(target, work.seconds * 10**9 if spec.mtime == "commit" else now_ns)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _listing(self, spec: GitSpec, cancel: Cancel) -> bytes:
        key = (spec.remote.text, spec.ref)
        with self._guard:
            known = self._pins.get(key)
        if known is not None:
            return known
        arguments = ["ls-remote", "--symref", "--", spec.remote.address, *refs_to_ask(spec.ref)]
        folder = self._new_folder()
        try:
            listing = self._git.run(
                arguments, cancel, access=self.access(spec.remote, spec, folder), max_output=8 << 20
            )
        except GitError as error:
            raise explain(error, spec.remote) from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        with self._guard:
            return self._pins.setdefault(key, listing)

    def access(self, remote: GitRemote, spec: GitSpec, folder: Path) -> Access:
        """Return what opens `remote` for `spec`."""
        known_hosts = self._directory / "known_hosts"
        return access_for(remote, spec, self._session, known_hosts=known_hosts, scratch=folder)

    def objects(self, spec: GitSpec, pin: Pin, cancel: Cancel) -> GitObjects:
        """Return the objects that a pin stands for, fetched if they are not here.

        Raises:
            InputError: another commit than the checksum says; NetworkError: they cannot be fetched.
        """
        found: list[GitObjects] = []

        def read(kind: str, name: str, repository: Path) -> bytes:
            return self._git.run(["cat-file", kind, name], cancel, git_dir=repository)

        def use(repository: Path, commit: str) -> None:
            check_pin(spec, Pin(pin.object, commit, pin.ref))
            tag = read("tag", pin.object, repository) if commit != pin.object else b""
            found.append(GitObjects(commit, read("commit", commit, repository), tag))

        folder = self._new_folder()
        try:
            access = partial(self.access, spec.remote, spec, folder)
            self.with_commit(use, pin, spec.remote, access, cancel=cancel, log=unheard)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return found[-1]

    def with_commit(
        self,
        use: Callable[[Path, str], None],
        pin: Pin,
        remote: GitRemote,
        access: Callable[[], Access],
        *,
        cancel: Cancel,
        log: Log,
    ) -> str:
        """Fetch the pinned object if it is not here, call `use` with its repository and commit, return the commit.

        Nobody writes to the repository meanwhile. If it turns out to be damaged, it is made anew and `use` is called
        once more.

        Args:
            access: asked only when something has to be fetched.
        """
        name = name_of(remote, pin.object_format)
        repository, lock = GitRepository(self._directory / name, remote, self._git), lock_name(name)
        damaged = False
        for _attempt in range(4):
            with self._locks.hold(lock, cancel):
                if damaged:
                    repository.remove()
                if not repository.has(pin.object, cancel):
                    repository.fetch(pin, access(), cancel, log)
                mark_used(repository.path)
            with self._locks.hold(lock, cancel, shared=True):
                if not repository.has(pin.object, cancel):
                    continue  # thrown away by another process between the locks
                try:
                    commit = repository.commit_of(pin.object, cancel)
                    use(repository.path, commit)
                    return commit
                except GitError as error:
                    if damaged or not is_damage(error):
                        raise explain(error, remote) from None
                    damaged = True
        raise NetworkError(f"commit {pin.object} disappears while it is used", where=remote.address)

    @property
    def program(self) -> GitProgram:
        """The git that is used."""
        return self._git

    def _new_folder(self) -> Path:
        with self._guard:
            self._serial += 1
            path = self._scratch / f"git{self._serial}"
        path.mkdir(0o700)
        return path


class _Work:
    """One checkout with its submodules.

    Attributes:
        seconds: the commit's time.
    """

    def __init__(self, source: GitSource, spec: GitSpec, folder: Path, cancel: Cancel, log: Log) -> None:
        self._source, self._spec, self._folder, self._cancel, self._log = source, spec, folder, cancel, log
        self._count = 0
        self.seconds = 0

    def place(self, remote: GitRemote, pin: Pin, tree: Path, git_dir: Path | None, depth: int = 0) -> None:
        """Write one repository's commit into `tree`, then those of its submodules."""
        self._count += 1
        if depth > _MAX_DEPTH or self._count > _MAX_CHECKOUTS:
            raise InputError("submodules without an end", where=self._spec.remote.address)
        found: list[Submodule] = []

        def use(repository: Path, commit: str) -> None:
            nonlocal found
            checkout = Checkout(self._source.program, repository, remote, self._folder, self._cancel)
            if depth == 0:
                check_pin(self._spec, Pin(pin.object, commit, pin.ref))
                self.seconds = checkout.seconds(commit)
            empty_directory(tree)
            if git_dir is None:
                checkout.write(commit, tree)
            else:
                shutil.rmtree(git_dir, ignore_errors=True)
                checkout.write_with_git_dir(pin, commit, tree, git_dir)
            found = checkout.submodules(commit) if self._spec.submodules else []
            if git_dir is not None:
                checkout.register(git_dir, found)

        self._source.with_commit(
            use,
            pin,
            remote,
            lambda: self._source.access(remote, self._spec, self._folder),
            cancel=self._cancel,
            log=self._log,
        )
        for submodule in found:
            where = f"{remote.address}: submodule {submodule.path}"
            below = subdirectory(tree, submodule.path, where)
            modules = None if git_dir is None else git_dir / "modules" / submodule.name
            self.place(submodule.remote, Pin(submodule.commit), below, modules, depth + 1)
