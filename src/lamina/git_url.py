"""Git repositories as users name them, and the SourceOp such a name becomes.

In: text from a Dockerfile's ADD, a build context or a graph: `https://host/o/r.git#ref:subdir`, `ssh://`, `git://`,
`git@host:o/r.git`, `github.com/o/r`, each also with a query (`?ref= tag= branch= subdir= checksum= commit=
keep-git-dir= submodules= mtime= fetch-by-commit=`). Out: a `GitUrl`, or None when the text names something else; and
identifier and attributes of BuildKit's SourceOp. Which text is a git URL follows Dockerfile's reference ("ADD") and
what BuildKit's front end accepts; `file://` and every other transport is no git URL here.

Pure: no network, no programs. Linear in the length of the text. Invariants: nothing that could be taken for an option
of git or ssh, no control character and no blank gets through; `subdir` never climbs.

    url = parse_git_url("https://github.com/moby/buildkit.git#v0.20:docs")
    identifier, attrs = to_source(url, GitOptions())
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TypeVar

from lamina.errors import InputError

_Given = TypeVar("_Given", bool, str)

MAX_LENGTH = 8192
AUTH_HEADER_SECRET, AUTH_TOKEN_SECRET = "GIT_AUTH_HEADER", "GIT_AUTH_TOKEN"

_ALLOWED = "http, https, ssh, git and user@host:path are allowed"
_SCHEMES = frozenset({"http", "https", "ssh", "git"})
_SCHEME = re.compile(r"([A-Za-z0-9]+)://")
_SCP = re.compile(r"([A-Za-z0-9_-]+)@([A-Za-z0-9.-]+):")
_HOST = re.compile(r"(?:[A-Za-z0-9_~](?:[A-Za-z0-9._~-]*)|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_COMMIT = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_CHECKSUM = re.compile(r"[0-9a-fA-F]{4,64}\Z")
_BAD_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|\.lock(?:/|\Z)|(?:\A|/)\.|\.\Z|/\Z|\A[-/]|\A@\Z")
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("0", "f", "F", "FALSE", "false", "False"), False),
}
_FLAGS = frozenset({"keep-git-dir", "submodules", "fetch-by-commit"})
_KEYS = _FLAGS | {"ref", "tag", "branch", "subdir", "checksum", "commit", "mtime"}


@dataclass(frozen=True, slots=True)
class GitRemote:
    """Where a repository lies.

    Attributes:
        scheme: http, https, ssh or git.
        host: with the port, if one was given.
        path: as it was written (percent escapes stay); starts with "/" unless `scp`.
        user: name before the "@", "" for none.
        password: what followed a ":" in there; never shown by `repr` or `address`.
        scp: written as `user@host:path`.
    """

    scheme: str
    host: str
    path: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    scp: bool = False

    @property
    def address(self) -> str:
        """The remote without anything secret: only ssh keeps its user, who is part of the way there."""
        if self.scp:
            return f"{self.user}@{self.host}:{self.path}"
        user = f"{self.user}@" if self.scheme == "ssh" and self.user else ""
        return f"{self.scheme}://{user}{self.host}{self.path}"

    @property
    def text(self) -> str:
        """The remote whole, as it goes into a graph: with user and password where the user wrote them there."""
        if self.scp or not self.user:
            return self.address
        secret = f":{self.password}" if self.password else ""
        return f"{self.scheme}://{self.user}{secret}@{self.host}{self.path}"

    @property
    def identity(self) -> str:
        """Host and path, equal for all transports to one repository."""
        return self.host + _clean("/" + self.path)


@dataclass(frozen=True, slots=True)
class GitUrl:
    """A repository, and what of it is meant.

    Attributes:
        remote: where it lies.
        ref: branch, tag, full ref or commit; "" for the remote's default branch.
        subdir: directory in it, relative and clean, "" for all.
        checksum: (beginning of) the commit it must be, "" for any.
        keep_git_dir, submodules: None when the URL does not say.
        mtime: "checkout", "commit", or "" when the URL does not say.
        fetch_by_commit: take `checksum` for the commit without asking what `ref` stands for.
        like_a_path: `github.com/o/r`, which a Dockerfile's ADD takes for a path; only contexts may be named so.
    """

    remote: GitRemote
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool | None = None
    mtime: str = ""
    fetch_by_commit: bool = False
    like_a_path: bool = False

    @property
    def scheme(self) -> str:
        """Transport: http, https, ssh or git."""
        return self.remote.scheme

    @property
    def host(self) -> str:
        """Host, with the port if one was given."""
        return self.remote.host

    @property
    def path(self) -> str:
        """Path on the host."""
        return self.remote.path

    @property
    def short_name(self) -> str:
        """Last part of the path without `.git`."""
        return self.path.rpartition("/")[2].removesuffix(".git")

    @property
    def unencrypted(self) -> bool:
        """Whether anybody on the way can read and change what comes."""
        return self.scheme in ("http", "git")


@dataclass(frozen=True, slots=True)
class GitOptions:
    """What is asked for beside the URL; None and "" leave it to the URL.

    Attributes:
        keep_git_dir: keep `.git`.
        submodules: False leaves submodules out.
        checksum: as in `GitUrl`.
        mtime: "checkout" or "commit".
        auth_header_secret, auth_token_secret: ids of secrets.
        known_ssh_hosts: lines of an ssh known_hosts file.
        ssh_id: which of the user's agents, "" for the default one.
    """

    keep_git_dir: bool | None = None
    submodules: bool | None = None
    checksum: str = ""
    mtime: str = ""
    auth_header_secret: str = AUTH_HEADER_SECRET
    auth_token_secret: str = AUTH_TOKEN_SECRET
    known_ssh_hosts: str = ""
    ssh_id: str = ""


def parse_git_url(text: str) -> GitUrl | None:
    """Return what a user's text says, None when it names no git repository (a path, another URL).

    `http://` and `https://` name one only when their path ends in `.git`.

    Raises:
        InputError: it is a git URL, and one that cannot be: a conflict, an unknown query, a strange host, ref or path.
    """
    like_a_path = text.startswith("github.com/")
    if like_a_path:
        text = "https://" + text
    elif text.startswith(("./", "../", "/")) or _scheme(text) is None:
        return None
    bare = text.partition("#")[0].partition("?")[0]
    if _scheme(bare) in ("http", "https") and not like_a_path and not bare.endswith(".git"):
        return None
    return _read(text, like_a_path)


def read_git_url(text: str) -> GitUrl:
    """Return what a text says that is known to name a git repository: `https://` may be left out, and `.git` too.

    Raises:
        InputError: as `parse_git_url`, or a transport that git must not use.
    """
    if _scheme(text) is None and "://" not in text:
        text = "https://" + text
    found = _read(text, like_a_path=False)
    if found is None:
        raise InputError(f"git must not be asked for {_show(text)}", hint=_ALLOWED)
    return found


def parse_remote(text: str) -> GitRemote | None:
    """Return the repository that a text without query and fragment names; None when no transport of ours reads it.

    Raises:
        InputError: a host, user or path that cannot be.
    """
    if len(text) > MAX_LENGTH:
        raise InputError(f"a git URL of more than {MAX_LENGTH} characters", where=text[:60])
    scheme = _scheme(text)
    if scheme is None:
        return None
    if _UNSAFE.search(text):
        raise InputError("a git URL with a blank or a control character in it", where=_show(text))
    if scheme == "":
        match = _SCP.match(text)
        assert match is not None
        remote = GitRemote("ssh", match[2], text[match.end() :], match[1], scp=True)
    else:
        authority, slash, path = text[len(scheme) + 3 :].partition("/")
        userinfo, _, host = authority.rpartition("@")
        user, _, password = userinfo.partition(":")
        remote = GitRemote(scheme, host, slash + path, user, password)
    _check_remote(remote)
    return remote


def read_remote(text: str) -> GitRemote:
    """Return the repository that a text names, `https://` being added where there is no transport.

    Query and fragment are passed over.

    Raises:
        InputError: it names none, or one that git must not be asked for.
    """
    bare = text.partition("#")[0].partition("?")[0]
    remote = parse_remote(bare)
    if remote is None and "://" not in bare:
        remote = parse_remote("https://" + bare)
    if remote is None:
        raise InputError(f"git must not be asked for {_show(bare)}", hint=_ALLOWED)
    return remote


def split_fragment(fragment: str) -> tuple[str, str]:
    """Return ref and clean subdirectory of a `ref:subdir`.

    Raises:
        InputError: either cannot be.
    """
    ref, _, subdir = fragment.partition(":")
    return check_ref(ref), clean_subdir(subdir)


def check_ref(ref: str) -> str:
    """Return `ref` if git could have such a ref (git-check-ref-format(1)) and none of its programs an option.

    Raises:
        InputError: it cannot.
    """
    if len(ref) > 1024 or _BAD_IN_REF.search(ref):
        raise InputError(f"invalid git ref {ref[:200]!r}", hint="give a branch, a tag or a full commit hash")
    return ref


def clean_subdir(subdir: str) -> str:
    """Return a directory in a repository as a clean relative path, "" for its root.

    Raises:
        InputError: it leaves the repository, or has a NUL.
    """
    depth = 0
    for part in subdir.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            raise InputError(f"the subdirectory {subdir[:200]!r} is outside of the git repository")
    if "\0" in subdir or len(subdir) > 4096:
        raise InputError(f"invalid subdirectory {subdir[:200]!r} of a git repository")
    return _clean("/" + subdir)[1:]


def check_checksum(text: str) -> str:
    """Return the (beginning of a) commit hash in lower case.

    Raises:
        InputError: it is none.
    """
    if not _CHECKSUM.match(text):
        raise InputError(f"invalid checksum {text[:100]!r} for a git URL", hint="give the commit's hash in hex")
    return text.lower()


def is_commit(text: str) -> bool:
    """Tell whether `text` is a full commit hash (SHA-1 or SHA-256)."""
    return _COMMIT.match(text) is not None


def to_source(url: GitUrl, options: GitOptions) -> tuple[str, dict[str, str]]:
    """Return identifier and attributes of the SourceOp that asks for `url`.

    Raises:
        InputError: options and URL contradict each other.
    """
    remote = url.remote
    keep = _agree("keep-git-dir", options.keep_git_dir, url.keep_git_dir)
    submodules = _agree("submodules", options.submodules, url.submodules)
    checksum = _agree("checksum", options.checksum or None, url.checksum or None)
    mtime = _agree("mtime", options.mtime or None, url.mtime or None)
    identifier = "git://" + remote.identity
    if url.ref or url.subdir:
        identifier += "#" + url.ref + (f":{url.subdir}" if url.subdir else "")
    attrs = {"git.fullurl": remote.text}
    wanted = {
        "git.keepgitdir": "true" if keep else "",
        "git.authtokensecret": options.auth_token_secret,
        "git.authheadersecret": options.auth_header_secret,
        "git.checksum": checksum or "",
        "git.skipsubmodules": "true" if submodules is False else "",
        "git.mtime": mtime or "",
        "git.fetchbycommit": "true" if url.fetch_by_commit else "",
    }
    if remote.scheme == "ssh":
        wanted["git.knownsshhosts"] = options.known_ssh_hosts
        wanted["git.mountsshsock"] = options.ssh_id or "default"
    attrs.update((name, value) for name, value in wanted.items() if value)
    return identifier, attrs


class _Query:
    """Reads the query of one URL over what its fragment said."""

    def __init__(self, remote: GitRemote, ref: str, subdir: str) -> None:
        self._remote, self._ref, self._subdir = remote, ref, subdir
        self._values: dict[str, str] = {}

    def read(self, query: str) -> None:
        from urllib.parse import unquote_plus

        for pair in filter(None, query.split("&")):
            key, _, value = pair.partition("=")
            key, value = unquote_plus(key), unquote_plus(value)
            if key not in _KEYS:
                raise InputError(
                    f"unexpected query {key[:100]!r} in a git URL", hint="known: " + ", ".join(sorted(_KEYS))
                )
            if key in self._values:
                raise InputError(f"query {key!r} of a git URL has several values")
            if not value and key not in _FLAGS:
                raise InputError(f"query {key!r} of a git URL has no value")
            self._values[key] = value

    def url(self, like_a_path: bool) -> GitUrl:
        values = self._values
        if "tag" in values and "branch" in values:
            raise InputError("a git URL names a tag and a branch")
        if "subdir" in values:
            self._subdir = self._one("subdir", self._subdir, clean_subdir(values["subdir"]))
        self._take_ref("ref", "")
        self._take_ref("tag", "refs/tags/")
        self._take_ref("branch", "refs/heads/")
        checksums = {check_checksum(values[key]) for key in ("checksum", "commit") if key in values}
        if len(checksums) > 1:
            raise InputError("checksum and commit of a git URL differ")
        mtime = values.get("mtime", "")
        if mtime not in ("", "checkout", "commit"):
            raise InputError(f"invalid mtime value {mtime[:100]!r} in a git URL", hint="checkout or commit")
        return GitUrl(
            self._remote,
            self._ref,
            self._subdir,
            checksums.pop() if checksums else "",
            self._flag("keep-git-dir"),
            self._flag("submodules"),
            mtime,
            self._flag("fetch-by-commit") or False,
            like_a_path,
        )

    def _take_ref(self, key: str, prefix: str) -> None:
        if key in self._values:
            value = check_ref(self._values[key])
            self._ref = self._one("ref", self._ref, value if value.startswith(prefix) else prefix + value)

    @staticmethod
    def _one(what: str, first: str, second: str) -> str:
        if first and first != second:
            raise InputError(f"{what} conflicts in a git URL: {first!r} and {second!r}")
        return second

    def _flag(self, key: str) -> bool | None:
        if key not in self._values:
            return None
        value = _BOOLEANS.get(self._values[key] or "true")
        if value is None:
            raise InputError(f"invalid {key} value {self._values[key][:100]!r} in a git URL", hint="true or false")
        return value


def _agree(what: str, option: _Given | None, url: _Given | None) -> _Given | None:
    if option is not None and url is not None and option != url:
        raise InputError(f"{what} is {option!r} as an option and {url!r} in the git URL")
    return url if option is None else option


def _scheme(text: str) -> str | None:
    """Return the transport in lower case, "" for the scp-like form, None for none of ours."""
    match = _SCHEME.match(text)
    if match is not None:
        scheme = match[1].lower()
        return scheme if scheme in _SCHEMES else None
    return "" if _SCP.match(text) else None


def _read(text: str, like_a_path: bool) -> GitUrl | None:
    """Return what a text says, None when its transport is none of ours."""
    rest, _, fragment = text.partition("#")
    bare, _, query = rest.partition("?")
    remote = parse_remote(bare)
    if remote is None:
        return None
    if not remote.scp:
        from urllib.parse import unquote

        fragment = unquote(fragment)
    found = _Query(remote, *split_fragment(fragment))
    found.read(query)
    return found.url(like_a_path)


def _check_remote(remote: GitRemote) -> None:
    if not _HOST.match(remote.host):
        raise InputError(f"invalid host {remote.host[:100]!r} in a git URL")
    if remote.user.startswith("-"):
        raise InputError("a user that starts with '-' in a git URL")
    if not remote.path.strip("/") or remote.path.startswith("-"):
        raise InputError(f"invalid path {remote.path[:100]!r} in a git URL", where=remote.host)


def _clean(path: str) -> str:
    """Return an absolute path without empty parts, "." and ".."."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _show(text: str) -> str:
    """Return the beginning of a text without what may be a password."""
    scheme, _, rest = text[:200].rpartition("://")
    return ascii(f"{scheme}://{rest.rpartition('@')[2]}" if scheme else rest)
