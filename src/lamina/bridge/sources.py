"""Where the Dockerfile frontend reads from: the client, a repository, a server, another result of the client's."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lamina import rooted
from lamina.api.errors import NotFoundError
from lamina.attest.capture import Material
from lamina.bridge.values import Ref
from lamina.dockerfile.convert import Input
from lamina.errors import InputError, NotYetError
from lamina.git_url import parse_git_url
from lamina.layer.magic import is_archive
from lamina.llb import state as llb
from lamina.llb.pb import ops_pb2 as pb
from lamina.policy.values import PolicyError, Source
from lamina.progress import VertexEvent, doing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamina.bridge.bridge import Bridge

MAX_BYTES = 16 << 20
"""Most bytes of a Dockerfile or ignore file."""
_NAME = "Dockerfile"
_HTTP = ("http://", "https://")
_ON = ("1", "t", "true")


@dataclass(frozen=True, slots=True)
class Read:
    """What was read: the Dockerfile and its name; the ignore file (None: there is none) and its name."""

    dockerfile: bytes
    name: str
    ignore: bytes | None
    ignore_name: str = ".dockerignore"


class Sources:
    """The places of one call.

    Attributes:
        context: stands for the build context where that is no directory of the client's; known after `read`.
    """

    def __init__(self, bridge: Bridge, attrs: Mapping[str, str], inputs: Mapping[str, Input]) -> None:
        self._bridge, self._job, self._attrs, self._inputs = bridge, bridge.job, attrs, inputs
        self.context: Input | None = None

    def read(self) -> Read:
        """Read the Dockerfile and the ignore file.

        Raises:
            InputError: the Dockerfile is not there, or what it should lie in is not.
        """
        name = self._attrs.get("filename", "") or _NAME
        where = self._attrs.get("context", "")
        for key, usual in (("contextkey", "context"), ("dockerfilekey", "dockerfile")):
            if self._attrs.get(key, usual) != usual:
                raise NotYetError(f"the frontend option {key}={self._attrs[key]}")
        if where.startswith("input:"):
            self.context = self._input(where.removeprefix("input:"))
        elif where and (parse_git_url(where) is not None or where.startswith(_HTTP)):
            return self._remote(where, name)
        if "dockerfile" in self._inputs:
            return Read(self._inside(self._input("dockerfile"), name), name, None)
        with self._shown(f"[internal] load build definition from {name}"):
            data, ignore = self._dockerfile(name)
        if ignore is not None or self.context is not None:
            return Read(data, name, ignore, f"{name}.dockerignore")
        with self._shown("[internal] load .dockerignore"):
            return Read(data, name, self.read_one("context", ".dockerignore"))

    def read_one(self, context: str, path: str) -> bytes | None:
        """Return one file of a directory of the client's, None when it is not there or there is no such directory."""
        directory = self._fetch(context, [path])
        return _read(directory, path) if directory is not None else None

    def _remote(self, where: str, name: str) -> Read:
        """Read from a repository, or from what a server has: an archive, or a Dockerfile alone."""
        keep = self._attrs.get("build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR", "").lower() in _ON
        if parse_git_url(where) is not None:
            self.context = Input(llb.git(where, keep_git_dir=keep or None).marshal())
            return Read(self._inside(self.context, name), name, None)
        title = "[internal] load remote build context"
        loaded = llb.http(where, filename="context", name=title).marshal()
        ref = Ref(loaded, self._job)
        head = self._bridge.read_file(ref, "/context", 0, 512)
        if not is_archive(head):
            self.context = Input(pb.Definition())
            return Read(self._bridge.read_file(ref, "/context"), _NAME, None)
        self.context = Input(_unpacked(loaded))
        return Read(self._inside(self.context, name), name, None)

    def _inside(self, context: Input, name: str) -> bytes:
        """Return the Dockerfile that lies in a context."""
        ref = Ref(context.definition, self._job)
        for path in (name, name.lower()) if name == _NAME else (name,):
            try:
                return self._bridge.read_file(ref, path)
            except NotFoundError:
                continue
        raise InputError("no such Dockerfile in the context", where=name, hint="name it with -f")

    def _input(self, name: str) -> Input:
        found = self._inputs.get(name)
        if found is None:
            raise InputError(f"the input {name!r} was not given to this build")
        return found

    def _dockerfile(self, name: str) -> tuple[bytes, bytes | None]:
        """Return the client's Dockerfile, and the ignore file of its own."""
        paths = [name, f"{name}.dockerignore"]
        if os.path.basename(name) == _NAME:
            paths.append(os.path.join(os.path.dirname(name), _NAME.lower()))
        directory = self._fetch("dockerfile", paths)
        if directory is None:
            raise InputError("the client offers no directory 'dockerfile'", hint="buildctl: --local dockerfile=DIR")
        data = _read(directory, name)
        if data is None and len(paths) == 3:
            data = _read(directory, paths[2])
        if data is None:
            raise InputError("no such Dockerfile", where=name, hint="name it with -f")
        return data, _read(directory, paths[1])

    def _fetch(self, name: str, paths: Sequence[str]) -> Path | None:
        # a directory of its own for each purpose, so that what was fetched for one is not dropped for another
        attrs = {"local.followpaths": json.dumps(list(paths)), "local.sharedkeyhint": f"{name}-{paths[0]}"}
        source = self._job.gate.judge(Source(f"local://{name}", attrs))
        if not source.identifier.startswith("local://"):
            raise PolicyError(f"policy converts the directory {name!r} to {source.shown!r}: it cannot be read here")
        name = source.identifier.removeprefix("local://")
        found = self._job.session.context_dir(name, source.attrs)
        if found is not None:
            self._job.materials.append(Material("local", name))
        return found

    @contextmanager
    def _shown(self, title: str) -> Iterator[None]:
        """Show as a vertex what is done here."""
        digest, started = f"internal:{title}", time.time()
        self._job.sink(VertexEvent(digest, title, started=started))
        try:
            with doing(digest):
                yield
        except BaseException as error:
            self._job.sink(VertexEvent(digest, title, started=started, completed=time.time(), error=str(error)))
            raise
        self._job.sink(VertexEvent(digest, title, started=started, completed=time.time()))


def _read(directory: Path, path: str) -> bytes | None:
    """Return a file's bytes, None when it is not there. What it names stays beneath the directory."""
    root = rooted.open_root(str(directory))
    try:
        return rooted.read_file(root, os.path.normpath(path).lstrip("/"), MAX_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from error
    finally:
        os.close(root)


def _unpacked(loaded: pb.Definition) -> pb.Definition:
    """Return the definition of the archive `/context` of another one, unpacked."""
    from lamina.dockerfile.graph import GraphBuilder

    graph = GraphBuilder("context", "")
    below = graph.include(loaded)
    assert below is not None
    copy = pb.FileActionCopy(
        src="/context", dest="/", mode=-1, timestamp=-1, attemptUnpackDockerCompatibility=True, createDestPath=True
    )
    action = pb.FileAction(input=-1, secondaryInput=0, output=0, copy=copy)
    op = pb.Op(inputs=[pb.Input(digest=below.digest, index=below.output)], file=pb.FileOp(actions=[action]))
    return graph.finish(graph.add(op, "[internal] unpack the build context"))
