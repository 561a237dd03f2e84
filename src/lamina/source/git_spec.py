"""What a `git://` SourceOp asks for, and what a remote's list of refs says about it. Pure.

In: identifier and attributes as BuildKit names them (`solver/pb/attr.go`), and the output of git-ls-remote(1). Out: a
`GitSpec`, and the `Pin` its ref stands for. Attributes that we cannot honour are refused, never passed over.

Invariant: a `Pin`'s hashes are full and lower case, its ref is one that git could have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lamina.errors import InputError, NetworkError, NotYetError
from lamina.git_url import GitRemote, check_checksum, check_ref, is_commit, read_remote, split_fragment

_KNOWN = frozenset({
    "git.fullurl", "git.keepgitdir", "git.authheadersecret", "git.authtokensecret", "git.knownsshhosts",
    "git.mountsshsock", "git.checksum", "git.skipsubmodules", "git.mtime", "git.fetchbycommit",
})  # fmt: skip
_NOT_YET = {
    "git.bundle": "git sources from a bundle",
    "git.checkoutbundle": "git bundles as a result",
    "git.sig.pubkey": "verified signatures of git commits",
    "git.sig.rejectexpired": "verified signatures of git commits",
    "git.sig.requiresignedtag": "verified signatures of git commits",
    "git.sig.ignoresignedtag": "verified signatures of git commits",
}


@dataclass(frozen=True, slots=True)
class GitSpec:
    """One git source.

    Attributes:
        remote: where the repository lies.
        ref: as asked for, "" for the default branch.
        subdir: relative and clean, "" for all.
        mtime: "checkout" (all files have the build's time) or "commit" (the commit's).
        fetch_by_commit: `checksum` is the commit; the ref only names it.
        header_secret, token_secret: ids of secrets, "" for none.
        ssh_id: which agent of the user's ssh may use, "" for none.
        known_hosts: lines of an ssh known_hosts file, "" when the graph brings none.
    """

    remote: GitRemote
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool = False
    submodules: bool = True
    mtime: str = "checkout"
    fetch_by_commit: bool = False
    header_secret: str = ""
    token_secret: str = ""
    ssh_id: str = ""
    known_hosts: str = field(default="", repr=False)

    @property
    def keeps_git_dir(self) -> bool:
        """Whether the result has a `.git`: a subdirectory never has."""
        return self.keep_git_dir and not self.subdir


@dataclass(frozen=True, slots=True)
class Pin:
    """What a ref stands for.

    Attributes:
        object: the commit or annotated tag that is fetched.
        commit: the commit, "" when only the fetch can tell (a full hash may be a tag's).
        ref: full ref, "" when a bare hash was asked for.
    """

    object: str
    commit: str = ""
    ref: str = ""

    @property
    def object_format(self) -> str:
        """The repository's hash function."""
        return "sha256" if len(self.object) == 64 else "sha1"


def parse_source(rest: str, attrs: Mapping[str, str]) -> GitSpec:
    """Return what a SourceOp asks for.

    Args:
        rest: the identifier after `git://`.

    Raises:
        InputError: something in it cannot be; NotYetError: an attribute that we do not honour yet.
    """
    bare, _, fragment = rest.partition("#")
    remote = read_remote(attrs.get("git.fullurl") or bare)
    ref, subdir = split_fragment(fragment)
    for name, value in attrs.items():
        if value and value != "false" and name.startswith("git.") and name not in _KNOWN:
            raise NotYetError(_NOT_YET.get(name, f"the attribute {name[:60]!r} of a git source"))
    mtime = attrs.get("git.mtime") or "checkout"
    if mtime not in ("checkout", "commit"):
        raise InputError(f"invalid git.mtime {mtime[:60]!r}", hint="checkout or commit")
    checksum = attrs.get("git.checksum", "")
    spec = GitSpec(
        remote,
        ref,
        subdir,
        check_checksum(checksum) if checksum else "",
        attrs.get("git.keepgitdir") == "true",
        attrs.get("git.skipsubmodules") != "true",
        mtime,
        attrs.get("git.fetchbycommit") == "true",
        attrs.get("git.authheadersecret", ""),
        attrs.get("git.authtokensecret", ""),
        attrs.get("git.mountsshsock", ""),
        attrs.get("git.knownsshhosts", ""),
    )
    if spec.fetch_by_commit and not is_commit(spec.ref) and not is_commit(spec.checksum):
        raise InputError("fetch-by-commit needs a full commit hash as checksum", where=remote.address)
    return spec


def pin_without_asking(spec: GitSpec) -> Pin | None:
    """Return the pin when the source itself names the commit, None when the remote has to be asked.

    Raises:
        InputError: the checksum is another one.
    """
    if is_commit(spec.ref):
        check_pin(spec, Pin(spec.ref))
        return Pin(spec.ref)
    if not spec.fetch_by_commit:
        return None
    # an unqualified name is a branch, as git itself prefers it
    ref = spec.ref if not spec.ref or spec.ref.startswith("refs/") else f"refs/heads/{spec.ref}"
    return Pin(spec.checksum, ref=ref)


def refs_to_ask(ref: str) -> list[str]:
    """Return the patterns for git-ls-remote(1) that find everything `ref` may mean."""
    return [ref, ref + "^{}"] if ref else ["HEAD"]


def read_refs(spec: GitSpec, listing: bytes) -> Pin:
    """Return what the source's ref stands for.

    The order is the one of git-checkout(1): a ref of exactly this name, then a branch, then a tag.

    Args:
        listing: output of `git ls-remote --symref`.

    Raises:
        InputError: there is no such ref, or the checksum is another one; NetworkError: no list of refs.
    """
    refs, default = _parse(listing)
    if not spec.ref:
        if "HEAD" not in refs:
            raise InputError("the repository has no default branch", where=spec.remote.address, hint="name a branch")
        pin = Pin(refs["HEAD"], refs["HEAD"], default)
    else:
        pin = _find(spec, refs)
    check_pin(spec, pin)
    return pin


def check_pin(spec: GitSpec, pin: Pin) -> None:
    """Raise `InputError` when the source's checksum is neither the commit's nor the annotated tag's."""
    if spec.checksum and not any(found.startswith(spec.checksum) for found in (pin.object, pin.commit)):
        got = pin.object if pin.commit in ("", pin.object) else f"{pin.commit} (tag object {pin.object})"
        raise InputError(
            f"checksum mismatch: expected commit {spec.checksum}, got {got}",
            where=f"{spec.remote.address}#{spec.ref}".rstrip("#"),
            hint="the ref has moved, or the checksum is not the commit's",
        )


def _find(spec: GitSpec, refs: dict[str, str]) -> Pin:
    bare = spec.ref.removeprefix("refs/")
    names = [
        f"refs/{bare}",
        f"refs/heads/{spec.ref.removeprefix('refs/heads/')}",
        f"refs/tags/{spec.ref.removeprefix('refs/tags/')}",
    ]
    if spec.ref == "HEAD":
        names.append("HEAD")
    for name in names:
        if name in refs:
            return Pin(refs[name], refs.get(name + "^{}", refs[name]), "" if name == "HEAD" else name)
    hint = "give the full hash of a commit" if _looks_short(spec.ref) else "name a branch, a tag or a full commit hash"
    raise InputError(f"the repository has no ref {spec.ref!r}", where=spec.remote.address, hint=hint)


def _parse(listing: bytes) -> tuple[dict[str, str], str]:
    refs: dict[str, str] = {}
    default = ""
    for line in listing.decode("utf-8", "surrogateescape").split("\n"):
        value, tab, name = line.partition("\t")
        if not tab:
            continue
        if value.startswith("ref: "):
            default = value.removeprefix("ref: ") if name == "HEAD" else default
        elif is_commit(value):
            refs.setdefault(name, value)
        else:
            raise NetworkError(f"the remote's list of refs has {value[:80]!r} in the place of a hash")
    return refs, check_ref(default)


def _looks_short(ref: str) -> bool:
    return 4 <= len(ref) < 40 and all(char in "0123456789abcdef" for char in ref)
