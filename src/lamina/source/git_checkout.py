"""A commit written out as files, with or without a `.git` of its own.

In: a bare repository that holds the commit, an empty directory. Out: the files as git-read-tree(1) writes them (it
refuses paths that leave the tree, lead through links or are called `.git`), and the list of submodules.

Invariants: `.git` is there only if it was asked for, without hooks, reflogs or secrets, its origin the remote's plain
address; what `.gitmodules` says is data: only its `path`, `url` and `update = none` are read, from the commit itself.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lamina.cancel import Cancel
from lamina.errors import InputError
from lamina.git_url import GitRemote, parse_remote
from lamina.rooted import open_beneath, open_root
from lamina.source.git_program import GitProgram
from lamina.source.git_repository import kept_ref
from lamina.source.git_spec import Pin

_MAX_GITMODULES = 1 << 20
_MAX_SUBMODULES = 1000


@dataclass(frozen=True, slots=True)
class Submodule:
    """A repository inside another: where its files go, where it lies, and at which commit."""

    name: str
    path: str
    remote: GitRemote
    commit: str


@dataclass(frozen=True, slots=True)
class Checkout:
    """Writes commits of one bare repository.

    Attributes:
        repository: path of the bare repository.
        remote: where it was fetched from.
        scratch: an existing directory for index files.
    """

    git: GitProgram
    repository: Path
    remote: GitRemote
    scratch: Path
    cancel: Cancel

    def write(self, commit: str, tree: Path) -> None:
        """Write the files of a commit into the empty directory `tree`."""
        index = self.scratch / "index"
        index.unlink(missing_ok=True)
        self._read_tree(commit, self.repository, tree, index)

    def write_with_git_dir(self, pin: Pin, commit: str, tree: Path, git_dir: Path) -> None:
        """Write the files and a repository that holds this commit only, with HEAD detached at it.

        Args:
            git_dir: `.git` of `tree`, or a place below its superproject's `modules`, which `tree/.git` then names.
        """
        git_dir.parent.mkdir(parents=True, exist_ok=True)
        self._git(["init", "--quiet", "--template=", f"--object-format={pin.object_format}"], git_dir, tree)
        target = f":{pin.ref}" if pin.ref else ""
        fetch = ["fetch", "--quiet", "--update-head-ok", "--no-tags", "--no-write-fetch-head", "--depth=1", "--"]
        refspec = f"+{kept_ref(pin.object)}{target}"
        self.git.run(
            [*fetch, _file_url(self.repository), refspec],
            self.cancel,
            git_dir=git_dir,
            work_tree=tree,
            protocols="file",
        )
        self._git(["update-ref", "--no-deref", "HEAD", commit], git_dir, tree)
        self.configure(git_dir, "remote.origin.url", self.remote.address)
        self.configure(git_dir, "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")
        if git_dir != tree / ".git":
            (tree / ".git").write_text(f"gitdir: {os.path.relpath(git_dir, tree)}\n", "utf-8")
            self.configure(git_dir, "core.worktree", os.path.relpath(tree, git_dir))
        self._read_tree(commit, git_dir, tree, git_dir / "index")

    def configure(self, git_dir: Path, name: str, value: str) -> None:
        """Write one setting into a repository's own configuration."""
        self.git.run(["config", "--file", str(git_dir / "config"), name, value], self.cancel)

    def register(self, git_dir: Path, submodules: Sequence[Submodule]) -> None:
        """Tell a kept repository of the submodules that are checked out."""
        for submodule in submodules:
            self.configure(git_dir, f"submodule.{submodule.name}.active", "true")
            self.configure(git_dir, f"submodule.{submodule.name}.url", submodule.remote.address)

    def seconds(self, commit: str) -> int:
        """Return the committer's time of a commit."""
        text = self._read(["log", "-1", "--format=%ct", commit]).decode("ascii", "replace").strip()
        try:
            return min(max(int(text), 0), (1 << 33) - 1)
        except ValueError:
            raise InputError(f"commit {commit} has no time that can be read: {text[:60]!r}") from None

    def submodules(self, commit: str) -> list[Submodule]:
        """Return the submodules of a commit that are to be checked out.

        Raises:
            InputError: one that cannot be: its address, name or number.
        """
        entries = list(self._entries(commit, [".gitmodules"]))
        if not entries:
            return []
        if entries[0][0] not in ("100644", "100755", "100664"):
            raise InputError(".gitmodules is not a plain file", where=self.remote.address)
        sections = self._sections(commit)
        by_path = {values["path"]: name for name, values in sections.items() if "path" in values}
        if len(by_path) > _MAX_SUBMODULES:
            raise InputError(f"more than {_MAX_SUBMODULES} submodules", where=self.remote.address)
        found = []
        for mode, value, path in self._entries(commit, sorted(by_path)):
            name = by_path.get(path, "")
            if mode == "160000" and sections.get(name, {}).get("update") != "none" and name:
                url = sections[name].get("url", "")
                found.append(Submodule(name, path, submodule_remote(self.remote, url, path), value))
        _check_names([submodule.name for submodule in found], self.remote)
        return found

    def _sections(self, commit: str) -> dict[str, dict[str, str]]:
        """Return the settings of `.gitmodules` by submodule name."""
        blob = f"{commit}:.gitmodules"
        size = self._read(["cat-file", "-s", blob])
        if int(size) > _MAX_GITMODULES:
            raise InputError(".gitmodules is too large", where=self.remote.address)
        sections: dict[str, dict[str, str]] = {}
        for record in self._read(["config", "--blob", blob, "--null", "--list"]).split(b"\0"):
            key, _, value = record.decode("utf-8", "surrogateescape").partition("\n")
            kind, _, rest = key.partition(".")
            name, _, setting = rest.rpartition(".")
            if kind == "submodule" and name:
                sections.setdefault(name, {})[setting] = value
        return sections

    def _entries(self, commit: str, paths: list[str]) -> Iterator[tuple[str, str, str]]:
        """Yield mode, hash and path of what the commit has at `paths`."""
        for start in range(0, len(paths), 100):
            listing = self._read(["ls-tree", "-z", "--full-tree", commit, "--", *paths[start : start + 100]])
            for record in filter(None, listing.split(b"\0")):
                head, _, path = record.decode("utf-8", "surrogateescape").partition("\t")
                mode, _kind, value = head.split(" ")
                yield mode, value, path

    def _read(self, arguments: list[str]) -> bytes:
        return self.git.run(arguments, self.cancel, git_dir=self.repository)

    def _read_tree(self, commit: str, git_dir: Path, tree: Path, index: Path) -> None:
        self.git.run(["read-tree", "--reset", "-u", commit], self.cancel, git_dir=git_dir, work_tree=tree, index=index)

    def _git(self, arguments: list[str], git_dir: Path, tree: Path) -> None:
        self.git.run(arguments, self.cancel, git_dir=git_dir, work_tree=tree)


