"""`State`: an immutable value that stands for a file system, and how it came about.

Every method returns a new state; nothing happens before `marshal()`, which gives the `pb.Definition` that
`lamina.solve`, or any BuildKit, can solve. Equal states marshal to equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lamina.errors import InputError
from lamina.git_url import AUTH_HEADER_SECRET, AUTH_TOKEN_SECRET

if TYPE_CHECKING:
    from lamina.llb.pb import ops_pb2 as pb

_SHARING = {"shared": 0, "private": 1, "locked": 2}
_NETWORKS = {"": 0, "default": 0, "host": 1, "none": 2}
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Mount:
    """Something mounted beside a command's root; made by `bind`, `cache`, `tmpfs`, `secret` and `ssh`."""

    kind: str
    target: str
    state: State | None = None
    source: str = ""
    readonly: bool = True
    id: str = ""
    sharing: str = "shared"
    size: int = 0
    mode: int = 0
    optional: bool = False


@dataclass(frozen=True, slots=True)
class _Node:
    """A vertex before it is marshalled: its kind, the states it stands on, and its settings."""

    kind: str
    inputs: tuple[State, ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()
    name: str = ""
    ignore_cache: bool = False

    def get(self, key: str) -> Any:
        """Return one setting."""
        return dict(self.settings)[key]


@dataclass(frozen=True, slots=True)
class State:
    """A file system and the settings that commands run on it take over.

    Attributes:
        environment: `NAME=value` in the order they were set.
        cwd: working directory of commands, "/" at first.
        username: `user[:group]` of commands, "" for root.
    """

    _node: _Node | None = field(default=None, repr=False)
    environment: tuple[tuple[str, str], ...] = ()
    cwd: str = "/"
    username: str = ""

    # -- settings

    def with_env(self, name: str, value: str) -> State:
        """Set a variable for later commands."""
        kept = tuple(pair for pair in self.environment if pair[0] != name)
        return replace(self, environment=(*kept, (name, value)))

    def dir(self, path: str) -> State:
        """Set the working directory of later commands; a relative path goes on from the present one."""
        return replace(self, cwd=path if path.startswith("/") else f"{self.cwd.rstrip('/')}/{path}")

    def user(self, name: str) -> State:
        """Set the user of later commands."""
        return replace(self, username=name)

    # -- operations

    def run(
        self,
        command: str | Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        mounts: Sequence[Mount] = (),
        network: str = "",
        name: str = "",
        ignore_cache: bool = False,
    ) -> State:
        """Run a command and return what it leaves.

        Args:
            command: a list of arguments, or text for `/bin/sh -c`.
            env: variables for this command only.
            mounts: what it sees beside its root.
            network: "host", "none", or "" for the default.
            name: what displays call the step.
            ignore_cache: run it even if its result is known.
        """
        if network not in _NETWORKS:
            raise InputError(f"unknown network {network!r}", hint="host, none, or nothing")
        args = ("/bin/sh", "-c", command) if isinstance(command, str) else tuple(command)
        variables = (*self.environment, *(env or {}).items())
        below = (self, *(mount.state for mount in mounts if mount.state is not None))
        settings: dict[str, Any] = {
            "args": args,
            "env": variables,
            "cwd": self.cwd,
            "user": self.username,
            "network": network,
        }
        settings["mounts"] = tuple(mounts)
        return self._next("exec", below, settings, name or " ".join(args), ignore_cache)

    def copy(
        self,
        source: State,
        path: str,
        dest: str,
        *,
        owner: tuple[int, int] | None = None,
        mode: int = -1,
        wildcard: bool = False,
        contents: bool = True,
        name: str = "",
    ) -> State:
        """Copy from another state.

        Args:
            source: where from.
            path: file or directory in it; a pattern when `wildcard`.
            dest: destination, with "/" at its end for "into this directory"; its parents are made.
            owner: uid and gid; None keeps the source's.
            mode: permission bits, -1 keeps the source's.
            contents: a directory gives its contents and not itself.
        """
        settings = {
            "path": path,
            "dest": dest,
            "owner": owner,
            "mode": mode,
            "wildcard": wildcard,
            "contents": contents,
        }
        return self._next("copy", (self, source), settings, name or f"copy {path} {dest}")

    def mkdir(self, path: str, *, mode: int = 0o755, parents: bool = True) -> State:
        """Make a directory."""
        return self._next("mkdir", (self,), {"path": path, "mode": mode, "parents": parents}, f"mkdir {path}")

    def mkfile(self, path: str, data: bytes, *, mode: int = 0o644) -> State:
        """Write a file."""
        return self._next("mkfile", (self,), {"path": path, "data": data, "mode": mode}, f"mkfile {path}")

    def symlink(self, target: str, path: str) -> State:
        """Make a symbolic link at `path`."""
        return self._next("symlink", (self,), {"target": target, "path": path}, f"symlink {path}")

    def rm(self, path: str, *, missing_ok: bool = False, wildcard: bool = False) -> State:
        """Remove a file or a directory with all in it."""
        settings = {"path": path, "missing_ok": missing_ok, "wildcard": wildcard}
        return self._next("rm", (self,), settings, f"rm {path}")

    def merge(self, *others: State) -> State:
        """Put other states' layers on top of this one's."""
        return merge([self, *others])

    def diff(self, upper: State) -> State:
        """Return what `upper` has over this state."""
        return diff(self, upper)

    def marshal(self) -> pb.Definition:
        """Return the definition that asks for this state.

        Raises:
            InputError: the empty state, which nothing makes.
        """
        from lamina.llb.marshal import marshal

        return marshal(self)

    def _next(
        self, kind: str, inputs: tuple[State, ...], settings: Mapping[str, Any], name: str, ignore_cache: bool = False
    ) -> State:
        return replace(self, _node=_Node(kind, inputs, tuple(settings.items()), name, ignore_cache))


def image(reference: str, *, platform: str = "") -> State:
    """Return an image; a name without registry means docker.io."""
    from lamina.oci.platform import Platform, host_platform
    from lamina.oci.reference import Reference

    wanted = Platform.parse(platform) if platform else host_platform()
    settings = (("identifier", f"docker-image://{Reference.parse(reference)}"), ("attrs", ()), ("platform", wanted))
    return State(_Node("source", (), settings, f"image {reference}"), environment=(("PATH", _DEFAULT_PATH),))


def git(
    url: str,
    *,
    ref: str = "",
    subdir: str = "",
    checksum: str = "",
    keep_git_dir: bool | None = None,
    submodules: bool | None = None,
    mtime: str = "",
    fetch_by_commit: bool = False,
    auth_header_secret: str = AUTH_HEADER_SECRET,
    auth_token_secret: str = AUTH_TOKEN_SECRET,
    known_ssh_hosts: str = "",
    ssh_id: str = "",
) -> State:
    """Return the files of one commit of a git repository.

    Args:
        url: as a Dockerfile's ADD takes it, `#ref:subdir` and query included; `https://` may be left out, and a path
            need not end in `.git`.
        ref: branch, tag, full ref or full commit hash; the remote's default branch when nobody names one.
        subdir: directory whose contents are taken.
        checksum: (beginning of) the commit's hash, checked.
        keep_git_dir: keep `.git`.
        submodules: False leaves submodules out.
        mtime: "commit" gives all files the commit's time.
        fetch_by_commit: take `checksum` for the commit without asking what `ref` stands for.
        auth_header_secret, auth_token_secret: ids of the secrets that open the remote.
        known_ssh_hosts: lines of an ssh known_hosts file.
        ssh_id: which of the caller's SSH agents, the default one when "".

    Raises:
        InputError: no git URL, or one that contradicts an argument.
    """
    from lamina.git_url import GitOptions, check_ref, clean_subdir, read_git_url, to_source

    found = read_git_url(url)
    for name, first, second in (("ref", found.ref, check_ref(ref)), ("subdir", found.subdir, clean_subdir(subdir))):
        if first and second and first != second:
            raise InputError(f"{name} is {second!r} as an argument and {first!r} in the git URL")
    found = replace(
        found,
        ref=ref or found.ref,
        subdir=clean_subdir(subdir) or found.subdir,
        fetch_by_commit=fetch_by_commit or found.fetch_by_commit,
    )
    options = GitOptions(
        keep_git_dir=keep_git_dir,
        submodules=submodules,
        checksum=checksum,
        mtime=mtime,
        auth_header_secret=auth_header_secret,
        auth_token_secret=auth_token_secret,
        known_ssh_hosts=known_ssh_hosts,
        ssh_id=ssh_id,
    )
    identifier, attrs = to_source(found, options)
    settings = (("identifier", identifier), ("attrs", tuple(sorted(attrs.items()))), ("platform", None))
    return State(_Node("source", (), settings, f"git {found.remote.address}"))


def local(
    name: str, *, include: Sequence[str] = (), exclude: Sequence[str] = (), follow_paths: Sequence[str] = ()
) -> State:
    """Return a directory that the solver's caller offers under `name` (`contexts=` of `lamina.solve`).

    Args:
        include: patterns of what belongs to it, () for everything.
        exclude: patterns as in an ignore file.
        follow_paths: the paths that will be read; only a hint.
    """
    import json

    lists = {"local.includepattern": include, "local.excludepatterns": exclude, "local.followpaths": follow_paths}
    attrs = tuple((key, json.dumps(list(value))) for key, value in lists.items() if value)
    settings = (("identifier", f"local://{name}"), ("attrs", attrs), ("platform", None))
    return State(_Node("source", (), settings, f"local {name}"))


def http(
    url: str,
    *,
    checksum: str = "",
    filename: str = "",
    mode: int = 0o600,
    owner: tuple[int, int] = (0, 0),
    auth_secret: str = "",
    headers: Mapping[str, str] | None = None,
    name: str = "",
) -> State:
    """Return a file system that holds one downloaded file.

    Args:
        url: `http://` or `https://`; asked for changes on every solve, unless there is a checksum.
        checksum: `sha256:...` that the content must have.
        filename: its name; "" for what the server says or, failing that, the end of the URL.
        mode: permission bits.
        owner: uid and gid.
        auth_secret: id of the secret that is the Authorization header; by default `HTTP_AUTH_HEADER_<host>`, or
            `HTTP_AUTH_TOKEN_<host>` for a bearer token, if the solver's caller offers one.
        headers: `Accept` and `User-Agent`; no others are sent.
        name: what displays call the step.
    """
    uid, gid = owner
    found = {
        "http.checksum": checksum,
        "http.filename": filename,
        "http.perm": f"0{mode:o}" if mode != 0o600 else "",
        "http.uid": str(uid or ""),
        "http.gid": str(gid or ""),
        "http.authheadersecret": auth_secret,
        **{f"http.header.{key.lower()}": value for key, value in (headers or {}).items()},
    }
    attrs = tuple((key, value) for key, value in found.items() if value)
    shown = name or "http " + url.partition("?")[0].rpartition("@")[2]
    return State(_Node("source", (), (("identifier", url), ("attrs", attrs), ("platform", None)), shown))


def scratch() -> State:
    """Return the empty file system."""
    return State()


def merge(states: Sequence[State]) -> State:
    """Return the layers of the states on top of each other; settings come from the first."""
    real = tuple(state for state in states if state._node is not None)
    if not real:
        return State()
    return real[0] if len(real) == 1 else real[0]._next("merge", real, {}, "merge")


def diff(lower: State, upper: State) -> State:
    """Return what `upper` has over `lower`, on an empty root."""
    inputs = tuple(state for state in (lower, upper) if state._node is not None)
    settings = {"lower": lower._node is not None, "upper": upper._node is not None}
    return replace(upper)._next("diff", inputs, settings, "diff")


def bind(target: str, state: State, *, source: str = "/", readonly: bool = True) -> Mount:
    """Show a state (or a path in it) at `target`; what is written to it is thrown away."""
    return Mount("bind", target, state, source, readonly)


def cache(target: str, *, id: str = "", sharing: str = "shared") -> Mount:  # noqa: A002 - the option's name
    """Mount a directory that lives on between builds; `sharing` is shared, private or locked."""
    if sharing not in _SHARING:
        raise InputError(f"unknown sharing {sharing!r}", hint="shared, private or locked")
    return Mount("cache", target, id=id or target, sharing=sharing, readonly=False)


def tmpfs(target: str, *, size: int = 0) -> Mount:
    """Mount empty memory of at most `size` bytes (0: no limit)."""
    return Mount("tmpfs", target, size=size, readonly=False)


def secret(target: str, *, id: str, mode: int = 0o400, optional: bool = False) -> Mount:  # noqa: A002
    """Mount a secret of the caller's as a file."""
    return Mount("secret", target, id=id, mode=mode, optional=optional)


def ssh(target: str = "/run/buildkit/ssh_agent.0", *, id: str = "default", optional: bool = False) -> Mount:  # noqa: A002
    """Mount a socket that leads to the caller's SSH agent."""
    return Mount("ssh", target, id=id, mode=0o600, optional=optional)
