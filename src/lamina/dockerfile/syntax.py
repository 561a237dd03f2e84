"""Which front end a file asks for: `# syntax=docker/dockerfile:1` and its other spellings.

In: the bytes of a Dockerfile (or of whatever else was given as one) and the build argument `BUILDKIT_SYNTAX`, which
comes first. Out: nothing when the file is for the front end that is built in, an error otherwise. Pure; nothing is ever
downloaded: every version and channel of `docker/dockerfile` means the front end that is here.

Reference: Dockerfile reference, "syntax". As in BuildKit the directive is also found behind a `#!` line, as a comment
that begins with `//`, and as the member `syntax` of a file that is one JSON object, so that other languages can name
their front end in comments of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lamina.dockerfile.blanks import BLANKS
from lamina.errors import Error, NotYetError, SourceRange
from lamina.oci.reference import Reference

BUILD_ARG = "BUILDKIT_SYNTAX"
"""The build argument that replaces the directive."""

_BUILT_IN = ("docker.io/docker/dockerfile", "docker.io/docker/dockerfile-upstream")
_BUILT_IN_NAME = "dockerfile.v0"
_DIRECTIVE = re.compile(r"([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=[\t\n\f\r ]*(.+)\Z")
_KNOWN = ("syntax", "escape", "check")
_MAX_JSON = 1 << 20


@dataclass(frozen=True, slots=True)
class Syntax:
    """A front end as a file names it: its image, and the line where it stands."""

    image: str
    line: int


def find_syntax(data: bytes) -> Syntax | None:
    """Return the front end that a file names, None when it names none."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    skipped = 0
    if data.startswith(b"#!"):
        data, skipped = data.partition(b"\n")[2], 1
    for comment in ("#", "//"):
        found = _in_comments(data, comment, skipped)
        if found is not None:
            return found
    return _in_json(data, skipped)


def _in_comments(data: bytes, comment: str, skipped: int) -> Syntax | None:
    """Look through the directives at the top, each a line of its own that begins with `comment`."""
    seen = set()
    position, number = 0, skipped
    while position < len(data):
        end = data.find(b"\n", position)
        end = len(data) if end < 0 else end
        line = data[position:end].decode("utf-8", "replace")
        position, number = end + 1, number + 1
        match = _DIRECTIVE.match(line[len(comment) :].strip(BLANKS)) if line.startswith(comment) else None
        name = match[1].lower() if match else ""
        if match is None or name not in _KNOWN or name in seen:
            return None
        if name == "syntax":
            return Syntax(match[2].partition(" ")[0], number)
        seen.add(name)
    return None


def _in_json(data: bytes, skipped: int) -> Syntax | None:
    """Look into a file that is one JSON object."""
    if not data.lstrip().startswith(b"{") or len(data) > _MAX_JSON:
        return None
    import json

    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    name = found.get("syntax") if isinstance(found, dict) else None
    return Syntax(name, skipped + 1) if isinstance(name, str) else None


def is_built_in(image: str) -> bool:
    """Tell whether `image` is the front end for Dockerfiles, in any version or channel (`1`, `1.20`, `labs`)."""
    if image == _BUILT_IN_NAME:
        return True
    try:
        reference = Reference.parse(image)
    except Error:
        return False
    return f"{reference.registry}/{reference.repository}" in _BUILT_IN


def other_frontend(data: bytes, build_args: Mapping[str, str]) -> str:
    """Return the image of the front end that a file or the build argument names, "" for the one that is built in."""
    given = build_args.get(BUILD_ARG)
    if given is not None:
        image = given.strip().partition(" ")[0]
    else:
        found = find_syntax(data)
        image = found.image if found is not None else ""
    return "" if not image or is_built_in(image) else image


def check_syntax(data: bytes, filename: str, build_args: Mapping[str, str]) -> None:
    """Check that a file is for the front end that is built in.

    Raises:
        NotYetError: it, or the build argument `BUILDKIT_SYNTAX`, names another one.
    """
    given = build_args.get(BUILD_ARG)
    if given is not None:
        image = given.strip().partition(" ")[0]
        if not is_built_in(image):
            error = _not_yet(image, f"leave --build-arg {BUILD_ARG} out to take the Dockerfile for what it is")
            error.where = f"--build-arg {BUILD_ARG}"
            raise error
        return
    found = find_syntax(data)
    if found is not None and not is_built_in(found.image):
        source = SourceRange(filename, found.line, found.line, data.decode("utf-8", "replace"))
        hint = f"if it is a plain Dockerfile, remove the line, or give --build-arg {BUILD_ARG}=docker/dockerfile:1"
        raise _not_yet(found.image, hint, source)


def _not_yet(image: str, hint: str, source: SourceRange | None = None) -> NotYetError:
    shown = image.encode("utf-8", "replace").decode("utf-8")[:200]
    return NotYetError(f"the front end {shown!r}; docker/dockerfile is built in", hint=hint, source=source)