def submodule_remote(parent: GitRemote, url: str, path: str) -> GitRemote:
    """Return where a submodule lies; `./` and `../` are relative to the repository it is in (gitmodules(5)).

    Raises:
        InputError: a transport that is not allowed, or no address.
    """
    if url.startswith(("./", "../")):
        return _relative(parent, url, path)
    remote = parse_remote(url)
    if remote is None:
        raise InputError(
            f"the submodule at {path[:200]!r} has the address {url[:200]!r}",
            where=parent.address,
            hint="only http, https, ssh and git are allowed, and addresses relative to the repository's own",
        )
    return remote


def _relative(parent: GitRemote, url: str, path: str) -> GitRemote:
    base = parent.path.rstrip("/").split("/")
    parts = url.split("/")
    while parts and parts[0] in (".", ".."):
        if parts.pop(0) == ".." and (not base or not base.pop()):
            raise InputError(f"the submodule at {path[:200]!r} has the address {url[:200]!r}", where=parent.address)
    joined = replace(parent, path="/".join([*base, *parts]))
    found = parse_remote(joined.text)
    if found is None:
        raise InputError(f"the submodule at {path[:200]!r} has the address {url[:200]!r}", where=parent.address)
    return found


def subdirectory(tree: Path, subdir: str, where: str) -> Path:
    """Return a directory in a checkout.

    Raises:
        InputError: it is not there, is no directory, or a symbolic link is on the way.
    """
    root = open_root(tree)
    try:
        os.close(open_beneath(root, subdir, os.O_PATH | os.O_DIRECTORY))
    except OSError as error:
        raise InputError(
            f"the repository has no directory {subdir!r} ({error.strerror})",
            where=where,
            hint="symbolic links are not followed here",
        ) from None
    finally:
        os.close(root)
    return tree / subdir


def empty_directory(tree: Path) -> None:
    """Remove what an attempt that failed left in a directory."""
    with os.scandir(tree) as found:
        for entry in list(found):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


def set_times(tree: Path, time_ns: int) -> None:
    """Give everything in `tree`, itself included, one modification time."""
    times = (time_ns, time_ns)
    for _folder, folders, files, descriptor in os.fwalk(tree, follow_symlinks=False):
        for name in (*folders, *files):
            os.utime(name, ns=times, dir_fd=descriptor, follow_symlinks=False)
    os.utime(tree, ns=times)


def _check_names(names: list[str], remote: GitRemote) -> None:
    """Refuse names that cannot be directories beside each other (CVE-2018-11235 and later ones)."""
    for name in names:
        bad = any(part in ("", ".", "..") or part.lower().startswith(".git") for part in name.split("/"))
        inside = any(name.startswith(other + "/") for other in names)
        if bad or inside or "\\" in name or not name.isprintable() or name.startswith("-"):
            raise InputError(f"a submodule called {name[:200]!r}", where=remote.address)


def _file_url(path: Path) -> str:
    from urllib.parse import quote

    return "file://" + quote(os.path.abspath(path))
