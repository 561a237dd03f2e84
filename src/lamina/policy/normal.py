"""The one way to write a source, by which policies know it.

An image has its registry and its tag, a repository is named by host and path whatever it is fetched through: by the
address that is really used (`git.fullurl`), so that an op cannot show a policy another one. What cannot be read stays
as it is; whoever resolves it says what is wrong.
"""

from __future__ import annotations

import posixpath

from lamina.errors import InputError
from lamina.git_url import read_remote
from lamina.oci.reference import Reference
from lamina.policy.values import Source

_NAMED = ("docker-image", "oci-layout", "docker-image+blob", "oci-layout+blob")


def normal_source(source: Source) -> Source:
    """Return a source with its identifier written in the one way."""
    scheme, found, rest = source.identifier.partition("://")
    if not found:
        return source
    try:
        if scheme in _NAMED:
            return Source(f"{scheme}://{Reference.parse(rest)}", source.attrs)
        if scheme == "git":
            return Source(_git(rest, source.attrs.get("git.fullurl", "")), source.attrs)
    except InputError:
        pass
    return source


def _git(rest: str, full: str) -> str:
    bare, _, fragment = rest.partition("#")
    ref, _, subdir = fragment.partition(":")
    subdir = posixpath.normpath(f"/{subdir}").lstrip("/") if subdir else ""
    behind = f"#{ref}" + (f":{subdir}" if subdir else "") if ref or subdir else ""
    return f"git://{read_remote(full or bare).identity}{behind}"
