"""A build context that lies on a server: a git repository, or by http an archive or a Dockerfile alone.

In: PATH and `--file` as given, and a function that brings a source's files into a directory. Out: `Inputs`, as for a
context on this machine, in a temporary directory that `Inputs.close` removes. What is not an archive (told by its
first bytes, never by its name) is a Dockerfile without context. `-f` names a file inside. Ignore files do not count:
as BuildKit has it, they are for directories of the user's own. `.git` is left out unless the build argument
BUILDKIT_CONTEXT_KEEP_GIT_DIR asks for it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from typing import BinaryIO

from lamina import llb
from lamina.cli.inputs import MAX_DOCKERFILE, Inputs, read_stream, take_from_archive, take_inside
from lamina.errors import Error, InputError
from lamina.git_url import GitUrl, parse_git_url
from lamina.layer.magic import is_archive
from lamina.source.http_request import parse_url, show_url

Fetch = Callable[[llb.State, str], None]
"""Writes the files of a state into an empty directory."""

_FILE = "context"
_KEEP_GIT = "BUILDKIT_CONTEXT_KEEP_GIT_DIR"


def fetch_inputs(
    path: str, file: str, stdin: BinaryIO, fetch: Fetch, build_args: Mapping[str, str] | None = None
) -> Inputs:
    """Fetch the context that `path` names and find the Dockerfile in it.

    Args:
        path: a URL that `inputs.is_remote` holds for.
        file: `--file`, "" when absent, "-" for standard input.
        fetch: see `Fetch`; solves, so that what did not change is not downloaded again.
        build_args: those that are about the context are looked at.

    Raises:
        Error: it cannot be had, or the Dockerfile is not there.
    """
    repository = parse_git_url(path)
    if repository is not None:
        return _from_git(path, repository, file, stdin, fetch, build_args or {})
    parse_url(path)
    download = tempfile.mkdtemp(prefix="lamina-download-")
    loaded = Inputs("", temporary=download)
    try:
        fetch(llb.http(path, filename=_FILE, name="[internal] load remote build context"), download)
        with open(os.path.join(download, _FILE), "rb") as body:
            head = body.read(512)
            if is_archive(head):
                return take_from_archive(file, head, body, stdin)
            return _dockerfile_alone(path, file, head, body)
    except Error as error:
        error.where = error.where or show_url(path)
        raise
    finally:
        loaded.close()


def _from_git(
    path: str, repository: GitUrl, file: str, stdin: BinaryIO, fetch: Fetch, build_args: Mapping[str, str]
) -> Inputs:
    directory = tempfile.mkdtemp(prefix="lamina-context-")
    inputs = Inputs(directory, temporary=directory)
    keep = build_args.get(_KEEP_GIT, "").lower() in ("1", "t", "true")
    mtime = "commit" if build_args.get("SOURCE_DATE_EPOCH") and not repository.mtime else ""
    try:
        fetch(llb.git(path, keep_git_dir=keep or None, mtime=mtime), directory)
        if file == "-":
            inputs.dockerfile, inputs.name = read_stream(stdin), "-"
        else:
            take_inside(inputs, file)
            inputs.ignore = None
    except BaseException:
        inputs.close()
        raise
    return inputs


def _dockerfile_alone(path: str, file: str, head: bytes, body: BinaryIO) -> Inputs:
    shown = show_url(path)
    if file:
        raise InputError("-f needs a context, and this URL is a Dockerfile (it is no archive)", where=shown)
    inputs = Inputs("")
    inputs.name = shown
    inputs.dockerfile = head + read_stream(body, MAX_DOCKERFILE - len(head), shown)
    if b"\0" in inputs.dockerfile:
        raise InputError("is neither an archive nor a Dockerfile", where=shown)
    return inputs
